import type { Fields } from "#/base/fields.ts";
import { isHost } from "../host.ts";
import { copyBytes, latin1, sameBytes } from "../latin1.ts";
import { Http1Error, type Http1ErrorCode } from "./http1-error.ts";
import { IS_TARGET, IS_TOKEN, IS_VALUE } from "./tables.ts";

export interface HeadSettings {
  readonly role: "request" | "response";
  /** RFC 9112 §3.2: refuse an HTTP/1.1 request without Host. */
  readonly hostRequired: boolean;
  readonly fieldsMax: number;
  /** Of the head as RFC 9113 §6.5.2 counts it. */
  readonly listBytesMax: number;
}

/**
 * Parses one head: start line, fields, empty line. The result stays in the public fields until the next `parse`; `fields` is a
 * fresh array each time, made when it is asked for. Whatever two HTTP implementations are known to read differently is refused, not repaired.
 *
 * Clients and servers repeat themselves, so the bytes of the last start line and of the last field section are kept (when short)
 * together with what they meant; the same bytes again mean the same again.
 */
export class HeadParser {
  method = "";
  target = "";
  status = 0;
  reason = "";
  version: "1.0" | "1.1" = "1.1";
  /** Of `parseTrailers`. */
  trailers: Fields = [];
  /** Declared length in bytes, -1 without. */
  contentLength = -1;
  chunked = false;
  connectionClose = false;
  connectionKeepAlive = false;
  /** The Upgrade field of an HTTP/1.1 message whose Connection field names it. */
  upgrade: string | null = null;
  expectContinue = false;
  /** The target has a scheme and an authority, which then overrules Host (RFC 9112 §3.2.2). */
  absoluteForm = false;
  /** The bytes are those of the head parsed before this one. */
  repeated = false;
  /** After INCOMPLETE: not even the start line is whole. */
  inStartLine = false;
  error: Http1Error | null = null;

  readonly #settings: HeadSettings;
  readonly #isRequest: boolean;
  #isConnect = false;
  /** What the start line, and the fields last remembered, count as in HTTP/2. */
  #lineListBytes = 0;
  #sectionListBytes = 0;
  /** The start line of the head now being parsed differs from the one before. */
  #isNewLine = false;
  #hasConnectionUpgrade = false;
  #upgradeField: string | null = null;
  #expectField = false;
  #hosts = 0;
  readonly #lastLine = new Remembered(LINE_REMEMBERED_BYTES_MAX);
  readonly #lastSection = new Remembered(SECTION_REMEMBERED_BYTES_MAX);
  #lastFields: Fields = [];
  /** Null: a copy of `#lastFields`, not made yet. */
  #fields: Fields | null = [];

  constructor(settings: HeadSettings) {
    this.#settings = settings;
    this.#isRequest = settings.role === "request";
  }

