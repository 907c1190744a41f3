import { latin1 } from "./latin1.ts";

export type ClientHello =
  | { readonly kind: "incomplete" }
  | { readonly kind: "not-tls" }
  | {
      readonly kind: "hello";
      /** Host name of the server_name extension in lower case, or null when there is none. */
      readonly sni: string | null;
      /** Offered protocols in the client's order; empty when the extension is absent. */
      readonly alpn: string[];
      /** It offers to resume a session (RFC 8446 §4.2.11 pre_shared_key) instead of showing certificates. */
      readonly resumes: boolean;
    };

/**
 * Reads the ClientHello at the beginning of `bytes[start, stop)`, without consuming anything. Call again with more bytes
 * after `incomplete`. Says `not-tls` at the first byte that cannot belong to a ClientHello, for one that is malformed,
 * and for one longer than `CLIENT_HELLO_BYTES_MAX`. A hello spread over several records is put together.
 */
export function inspectClientHello(bytes: Uint8Array, start = 0, stop = bytes.length): ClientHello {
  const result = inspect(bytes, start, stop);
  return result === INCOMPLETE && stop - start >= CLIENT_HELLO_BYTES_MAX ? NOT_TLS : result;
}

/** Record heads included. A hello with two post-quantum key shares has about 2.5 KB. */
export const CLIENT_HELLO_BYTES_MAX = 16384;

function inspect(bytes: Uint8Array, start: number, stop: number): ClientHello {
  const fragment = handshakeBytes(bytes, start, stop);
  if (fragment === null) return NOT_TLS;
  const have = fragment.stop - fragment.start;
  if (have >= 1 && fragment.bytes[fragment.start] !== HANDSHAKE_CLIENT_HELLO) return NOT_TLS;
  if (have < HANDSHAKE_HEAD_BYTES) return INCOMPLETE;
  const body = new Cursor(fragment.bytes, fragment.start + 1, fragment.stop);
  const helloBytes = body.uint(3);
  if (helloBytes > CLIENT_HELLO_BYTES_MAX - HANDSHAKE_HEAD_BYTES) return NOT_TLS;
  if (have < HANDSHAKE_HEAD_BYTES + helloBytes) return INCOMPLETE;
  return parseHello(body.vector(helloBytes)) ?? NOT_TLS;
}

const INCOMPLETE = { kind: "incomplete" } as const;
const NOT_TLS = { kind: "not-tls" } as const;
const RECORD_HEAD_BYTES = 5;
const CONTENT_TYPE_HANDSHAKE = 22;
const HANDSHAKE_HEAD_BYTES = 4;
const HANDSHAKE_CLIENT_HELLO = 1;
const EXTENSION_SERVER_NAME = 0;
const EXTENSION_ALPN = 16;
const EXTENSION_PRE_SHARED_KEY = 41;

/** The handshake bytes of the leading records so far, joined where they span more than one; null when not TLS. */
function handshakeBytes(bytes: Uint8Array, start: number, stop: number): Slice | null {
  let joined: Uint8Array | null = null;
  let joinedBytes = 0;
  for (let at = start; ;) {
    const have = stop - at;
    if (have > 0 && bytes[at] !== CONTENT_TYPE_HANDSHAKE) return null;
    // RFC 8446 §5.1: legacy_record_version is 0x0301 or 0x0303; clients of old write 0x0300 and 0x0302.
    if (have > 1 && bytes[at + 1] !== 3) return null;
    if (have > 2 && (bytes[at + 2] as number) > 3) return null;
    if (have < RECORD_HEAD_BYTES) break;
    const recordBytes = ((bytes[at + 3] as number) << 8) | (bytes[at + 4] as number);
    // RFC 8446 §5.1: no empty handshake fragments, none over 2^14 bytes.
    if (recordBytes === 0 || recordBytes > 16384) return null;
    const from = at + RECORD_HEAD_BYTES;
    const to = Math.min(from + recordBytes, stop);
    const isLast = from + recordBytes > stop;
    // Nearly always: one record holds the hello, or holds what has come of it.
    if (joined === null && (isLast || helloBytesAt(bytes, from, to) <= to - from))
      return { bytes, start: from, stop: to };
    joined ??= new Uint8Array(CLIENT_HELLO_BYTES_MAX);
    const takeBytes = Math.min(to - from, joined.length - joinedBytes);
    joined.set(bytes.subarray(from, from + takeBytes), joinedBytes);
    joinedBytes += takeBytes;
    if (isLast || joinedBytes >= helloBytesAt(joined, 0, joinedBytes)) break;
    at = from + recordBytes;
  }
  return joined === null ? { bytes, start: stop, stop } : { bytes: joined, start: 0, stop: joinedBytes };
}

