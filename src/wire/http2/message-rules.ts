import type { Fields } from "#/base/fields.ts";
import { isHost } from "../host.ts";
import { BAD_VALUE, FieldKind } from "../hpack/field-kind.ts";

/** Which message section is checked. */
export const Section = { REQUEST: 0, RESPONSE: 1, TRAILERS: 2 } as const;

/**
 * Checks a decoded header or trailer section against RFC 9113 §8.1–8.3. One instance a connection; the results are
 * valid until the next call.
 */
export class MessageRules {
  /** The status of a response, else 0. */
  status = 0;
  /** -1 when there is none. */
  contentLength = -1;
  isHead = false;
  isConnect = false;
  /** What was checked last, and with what outcome. */
  section = -1;
  wrong: string | null = null;

  /** Null when well-formed, else what is wrong. `kinds` comes from the decoder. */
  check(section: number, fields: Fields, kinds: Uint8Array): string | null {
    this.section = section;
    this.wrong = this.#check(section, fields, kinds);
    return this.wrong;
  }

  #check(section: number, fields: Fields, kinds: Uint8Array): string | null {
    this.status = 0;
    this.contentLength = -1;
    this.isHead = false;
    this.isConnect = false;
    const count = fields.length >>> 1;
    let seen = 0;
    let isPastPseudo = false;
    let method = "";
    let scheme = "";
    let authority: string | null = null;
    let path = "";
    let host: string | null = null;

    for (let i = 0; i < count; i++) {
      const kind = kinds[i]!;
      if (kind === FieldKind.ORDINARY) {
        isPastPseudo = true;
        continue;
      }
      // RFC 9113 §8.2.1, §10.3: nothing that could split a message elsewhere, or be read as something else.
      if (kind >= BAD_VALUE) return `field value of "${fields[2 * i]!}" has a forbidden character`;
      const value = fields[2 * i + 1]!;
      if (kind <= FieldKind.PROTOCOL) {
        // RFC 9113 §8.3: before all other fields, once each, never in trailers.
        if (isPastPseudo) return "pseudo-header field after another field";
        if (section === Section.TRAILERS) return "pseudo-header field in trailers";
        if ((seen & (1 << kind)) !== 0) return `pseudo-header field ${fields[2 * i]!} twice`;
        seen |= 1 << kind;
        if (kind === FieldKind.METHOD) method = value;
        else if (kind === FieldKind.SCHEME) scheme = value;
        else if (kind === FieldKind.AUTHORITY) authority = value;
        else if (kind === FieldKind.PATH) path = value;
        else if (kind === FieldKind.STATUS) {
          if (!this.#readStatus(value)) return "status is not three digits";
        }
        continue;
      }
      isPastPseudo = true;
      if (kind === FieldKind.HOST) {
        // RFC 9112 §3.2: over HTTP/1 two of them are an error, even where they agree.
        if (host !== null && section === Section.REQUEST) return "more than one host field";
        host = value;
      } else if (kind === FieldKind.CONTENT_LENGTH) {
        const length = parseContentLength(value);
        if (length < 0) return "content-length is no number";
        // RFC 9110 §8.6: a repeated one is passed on by nobody, even where the values agree.
        if (this.contentLength >= 0) return "more than one content-length";
        if (section !== Section.TRAILERS) this.contentLength = length;
      } else if (kind === FieldKind.TE) {
        // RFC 9113 §8.2.2: "te" may say "trailers" and nothing else.
        if (value !== "trailers" && value.toLowerCase() !== "trailers") return "te is not trailers";
      } else if (kind === FieldKind.CONNECTION_SPECIFIC) {
        return `connection-specific field "${fields[2 * i]!}"`;
      } else if (kind === FieldKind.BAD_NAME) {
        return "field name has an upper-case letter or a forbidden character";
      } else {
        return `unknown pseudo-header field`;
      }
    }

    if (section === Section.TRAILERS) return null;
    if (section === Section.RESPONSE) {
      // RFC 9113 §8.3.2: exactly :status.
      if (seen !== 1 << FieldKind.STATUS) return "response without :status, or with request fields";
      return null;
    }
    if ((seen & (1 << FieldKind.STATUS)) !== 0) return ":status in a request";
    if (method === "") return "request without :method";
    // As :authority, which was looked at when it was read. An answer may call anything "host".
    if (host !== null && !isHost(host)) return "host is no host";
    this.isHead = method === "HEAD";
    if (method === "CONNECT" && (seen & (1 << FieldKind.PROTOCOL)) === 0) {
      this.isConnect = true;
      // RFC 9113 §8.5: CONNECT has :authority, and neither :scheme nor :path.
      if (seen !== ((1 << FieldKind.METHOD) | (1 << FieldKind.AUTHORITY)) || authority === "") {
        return "CONNECT needs :method and :authority only";
      }
      return null;
    }
    // RFC 8441 §4: :protocol belongs to CONNECT.
    if ((seen & (1 << FieldKind.PROTOCOL)) !== 0 && method !== "CONNECT") return ":protocol without CONNECT";
    // RFC 9113 §8.3.1: :scheme and :path exactly once, :path not empty.
    if (!isScheme(scheme)) return "request without :scheme, or with none";
    if (path === "") return "request without :path";
    if (scheme === "http" || scheme === "https") {
      if (path.charCodeAt(0) !== SLASH && !(path === "*" && method === "OPTIONS"))
        return ":path does not begin with /";
    }
    // RFC 9113 §8.3.1: a host field that names someone else would let two hops disagree about the target.
    if (
      host !== null &&
      authority !== null &&
      host !== authority &&
      host.toLowerCase() !== authority.toLowerCase()
    ) {
      return "host differs from :authority";
    }
    return null;
  }

  #readStatus(value: string): boolean {
    if (value.length !== 3) return false;
    const a = value.charCodeAt(0) - 48;
    const b = value.charCodeAt(1) - 48;
    const c = value.charCodeAt(2) - 48;
    // RFC 9110 §15: 100 to 599 are defined; 600 to 999 are passed on as they come.
    if (a < 1 || a > 9 || b < 0 || b > 9 || c < 0 || c > 9) return false;
    this.status = 100 * a + 10 * b + c;
    return true;
  }
}

const SLASH = 0x2f;

/** RFC 3986 §3.1. */
function isScheme(text: string): boolean {
  return text === "http" || text === "https" || /^[a-z][a-z0-9+.-]*$/i.test(text);
}

/** RFC 9110 §8.6: digits only; -1 for anything else or what a number cannot hold exactly. */
function parseContentLength(value: string): number {
  const length = value.length;
  if (length === 0 || length > 15) return -1;
  let number = 0;
  for (let i = 0; i < length; i++) {
    const digit = value.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) return -1;
    number = 10 * number + digit;
  }
  return number;
}