  /** Index after the head in `bytes[start, stop)`, or INCOMPLETE, or FAILED with `error` set. */
  parse(bytes: Uint8Array, start: number, stop: number): number {
    this.inStartLine = true;
    const fieldsStart = this.#startLine(bytes, start, stop);
    if (fieldsStart <= 0) return fieldsStart;
    this.inStartLine = false;
    const sectionBytes = this.#lastSection.match(bytes, fieldsStart, stop);
    if (sectionBytes > 0) {
      this.repeated = !this.#isNewLine;
      this.#isNewLine = false;
      this.#fields = null;
      return this.#checkSize(this.#sectionListBytes) && this.#checkWhole()
        ? fieldsStart + sectionBytes
        : FAILED;
    }
    const end = scanFields(bytes, fieldsStart, stop, this.#settings.fieldsMax);
    if (end === INCOMPLETE) return INCOMPLETE;
    if (end < 0) return this.#failFields(end);
    this.repeated = false;
    this.#isNewLine = false;
    this.#lastSection.forget();
    this.#sectionListBytes = fieldListBytes;
    if (!this.#checkSize(fieldListBytes)) return FAILED;
    if (!this.#takeFields(bytes, fieldsStart, latin1(bytes, fieldsStart, end)) || !this.#checkWhole())
      return FAILED;
    if (this.#lastSection.keep(bytes, fieldsStart, end)) {
      this.#lastFields = this.fields;
      this.#fields = null;
    }
    return end;
  }

  /** Whoever knows the head already, since it is `repeated`, does not ask and is spared the copy. */
  get fields(): Fields {
    this.#fields ??= this.#lastFields.slice();
    return this.#fields;
  }

  /** The field lines after the last chunk. Same results as `parse`; only `trailers` and `error` are touched. */
  parseTrailers(bytes: Uint8Array, start: number, stop: number): number {
    this.inStartLine = false;
    const end = scanFields(bytes, start, stop, this.#settings.fieldsMax);
    if (end === INCOMPLETE) return INCOMPLETE;
    if (end < 0) return this.#failFields(end);
    if (fieldListBytes > this.#settings.listBytesMax)
      return this.#fail("HTTP1_HEAD_TOO_LARGE", `trailers over ${this.#settings.listBytesMax} bytes`, 431);
    const text = latin1(bytes, start, end);
    const fields: Fields = [];
    for (let i = 0; i < fieldMarksUsed; i += 4) {
      const nameStart = fieldMarks[i] as number;
      const nameStop = fieldMarks[i + 1] as number;
      // RFC 9110 §6.5.1: never fields that frame or route the message; a peer that merged them would be misled.
      if (fieldKind(bytes, nameStart, nameStop) !== Known.OTHER) {
        return this.#fail(
          "HTTP1_FRAMING_AMBIGUOUS",
          `trailer ${text.slice(nameStart - start, nameStop - start)} is not allowed`,
        );
      }
      fields.push(text.slice(nameStart - start, nameStop - start));
      fields.push(text.slice((fieldMarks[i + 2] as number) - start, (fieldMarks[i + 3] as number) - start));
    }
    this.trailers = fields;
    return end;
  }

  #startLine(bytes: Uint8Array, start: number, stop: number): number {
    const lineBytes = this.#lastLine.match(bytes, start, stop);
    if (lineBytes > 0) return start + lineBytes;
    this.#lastLine.forget();
    this.#isNewLine = true;
    const end = this.#isRequest
      ? this.#requestLine(bytes, start, stop)
      : this.#statusLine(bytes, start, stop);
    if (end > 0) this.#lastLine.keep(bytes, start, end);
    return end;
  }

  /** RFC 9112 §3: method SP request-target SP HTTP-version CRLF, with exactly these blanks. */
  #requestLine(bytes: Uint8Array, start: number, stop: number): number {
    let at = start;
    while (at < stop && IS_TOKEN[bytes[at] as number] === 1) at++;
    if (at - start > METHOD_BYTES_MAX) return this.#fail("HTTP1_HEAD_INVALID", "the method is too long", 501);
    if (at === stop) return INCOMPLETE;
    if (at === start || bytes[at] !== SP)
      return this.#fail("HTTP1_HEAD_INVALID", "the request line does not begin with a method");
    const methodStop = at++;
    const targetStart = at;
    while (at < stop && IS_TARGET[bytes[at] as number] === 1) at++;
    if (at === stop) return INCOMPLETE;
    if (at === targetStart || bytes[at] !== SP)
      return this.#fail("HTTP1_HEAD_INVALID", "the request target holds a character that it must not");
    const targetStop = at++;
    const text = latin1(bytes, start, targetStop);
    this.method = text.slice(0, methodStop - start);
    this.target = text.slice(targetStart - start);
    this.#lineListBytes = this.method.length + this.target.length + REQUEST_PSEUDO_BYTES;
    if (this.#lineListBytes > this.#settings.listBytesMax) {
      const { listBytesMax } = this.#settings;
      return this.#fail("HTTP1_HEAD_TOO_LARGE", `a request line over ${listBytesMax} bytes`, 414);
    }
    if (!this.#targetForm(bytes, targetStart, targetStop)) return FAILED;
    const afterVersion = this.#version(bytes, at, stop);
    if (afterVersion <= 0) return afterVersion;
    // RFC 9113 §3.4: the beginning of HTTP/2's preface, which no server may take for a request of HTTP/1.1.
    if (this.method === "PRI") return this.#fail("HTTP1_HEAD_INVALID", "PRI is no method of HTTP/1.1");
    return this.#lineEnd(bytes, afterVersion, stop);
  }

  /** RFC 9112 §3.2: "/…", "*", or absolute-form; authority-form for CONNECT and only there. */
  #targetForm(bytes: Uint8Array, start: number, stop: number): boolean {
    this.absoluteForm = false;
    this.#isConnect = this.method === "CONNECT";
    if (this.#isConnect) {
      if (isHost(this.target) && /[^:]:[0-9]{1,5}$/.test(this.target)) return true;
      this.#fail("HTTP1_HEAD_INVALID", "CONNECT needs host:port as its target");
      return false;
    }
    const first = bytes[start] as number;
    if (first === SLASH || (first === ASTERISK && stop - start === 1)) return true;
    const authority = /^[a-z][a-z0-9+.-]*:\/\/([^/?]+)/i.exec(this.target)?.[1];
    this.absoluteForm = authority !== undefined;
    if (authority === undefined)
      this.#fail("HTTP1_HEAD_INVALID", "the request target has none of the allowed forms");
    // It becomes Host. RFC 9110 §4.2.4: user information in it is an error, as it hides whom the request is for.
    else if (!isHost(authority)) this.#fail("HTTP1_HEAD_INVALID", "the target does not name a host");
    return this.error === null;
  }

  /** RFC 9112 §4: HTTP-version SP 3DIGIT [SP reason] CRLF. The blank is missing in the wild when there is no reason. */
  #statusLine(bytes: Uint8Array, start: number, stop: number): number {
    let at = this.#version(bytes, start, stop);
    if (at <= 0) return at;
    if (at === stop) return INCOMPLETE;
    if (bytes[at++] !== SP) return this.#fail("HTTP1_HEAD_INVALID", "no space after the version");
    let status = 0;
    for (const end = at + 3; at < end; at++) {
      if (at === stop) return INCOMPLETE;
      const digit = (bytes[at] as number) - 0x30;
      if (digit < 0 || digit > 9) return this.#fail("HTTP1_HEAD_INVALID", "the status is not three digits");
      status = 10 * status + digit;
    }
    if (status < 100) return this.#fail("HTTP1_HEAD_INVALID", `status ${status} is below 100`);
    this.status = status;
    if (at === stop) return INCOMPLETE;
    if (bytes[at] === SP) at++;
    else if (bytes[at] !== CR) return this.#fail("HTTP1_HEAD_INVALID", "the status is not three digits");
    const reasonStart = at;
    while (at < stop && IS_VALUE[bytes[at] as number] === 1) at++;
    const end = this.#lineEnd(bytes, at, stop);
    if (end > 0) {
      this.reason = latin1(bytes, reasonStart, at);
      this.#lineListBytes = this.reason.length + RESPONSE_PSEUDO_BYTES;
    }
    return end;
  }

  #version(bytes: Uint8Array, start: number, stop: number): number {
    const have = Math.min(stop - start, VERSION.length);
    for (let i = 0; i < have; i++) {
      const byte = bytes[start + i] as number;
      if (byte === VERSION[i] || (i === VERSION.length - 1 && byte === 0x30)) continue;
      // Only digits and the dot can make another version of HTTP out of it.
      if ((i === 5 || i === 7) && byte >= 0x30 && byte <= 0x39) {
        return this.#fail("HTTP1_VERSION_UNSUPPORTED", "neither HTTP/1.0 nor HTTP/1.1", 505);
      }
      return this.#fail("HTTP1_HEAD_INVALID", "no HTTP version where one belongs");
    }
    if (have < VERSION.length) return INCOMPLETE;
    this.version = bytes[start + 7] === 0x31 ? "1.1" : "1.0";
    return start + VERSION.length;
  }

