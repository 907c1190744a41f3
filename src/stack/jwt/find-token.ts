import type { Fields } from "#/base/fields.ts";

/** Longer ones are refused unread: what a mesh takes in a head is bounded anyway, and no issuer signs as much. */
export const TOKEN_CHARS_MAX = 8_192;

export type FoundToken =
  | { readonly kind: "none" }
  /** `header`: in lower case, where it was. */
  | { readonly kind: "token"; readonly header: string; readonly token: string }
  | { readonly kind: "problem"; readonly problem: string };

const NONE: FoundToken = { kind: "none" };

/**
 * The one token of a request. `headers` are in lower case; "authorization" means its Bearer scheme (RFC 6750 §2.1), and what has another
 * scheme is none. More than one is refused: the application might read another than was verified.
 */
export function findToken(fields: Fields, headers: readonly string[]): FoundToken {
  let found: FoundToken = NONE;
  let authorizations = 0;
  for (let i = 0; i < fields.length; i += 2) {
    const header = (fields[i] as string).toLowerCase();
    if (!headers.includes(header)) continue;
    const value = (fields[i + 1] as string).trim();
    let token = value;
    if (header === "authorization") {
      authorizations++;
      const scheme = /^bearer(?: +|$)/i.exec(value);
      if (scheme === null) continue;
      token = value.slice(scheme[0].length);
    }
    if (found.kind !== "none") return { kind: "problem", problem: "it carries more than one token" };
    // RFC 7515 §7.1.
    if (token.length > TOKEN_CHARS_MAX)
      return { kind: "problem", problem: `the token has more than ${TOKEN_CHARS_MAX} characters` };
    if (!COMPACT.test(token)) return { kind: "problem", problem: "it is not three parts of base64url" };
    found = { kind: "token", header, token };
  }
  // `Basic` beside `Bearer`: whichever the application takes, the other was not looked at.
  return authorizations > 1 && found.kind === "token"
    ? { kind: "problem", problem: "it carries more than one Authorization field" }
    : found;
}

const COMPACT = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