/** How many handshake bytes the hello at `start` has, head included; the bound when that is not known or more. */
function helloBytesAt(bytes: Uint8Array, start: number, stop: number): number {
  if (stop - start >= 1 && bytes[start] !== HANDSHAKE_CLIENT_HELLO) return 1;
  if (stop - start < HANDSHAKE_HEAD_BYTES) return CLIENT_HELLO_BYTES_MAX;
  const length = new Cursor(bytes, start + 1, stop).uint(3);
  return Math.min(HANDSHAKE_HEAD_BYTES + length, CLIENT_HELLO_BYTES_MAX);
}

/** RFC 8446 §4.1.2. Null when malformed. */
function parseHello(hello: Cursor): ClientHello | null {
  if (hello.uint(1) !== 3) return null; // legacy_version 0x0301..0x0303
  hello.skip(1 + 32); // its minor part; random
  hello.skip(hello.uint(1)); // legacy_session_id
  hello.skip(hello.uint(2)); // cipher_suites
  hello.skip(hello.uint(1)); // legacy_compression_methods
  let sni: string | null = null;
  let alpn: string[] | null = null;
  let resumes = false;
  // RFC 5246 §7.4.1.2: extensions may be absent altogether.
  const extensions = hello.left === 0 ? hello : hello.vector(hello.uint(2));
  while (extensions.left > 0) {
    const type = extensions.uint(2);
    const content = extensions.vector(extensions.uint(2));
    if (type === EXTENSION_SERVER_NAME) {
      if (sni !== null) return null; // RFC 8446 §4.2: no extension twice
      sni = parseServerName(content);
      if (sni === null) return null;
    } else if (type === EXTENSION_ALPN) {
      if (alpn !== null) return null;
      alpn = parseAlpn(content);
    } else if (type === EXTENSION_PRE_SHARED_KEY) resumes = true;
    if (content.broken) return null;
  }
  if (hello.broken || extensions.broken || hello.left > 0) return null;
  return { kind: "hello", sni, alpn: alpn ?? [], resumes };
}

/** RFC 6066 §3: a list with one entry of type host_name. Null when malformed. */
function parseServerName(content: Cursor): string | null {
  const list = content.vector(content.uint(2));
  const type = list.uint(1);
  const name = list.vector(list.uint(2));
  if (type !== 0 || list.broken || list.left > 0 || content.left > 0) return null;
  const text = latin1(name.bytes, name.at, name.stop).toLowerCase();
  // Names go into logs and rules: only what a host name (or an address, which some clients send) may hold.
  return /^[a-z0-9_.:-]{1,253}$/.test(text) ? text : null;
}

/** RFC 7301 §3.1: a list of 1 to 255 byte names. */
function parseAlpn(content: Cursor): string[] {
  const names: string[] = [];
  const list = content.vector(content.uint(2));
  while (list.left > 0) {
    const name = list.vector(list.uint(1));
    if (name.left === 0) list.broken = true;
    names.push(latin1(name.bytes, name.at, name.stop));
  }
  content.broken ||= list.broken || content.left > 0;
  return names;
}

interface Slice {
  bytes: Uint8Array;
  start: number;
  stop: number;
}

/** Reads big-endian integers and vectors. Reading past `stop` gives zeros, sets `broken` and leaves nothing. */
class Cursor {
  readonly bytes: Uint8Array;
  at: number;
  readonly stop: number;
  broken = false;

  constructor(bytes: Uint8Array, start: number, stop: number) {
    this.bytes = bytes;
    this.at = start;
    this.stop = stop;
  }

  get left(): number {
    return this.stop - this.at;
  }

  uint(size: number): number {
    if (!this.skip(size)) return 0;
    let value = 0;
    for (let i = this.at - size; i < this.at; i++) value = (value << 8) | (this.bytes[i] as number);
    return value;
  }

  skip(size: number): boolean {
    if (size > this.left) {
      this.broken = true;
      this.at = this.stop;
      return false;
    }
    this.at += size;
    return true;
  }

  /** The next `size` bytes as a cursor of their own. */
  vector(size: number): Cursor {
    return this.skip(size)
      ? new Cursor(this.bytes, this.at - size, this.at)
      : new Cursor(this.bytes, this.at, this.at);
  }
}
