import { IS_TARGET, IS_TOKEN } from "../http1/tables.ts";

/**
 * What a header field is to HTTP/2, decided once when its name or value is read as text and kept beside it in the
 * dynamic table. A message of indexed fields is then checked without looking at a single character.
 */
export const FieldKind = {
  /** An ordinary field. */
  ORDINARY: 0,
  METHOD: 1,
  SCHEME: 2,
  AUTHORITY: 3,
  PATH: 4,
  STATUS: 5,
  PROTOCOL: 6,
  /** Begins with ":" and is none that we know (RFC 9113 §8.3: malformed). */
  UNKNOWN_PSEUDO: 7,
  /** An upper-case letter or a character that no name may have (RFC 9113 §8.2.1). */
  BAD_NAME: 8,
  /** connection, keep-alive, proxy-connection, transfer-encoding, upgrade (RFC 9113 §8.2.2). */
  CONNECTION_SPECIFIC: 9,
  TE: 10,
  CONTENT_LENGTH: 11,
  HOST: 12,
} as const;

/** Added to a kind when the value is none that such a field may have. */
export const BAD_VALUE = 0x80;
/** Takes `BAD_VALUE` away. */
export const NAME_KIND = 0x7f;

const KIND_BY_NAME: ReadonlyMap<string, number> = new Map([
  [":method", FieldKind.METHOD],
  [":scheme", FieldKind.SCHEME],
  [":authority", FieldKind.AUTHORITY],
  [":path", FieldKind.PATH],
  [":status", FieldKind.STATUS],
  [":protocol", FieldKind.PROTOCOL],
  ["connection", FieldKind.CONNECTION_SPECIFIC],
  ["keep-alive", FieldKind.CONNECTION_SPECIFIC],
  ["proxy-connection", FieldKind.CONNECTION_SPECIFIC],
  ["transfer-encoding", FieldKind.CONNECTION_SPECIFIC],
  ["upgrade", FieldKind.CONNECTION_SPECIFIC],
  ["te", FieldKind.TE],
  ["content-length", FieldKind.CONTENT_LENGTH],
  ["host", FieldKind.HOST],
]);

/** 1 where a byte may stand in a field name: RFC 9110 §5.6.2 `tchar` without upper-case letters. */
const NAME_BYTES = new Uint8Array(256);
for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
  NAME_BYTES[character.charCodeAt(0)] = 1;

const COLON = 0x3a;

/** Kind by a name's bytes, `text` being the same bytes as a string. */
export function kindOfName(text: string): number {
  const length = text.length;
  if (length === 0) return FieldKind.BAD_NAME;
  if (text.charCodeAt(0) === COLON) return KIND_BY_NAME.get(text) ?? FieldKind.UNKNOWN_PSEUDO;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0xff || NAME_BYTES[code] === 0) return FieldKind.BAD_NAME;
  }
  return KIND_BY_NAME.get(text) ?? FieldKind.ORDINARY;
}

/**
 * `BAD_VALUE` or 0, for the value of a field of this kind. RFC 9113 §8.2.1: no NUL, CR, LF anywhere, no white space at
 * either end. §10.3: a path and a method are besides what another version of HTTP would read alike.
 */
export function kindOfValue(kind: number, bytes: Uint8Array, start: number, stop: number): number {
  if (kind === FieldKind.PATH) return areAll(IS_TARGET, bytes, start, stop);
  if (kind === FieldKind.METHOD) return areAll(IS_TOKEN, bytes, start, stop);
  if (start === stop) return 0;
  const first = bytes[start]!;
  const last = bytes[stop - 1]!;
  if (first === 0x20 || first === 0x09 || last === 0x20 || last === 0x09) return BAD_VALUE;
  for (let i = start; i < stop; i++) {
    const byte = bytes[i]!;
    if (byte <= 0x0d && (byte === 0x00 || byte === 0x0a || byte === 0x0d)) return BAD_VALUE;
  }
  return 0;
}

function areAll(table: Uint8Array, bytes: Uint8Array, start: number, stop: number): number {
  for (let i = start; i < stop; i++) if (table[bytes[i]!] !== 1) return BAD_VALUE;
  return 0;
}

/** Fields that every encoder of ours sends as never indexed, whoever they came from (RFC 7541 §7.1.3). */
export const SENSITIVE: ReadonlySet<string> = new Set(["authorization", "proxy-authorization", "set-cookie"]);
