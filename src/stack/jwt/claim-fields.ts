import type { Fields } from "#/base/fields.ts";
import { keepNeverIndexed } from "#/base/fields.ts";
import type { Claims, JwtIssuer } from "#/model/access.ts";
import { claimAt } from "../access/claim.ts";
import type { VerifiedToken } from "./token-verifier.ts";

/** A claim of more characters is not told: it would be the application's head that breaks. */
const VALUE_CHARS_MAX = 4_096;

/** What an application gets of a request's fields: nothing that only the mesh may say, and what the mesh says of the token. */
export class ClaimFields {
  /** As applications may compare them: CGI and its heirs take `_` and `-` for the same. */
  readonly #reserved: ReadonlySet<string>;

  constructor(issuers: readonly JwtIssuer[]) {
    this.#reserved = new Set(
      issuers.flatMap(({ claimHeaders }) => claimHeaders.map(({ header }) => spelled(header))),
    );
  }

  get isEmpty(): boolean {
    return this.#reserved.size === 0;
  }

  /** Whether a client may not say this itself. */
  isReserved(name: string): boolean {
    return this.#reserved.has(spelled(name));
  }

  /** The same list where nothing changes. `header`: where the token was, in lower case; null without one. */
  passedOn(fields: Fields, token: VerifiedToken | null, header: string | null): Fields {
    const strips = token !== null && !token.issuer.forwards ? header : null;
    const told = token === null ? [] : toldOf(token);
    if (strips === null && told.length === 0 && !this.#isAnyReserved(fields)) return fields;
    const out: Fields = [];
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i] as string;
      if (this.isReserved(name) || (strips !== null && name.toLowerCase() === strips)) continue;
      out.push(name, fields[i + 1] as string);
    }
    out.push(...told);
    keepNeverIndexed(fields, out);
    return out;
  }

  /** Trailers, which some servers put among the header fields. */
  trailers(trailers: Fields | null): Fields | null {
    return trailers === null ? null : this.passedOn(trailers, null, null);
  }

  #isAnyReserved(fields: Fields): boolean {
    if (this.#reserved.size === 0) return false;
    for (let i = 0; i < fields.length; i += 2) if (this.isReserved(fields[i] as string)) return true;
    return false;
  }
}

function spelled(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

function toldOf({ issuer, claims }: VerifiedToken): string[] {
  return issuer.claimHeaders.flatMap(({ claim, header }) => {
    const value = claimText(claims, claim);
    return value === null ? [] : [header, value];
  });
}

/**
 * A claim as the value of a field: text, a number or a boolean as it is, a list of these with commas between. Null where it is not there,
 * or could not be read back for what it was: other characters than printable ASCII, blanks at an end, a comma within a list.
 */
export function claimText(claims: Claims, claim: string): string | null {
  const found = claimAt(claims, claim);
  if (!Array.isArray(found)) return plainText(found);
  const texts = found.map(plainText);
  if (texts.length === 0 || texts.some((text) => text === null || text.includes(","))) return null;
  const text = texts.join(",");
  return text.length > VALUE_CHARS_MAX ? null : text;
}

function plainText(value: unknown): string | null {
  if (typeof value !== "string" && typeof value !== "number" && typeof value !== "boolean") return null;
  const text = String(value);
  // RFC 9110 §5.5: what is no field value could end one and begin another.
  return text.length <= VALUE_CHARS_MAX && /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(text)
    ? text
    : null;
}