  #lineEnd(bytes: Uint8Array, at: number, stop: number): number {
    // RFC 9112 §2.2: a bare CR is refused, and so is the bare LF that a recipient may, but need not, accept.
    if (at < stop && bytes[at] !== CR)
      return this.#fail("HTTP1_HEAD_INVALID", "the start line does not end in CRLF");
    if (at + 1 >= stop) return INCOMPLETE;
    if (bytes[at + 1] !== LF) return this.#fail("HTTP1_HEAD_INVALID", "the start line does not end in CRLF");
    return at + 2;
  }

  #checkSize(sectionListBytes: number): boolean {
    const { listBytesMax } = this.#settings;
    if (this.#lineListBytes + sectionListBytes <= listBytesMax) return true;
    this.#fail("HTTP1_HEAD_TOO_LARGE", `a head over ${listBytesMax} bytes`, 431);
    return false;
  }

  #takeFields(bytes: Uint8Array, start: number, text: string): boolean {
    this.contentLength = -1;
    this.chunked = false;
    this.connectionClose = false;
    this.connectionKeepAlive = false;
    this.#upgradeField = null;
    this.#expectField = false;
    this.#hasConnectionUpgrade = false;
    this.#hosts = 0;
    const fields: Fields = [];
    for (let i = 0; i < fieldMarksUsed; i += 4) {
      const nameStart = fieldMarks[i] as number;
      const nameStop = fieldMarks[i + 1] as number;
      const valueStart = fieldMarks[i + 2] as number;
      const valueStop = fieldMarks[i + 3] as number;
      const value = text.slice(valueStart - start, valueStop - start);
      fields.push(text.slice(nameStart - start, nameStop - start));
      fields.push(value);
      const kind = fieldKind(bytes, nameStart, nameStop);
      if (kind !== Known.OTHER && !this.#takeKnown(kind, value)) return false;
      if (kind === Known.TRANSFER_ENCODING && hasTab(bytes, nameStop)) {
        // RFC 9112 §5.1 takes the tab off; parsers that only take blanks off see another coding.
        this.#fail("HTTP1_FRAMING_AMBIGUOUS", "a tab around the transfer coding");
        return false;
      }
    }
    this.#fields = fields;
    return true;
  }

  #takeKnown(kind: number, value: string): boolean {
    switch (kind) {
      case Known.HOST:
        this.#hosts++;
        if (isHost(value)) return true;
        if (!this.#isRequest) return true; // has no meaning there
        this.#fail("HTTP1_HEAD_INVALID", "the Host field is not a host name");
        return false;
      case Known.CONTENT_LENGTH:
        return this.#takeContentLength(value);
      case Known.TRANSFER_ENCODING:
        return this.#takeTransferEncoding(value);
      case Known.CONNECTION:
        return this.#takeConnection(value.toLowerCase());
      case Known.UPGRADE:
        this.#upgradeField = this.#upgradeField === null ? value : `${this.#upgradeField}, ${value}`;
        return true;
      default:
        this.#expectField = value.toLowerCase() === "100-continue";
        return true;
    }
  }

  /** RFC 9110 §7.6.1. */
  #takeConnection(value: string): boolean {
    const options = value.split(",", CONNECTION_OPTIONS_MAX + 1);
    if (options.length > CONNECTION_OPTIONS_MAX)
      this.#fail("HTTP1_HEAD_INVALID", "too many connection options");
    for (const option of options) {
      const name = option.trim();
      if (name === "close") this.connectionClose = true;
      else if (name === "keep-alive") this.connectionKeepAlive = true;
      else if (name === "upgrade") this.#hasConnectionUpgrade = true;
    }
    return this.error === null;
  }

  #takeContentLength(value: string): boolean {
    // RFC 9112 §6.3: a repeated length may be refused even when all are equal, and a list in one field is the same thing.
    if (this.contentLength !== -1) this.#fail("HTTP1_FRAMING_AMBIGUOUS", "more than one Content-Length");
    // RFC 9110 §8.6: digits only. Sixteen of them are more than any body has, and still exact.
    else if (!/^[0-9]{1,16}$/.test(value) || Number(value) > Number.MAX_SAFE_INTEGER) {
      this.#fail("HTTP1_FRAMING_AMBIGUOUS", "Content-Length is not a number of bytes");
    } else this.contentLength = Number(value);
    return this.error === null;
  }

  #takeTransferEncoding(value: string): boolean {
    if (this.chunked) this.#fail("HTTP1_FRAMING_AMBIGUOUS", "more than one Transfer-Encoding");
    else if (value.toLowerCase() === "chunked") this.chunked = true;
    // RFC 9112 §6.1: the last coding frames the message; if it is not chunked, nothing does.
    else if (!/(^|,)[ \t]*chunked$/i.test(value))
      this.#fail("HTTP1_FRAMING_AMBIGUOUS", "Transfer-Encoding does not end in chunked");
    else if (/chunked[ \t]*,/i.test(value)) this.#fail("HTTP1_FRAMING_AMBIGUOUS", "chunked is applied twice");
    else this.#fail("HTTP1_CODING_UNSUPPORTED", "only the transfer coding chunked is known", 501);
    return this.error === null;
  }

  /** What start line and fields mean together. */
  #checkWhole(): boolean {
    // RFC 9112 §6.1: Transfer-Encoding overrides Content-Length, which is how requests are smuggled.
    if (this.chunked && this.contentLength !== -1) {
      this.#fail("HTTP1_FRAMING_AMBIGUOUS", "both Content-Length and Transfer-Encoding");
    }
    // RFC 9112 §6.1: HTTP/1.0 knows no transfer codings; the framing counts as faulty.
    else if (this.chunked && this.version === "1.0") {
      this.#fail("HTTP1_FRAMING_AMBIGUOUS", "Transfer-Encoding in an HTTP/1.0 message");
    } else if (this.#isRequest) {
      // RFC 9112 §3.2: exactly one Host in HTTP/1.1, never more than one.
      if (this.#hosts > 1) this.#fail("HTTP1_HEAD_INVALID", "more than one Host field");
      else if (this.#hosts === 0 && this.#settings.hostRequired && this.version === "1.1")
        this.#fail("HTTP1_HEAD_INVALID", "no Host field");
      // RFC 9110 §9.3.6: content in a CONNECT request has no meaning; the tunnel begins after the head.
      else if (this.#isConnect && (this.chunked || this.contentLength > 0)) {
        this.#fail("HTTP1_FRAMING_AMBIGUOUS", "a CONNECT request with content");
      }
    }
    // RFC 9110 §7.8: ignored in HTTP/1.0, and where Connection does not name it.
    this.upgrade = this.#hasConnectionUpgrade && this.version === "1.1" ? this.#upgradeField : null;
    // RFC 9110 §10.1.1: ignored in HTTP/1.0.
    this.expectContinue = this.#expectField && this.version === "1.1";
    return this.error === null;
  }

  #failFields(why: number): number {
    if (why === TOO_MANY_FIELDS) {
      return this.#fail("HTTP1_HEAD_TOO_LARGE", `more than ${this.#settings.fieldsMax} fields`, 431);
    }
    return this.#fail("HTTP1_HEAD_INVALID", FIELD_MESSAGES[-why] ?? "a field line is broken");
  }

  #fail(code: Http1ErrorCode, message: string, statusHint = 400): typeof FAILED {
    this.error ??= new Http1Error(code, message, this.#isRequest ? statusHint : 502);
    return FAILED;
  }
}

