/** RFC 9110 §5.6.2: tchar, what methods and field names are made of. */
export const IS_TOKEN = table("!#$%&'*+-.^_`|~", (c) => isAlphanumeric(c));

/** RFC 9110 §5.5: what a field value may hold: visible ASCII, space, tab and obs-text; no other control character. */
export const IS_VALUE = table("\t", (c) => c >= 0x20 && c !== 0x7f);

/**
 * What a request target may hold. Wider than RFC 3986, because clients send `"`, `|`, `{` and raw UTF-8 and servers take them;
 * but no blank, no control character, and no "#": RFC 9112 §3.2 has no form with a fragment, and peers differ on what it means.
 */
export const IS_TARGET = table("", (c) => c > 0x20 && c !== 0x7f && c !== 0x23);

/**
 * RFC 3986 §3.2.2 with port: what a Host value may hold. Without the comma, which would let a joined pair of Host
 * fields pass for one, and without "@": RFC 9110 §4.2.4 wants user information refused.
 */
export const IS_HOST = table("-._~%!$&'()*+;=:[]", (c) => isAlphanumeric(c));

/** 0..15 for a hexadecimal digit, else 255. */
export const HEX_VALUE = new Uint8Array(256).map((_, c) => {
  const value = Number.parseInt(String.fromCharCode(c), 16);
  return Number.isNaN(value) ? 255 : value;
});

function table(extra: string, holds: (code: number) => boolean): Uint8Array {
  return new Uint8Array(256).map((_, c) => (holds(c) || extra.includes(String.fromCharCode(c)) ? 1 : 0));
}

function isAlphanumeric(code: number): boolean {
  return (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a);
}
