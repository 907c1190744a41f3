import { ProtocolError } from "#/base/errors.ts";
import { latin1, latin1Bytes, putLatin1 } from "./latin1.ts";

/** What the client of a connection between sidecars says before the first application byte. */
export interface TransportHeader {
  /** The port that the connection is meant for, 1..65535. */
  readonly port: number;
  /** DNS name of the target when it is not the receiving workload itself (a gateway then goes on to it); else null. */
  readonly name: string | null;
  /** What follows the header; null means opaque bytes. */
  readonly protocol: "http1" | "http2" | null;
}

export type TransportHeaderResult =
  | { readonly kind: "incomplete" }
  | { readonly kind: "error"; readonly error: ProtocolError }
  | { readonly kind: "header"; readonly header: TransportHeader; readonly rest: Uint8Array };

/** ALPN under which the header is sent. */
export const TRANSPORT_ALPN = "transport.l5d.io/v1";

/**
 * ALPN between two of our own sidecars. There opaque connections are streams of one that carries them all, and HTTP/2 that carries HTTP/1
 * says how it was spelled (docs/protocol/pillion-2.md).
 */
export const PILLION_ALPN = "pillion/2";

/** Preface, length and message: everything that goes before the application's bytes. */
export function encodeTransportHeader(header: TransportHeader): Uint8Array {
  const name = header.name ?? "";
  const nameBytes = name === "" ? 0 : 1 + varintBytes(name.length) + name.length;
  const messageBytes = 1 + varintBytes(header.port) + nameBytes + (header.protocol === null ? 0 : 4);
  const out = new Uint8Array(HEAD_BYTES + messageBytes);
  out.set(PREFACE);
  new DataView(out.buffer).setUint32(PREFACE.length, messageBytes);
  let at = HEAD_BYTES;
  out[at++] = Tag.PORT;
  at = putVarint(out, at, header.port);
  if (name !== "") {
    out[at++] = Tag.NAME;
    at = putVarint(out, at, name.length);
    at += putLatin1(out, name, at);
  }
  if (header.protocol !== null)
    out.set([Tag.PROTOCOL, 2, header.protocol === "http1" ? Tag.HTTP1 : Tag.HTTP2, 0], at);
  return out;
}

/**
 * Collects one header from any split of the bytes. Give it bytes until the answer is not `incomplete`; a wrong
 * preface or length is refused at the first byte that shows it. Holds at most `TRANSPORT_HEADER_BYTES_MAX`.
 */
export class TransportHeaderReader {
  #held: Uint8Array = new Uint8Array(0);

  feed(bytes: Uint8Array): TransportHeaderResult {
    const joined = this.#held.length === 0 ? bytes : concat(this.#held, bytes);
    this.#held = joined;
    const prefaceBytes = Math.min(joined.length, PREFACE.length);
    for (let i = 0; i < prefaceBytes; i++) {
      if (joined[i] !== PREFACE[i]) return failed("the connection does not begin with the transport preface");
    }
    if (joined.length < HEAD_BYTES) return INCOMPLETE;
    const view = new DataView(joined.buffer, joined.byteOffset, joined.length);
    const stop = HEAD_BYTES + view.getUint32(PREFACE.length);
    if (stop > TRANSPORT_HEADER_BYTES_MAX) return failed(`a header of ${stop} bytes is over the limit`);
    if (joined.length < stop) return INCOMPLETE;
    this.#held = new Uint8Array(0);
    const header = decodeMessage(joined, HEAD_BYTES, stop);
    if (typeof header === "string") return failed(header);
    return { kind: "header", header, rest: joined.subarray(stop) };
  }
}

/**
 * Preface and message together; longer ones are refused from their length alone. A header with the longest DNS name has
 * some 300 bytes; linkerd2-proxy would read up to 64 KiB, which nothing sends.
 */
export const TRANSPORT_HEADER_BYTES_MAX = 4096;