/** What `parse` returns when more bytes are needed. */
export const INCOMPLETE = 0;
/** What `parse` returns when `error` is set. */
export const FAILED = -1;
/** No more fields than this can be asked for: their places are kept in memory shared by all parsers. */
export const FIELDS_CEILING = 32_768;

/** RFC 9113 §6.5.2: what each field counts beside its characters. */
const FIELD_OVERHEAD_BYTES = 32;
/** What :method, :scheme (http) and :path count without their values, and :authority beyond the Host field. */
const REQUEST_PSEUDO_BYTES =
  3 * FIELD_OVERHEAD_BYTES + ":method".length + ":schemehttp".length + ":path".length + 6;
const RESPONSE_PSEUDO_BYTES = FIELD_OVERHEAD_BYTES + ":status200".length;

const EMPTY = new Uint8Array(0);

/** Bytes seen before, to tell cheaply that they have come again. */
class Remembered {
  readonly #bytesMax: number;
  #bytes: Uint8Array = EMPTY;
  #size = 0;
  #hasSeenOne = false;
  #missesInRow = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** How many bytes from `start` on are the remembered ones; 0 when they are not. */
  match(bytes: Uint8Array, start: number, stop: number): number {
    const size = this.#size;
    if (size === 0 || stop - start < size || !sameBytes(bytes, start, this.#bytes, 0, size)) return 0;
    this.#missesInRow = 0;
    return size;
  }

  forget(): void {
    this.#size = 0;
  }

  /** False when they are too long to be kept, or when what was kept was of no use too often: then only now and then. */
  keep(bytes: Uint8Array, start: number, stop: number): boolean {
    const size = stop - start;
    // Many connections bring one message alone, which nothing comes to be compared with.
    if (!this.#hasSeenOne) {
      this.#hasSeenOne = true;
      return false;
    }
    if (size > this.#bytesMax || (++this.#missesInRow > 4 && (this.#missesInRow & 15) !== 0)) return false;
    if (this.#bytes.length < size) this.#bytes = new Uint8Array(size + (size >> 2));
    copyBytes(bytes, start, stop, this.#bytes, 0);
    this.#size = size;
    return true;
  }
}

/** Each connection may hold this much for the comparison; longer lines and sections rarely repeat. */
const LINE_REMEMBERED_BYTES_MAX = 512;
const SECTION_REMEMBERED_BYTES_MAX = 2048;

const CR = 0x0d;
const LF = 0x0a;
const SP = 0x20;
const HTAB = 0x09;
const COLON = 0x3a;
const SLASH = 0x2f;
const ASTERISK = 0x2a;
/** The longest registered method has 17 characters. */
const METHOD_BYTES_MAX = 64;
/** Of one Connection field: "close", "keep-alive", "upgrade" and a few names come in practice. */
const CONNECTION_OPTIONS_MAX = 64;
const VERSION = codes("HTTP/1.1");

/**
 * Where the parts of the head now being parsed lie, as indexes into its bytes. Shared by all parsers, because parsing never
 * stops half-way: it begins anew when more bytes have come.
 */
let fieldMarks = new Int32Array(4 * 512);
let fieldMarksUsed = 0;
/** What they count as in HTTP/2. */
let fieldListBytes = 0;

const TOO_MANY_FIELDS = -2;
const NO_NAME = -3;
const BLANK_BEFORE_COLON = -4;
const FOLDED = -5;
const BAD_NAME = -6;
const BAD_VALUE = -7;
const BARE_CR = -8;
const BARE_LF = -9;
const FIELD_MESSAGES: readonly (string | undefined)[] = [
  undefined,
  undefined,
  undefined,
  "a field without a name",
  "a blank before the colon of a field",
  "a folded or indented field line",
  "a field name holds a character that it must not",
  "a field value holds a control character",
  "a CR without LF",
  "a LF without CR",
];

/** RFC 9112 §5: field lines up to and with the empty line. Index after it, INCOMPLETE, or why not. */
function scanFields(bytes: Uint8Array, start: number, stop: number, fieldsMax: number): number {
  let at = start;
  let used = 0;
  let listBytes = 0;
  for (;;) {
    if (at >= stop) return INCOMPLETE;
    if (bytes[at] === CR) {
      if (at + 1 >= stop) return INCOMPLETE;
      if (bytes[at + 1] !== LF) return BARE_CR;
      fieldMarksUsed = used;
      fieldListBytes = listBytes;
      return at + 2;
    }
    const nameStart = at;
    while (at < stop && IS_TOKEN[bytes[at] as number] === 1) at++;
    if (at >= stop) return INCOMPLETE;
    if (bytes[at] !== COLON || at === nameStart) return badName(bytes[at] as number, at === nameStart);
    const nameStop = at++;
    while (at < stop && (bytes[at] === SP || bytes[at] === HTAB)) at++;
    const valueStart = at;
    while (at < stop && IS_VALUE[bytes[at] as number] === 1) at++;
    if (at < stop && bytes[at] !== CR) return bytes[at] === LF ? BARE_LF : BAD_VALUE;
    if (at + 1 >= stop) return INCOMPLETE;
    if (bytes[at + 1] !== LF) return BARE_CR;
    let valueStop = at;
    while (valueStop > valueStart && (bytes[valueStop - 1] === SP || bytes[valueStop - 1] === HTAB))
      valueStop--;
    at += 2;
    if (used === 4 * fieldsMax) return TOO_MANY_FIELDS;
    if (used === fieldMarks.length) growFieldMarks();
    listBytes += nameStop - nameStart + valueStop - valueStart + FIELD_OVERHEAD_BYTES;
    fieldMarks[used] = nameStart;
    fieldMarks[used + 1] = nameStop;
    fieldMarks[used + 2] = valueStart;
    fieldMarks[used + 3] = valueStop;
    used += 4;
  }
}

/** Up to `FIELDS_CEILING`, and never back: a head that large comes again. */
function growFieldMarks(): void {
  const grown = new Int32Array(2 * fieldMarks.length);
  grown.set(fieldMarks);
  fieldMarks = grown;
}

/** Whether there is a tab between the colon at `start` and the CR of the line. */
function hasTab(bytes: Uint8Array, start: number): boolean {
  for (let at = start; bytes[at] !== CR; at++) if (bytes[at] === HTAB) return true;
  return false;
}

function badName(byte: number, isFirst: boolean): number {
  // RFC 9112 §5.2: obs-fold. RFC 9112 §2.2: blanks before the first field.
  if (isFirst && (byte === SP || byte === HTAB)) return FOLDED;
  if (isFirst && byte === COLON) return NO_NAME;
  // RFC 9112 §5.1: no blank between name and colon; it once made proxies miss a Transfer-Encoding.
  if (byte === SP || byte === HTAB) return BLANK_BEFORE_COLON;
  return byte === LF ? BARE_LF : BAD_NAME;
}

/** Fields that frame, route or end a message. */
const Known = {
  OTHER: 0,
  HOST: 1,
  EXPECT: 2,
  UPGRADE: 3,
  CONNECTION: 4,
  CONTENT_LENGTH: 5,
  TRANSFER_ENCODING: 6,
} as const;

const HOST = codes("host");
const EXPECT = codes("expect");
const UPGRADE = codes("upgrade");
const CONNECTION = codes("connection");
const CONTENT_LENGTH = codes("content-length");
const TRANSFER_ENCODING = codes("transfer-encoding");

function fieldKind(bytes: Uint8Array, start: number, stop: number): number {
  switch (stop - start) {
    case 4:
      return isName(bytes, start, HOST) ? Known.HOST : Known.OTHER;
    case 6:
      return isName(bytes, start, EXPECT) ? Known.EXPECT : Known.OTHER;
    case 7:
      return isName(bytes, start, UPGRADE) ? Known.UPGRADE : Known.OTHER;
    case 10:
      return isName(bytes, start, CONNECTION) ? Known.CONNECTION : Known.OTHER;
    case 14:
      return isName(bytes, start, CONTENT_LENGTH) ? Known.CONTENT_LENGTH : Known.OTHER;
    case 17:
      return isName(bytes, start, TRANSFER_ENCODING) ? Known.TRANSFER_ENCODING : Known.OTHER;
    default:
      return Known.OTHER;
  }
}

/** `bytes` hold token characters, of which only the two cases of a letter give the letter under `| 0x20`. */
function isName(bytes: Uint8Array, start: number, name: Uint8Array): boolean {
  for (let i = 0; i < name.length; i++) if (((bytes[start + i] as number) | 0x20) !== name[i]) return false;
  return true;
}

function codes(text: string): Uint8Array {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}