/** RFC 1035 §2.3.4 limits, with the underscore that service names use; lower case or upper, no empty label. */
export function isDnsName(name: string): boolean {
  if (name.length === 0 || name.length > 253) return false;
  return /^(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?$/i.test(
    name,
  );
}

const PREFACE = latin1Bytes("transport.l5d.io/v1\r\n\r\n");
const HEAD_BYTES = PREFACE.length + 4;
const INCOMPLETE = { kind: "incomplete" } as const;

/** Field number and wire type of `transport.l5d.io.Header` and `SessionProtocol`, as protobuf writes them. */
const Tag = { PORT: 0x08, NAME: 0x12, PROTOCOL: 0x1a, HTTP1: 0x0a, HTTP2: 0x12 } as const;

function failed(message: string): TransportHeaderResult {
  return { kind: "error", error: new ProtocolError("TRANSPORT_HEADER_INVALID", message) };
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

/** The header, or what is wrong with it. */
function decodeMessage(bytes: Uint8Array, start: number, stop: number): TransportHeader | string {
  let port = 0;
  let name = "";
  let protocol: TransportHeader["protocol"] = null;
  const cursor = new ProtoCursor(bytes, start, stop);
  while (cursor.next()) {
    if (cursor.tag === Tag.PORT) port = cursor.value;
    else if (cursor.tag === Tag.NAME) name = latin1(bytes, cursor.start, cursor.stop);
    else if (cursor.tag === Tag.PROTOCOL) {
      const inner = new ProtoCursor(bytes, cursor.start, cursor.stop);
      while (inner.next()) {
        if (inner.tag === Tag.HTTP1) protocol = "http1";
        else if (inner.tag === Tag.HTTP2) protocol = "http2";
      }
      if (inner.broken) return "the session protocol is no protobuf message";
    }
  }
  if (cursor.broken) return "the header is no protobuf message";
  if (port < 1 || port > 65535) return `port ${port} is not between 1 and 65535`;
  if (name !== "" && !isDnsName(name)) return "the name is no DNS name";
  return { port, name: name === "" ? null : name, protocol };
}

/** Walks the fields of one protobuf message; unknown ones are passed over by their wire type. */
class ProtoCursor {
  tag = 0;
  /** A varint field's value; not exact above 2^53, which is outside everything that we read. */
  value = 0;
  /** A length-delimited field's content: start <= stop <= end of the message. */
  start = 0;
  stop = 0;
  broken = false;
  readonly #bytes: Uint8Array;
  readonly #end: number;
  #at: number;

  constructor(bytes: Uint8Array, start: number, end: number) {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
  }

  next(): boolean {
    if (this.#at >= this.#end) return false;
    this.tag = this.#varint();
    const wireType = this.tag & 7;
    if (this.tag < 8 || this.tag > 0xffff_ffff) this.broken = true;
    else if (wireType === 0) this.value = this.#varint();
    else if (wireType === 1) this.#skip(8);
    else if (wireType === 2) this.#skip(this.#varint());
    else if (wireType === 5) this.#skip(4);
    else this.broken = true;
    return !this.broken;
  }

  #skip(length: number): void {
    this.start = this.#at;
    if (length > this.#end - this.#at) this.broken = true;
    else this.#at += length;
    this.stop = this.#at;
  }

  #varint(): number {
    let value = 0;
    for (let scale = 1, i = 0; i < 10; i++, scale *= 128) {
      if (this.#at >= this.#end) break;
      const byte = this.#bytes[this.#at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    this.broken = true;
    return 0;
  }
}

function varintBytes(value: number): number {
  let count = 1;
  for (let left = value; left >= 128; left = Math.floor(left / 128)) count++;
  return count;
}

function putVarint(out: Uint8Array, at: number, value: number): number {
  let left = value;
  while (left >= 128) {
    out[at++] = (left % 128) | 0x80;
    left = Math.floor(left / 128);
  }
  out[at++] = left;
  return at;
}
