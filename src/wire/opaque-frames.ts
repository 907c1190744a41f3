import { assert } from "#/base/assert.ts";
import { ProtocolError } from "#/base/errors.ts";

/**
 * ALPN between two of our own sidecars. Ends of opaque streams are marked there, because TLS itself cannot tell a clean end
 * from a cut one; and HTTP/2 that carries HTTP/1 says how it was spelled.
 */
export const PILLION_ALPN = "pillion/1";

/** What `OpaqueReader.next()` found. */
export const OpaqueFound = { NOTHING: 0, DATA: 1, END: 2, RESET: 3, ERROR: 4 } as const;
export type OpaqueFound = (typeof OpaqueFound)[keyof typeof OpaqueFound];

/** Bytes before each payload: its length as u32, big-endian. 0 ends this half, 0xffffffff resets both. */
export const OPAQUE_HEAD_BYTES = 4;

/** The head of a payload. 0 < payloadBytes <= OPAQUE_PAYLOAD_BYTES_MAX; split what is larger. */
export function encodeOpaqueHead(payloadBytes: number): Uint8Array {
  const head = new Uint8Array(OPAQUE_HEAD_BYTES);
  putOpaqueHead(head, 0, payloadBytes);
  return head;
}

/** The same, into memory that the caller left free before the payload. */
export function putOpaqueHead(into: Uint8Array, at: number, payloadBytes: number): void {
  assert(payloadBytes > 0 && payloadBytes <= OPAQUE_PAYLOAD_BYTES_MAX, `a payload of ${payloadBytes} bytes`);
  into[at] = payloadBytes >>> 24;
  into[at + 1] = payloadBytes >>> 16;
  into[at + 2] = payloadBytes >>> 8;
  into[at + 3] = payloadBytes;
}

/** This half is over; the other goes on. */
export function encodeOpaqueEnd(): Uint8Array {
  return Uint8Array.of(0, 0, 0, 0);
}

/** Both halves are over, uncleanly. */
export function encodeOpaqueReset(): Uint8Array {
  return Uint8Array.of(0xff, 0xff, 0xff, 0xff);
}

/** Payloads are passed on as they come, so this bounds nothing but nonsense. */
export const OPAQUE_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024;

/**
 * Reads the frames of one half. Payload bytes are handed on as they arrive, in pieces: the reader holds no more than
 * three bytes of a head. Drain `next()` until NOTHING after each `feed`.
 */
export class OpaqueReader {
  /** DATA: the payload piece is `bytes[start, stop)`, borrowed from what was fed. */
  bytes: Uint8Array = EMPTY;
  start = 0;
  stop = 0;
  /** Set when `next()` first returns ERROR; the reader is dead from then on. */
  error: ProtocolError | null = null;

  /** Next byte to look at: 0 <= #at <= bytes.length. */
  #at = 0;
  /** Payload bytes still to come of the current frame. */
  #payloadBytes = 0;
  #head = 0;
  /** Bytes of the head seen so far: 0..3. */
  #headBytes = 0;
  #over: OpaqueFound = OpaqueFound.NOTHING;
  #transportEnded = false;

  feed(bytes: Uint8Array): void {
    this.bytes = this.#at < this.bytes.length ? concat(this.bytes.subarray(this.#at), bytes) : bytes;
    this.#at = 0;
  }

  /** The transport ended. Without a mark before it, this is a reset that TLS does not show: ERROR. */
  end(): void {
    this.#transportEnded = true;
  }

  /** An END or RESET mark was read. */
  get isOver(): boolean {
    return this.#over !== OpaqueFound.NOTHING;
  }

  next(): OpaqueFound {
    if (this.error !== null) return OpaqueFound.ERROR;
    const bytes = this.bytes;
    for (;;) {
      const available = bytes.length - this.#at;
      if (available === 0) {
        // A connection may be idle for hours: what it read last must not stay in memory, or what that is a view of.
        this.bytes = EMPTY;
        this.#at = 0;
        return this.#transportEnded && !this.isOver
          ? this.#fail("the stream was cut off")
          : OpaqueFound.NOTHING;
      }
      if (this.isOver) return this.#fail("bytes follow the end of the stream");
      if (this.#payloadBytes > 0) {
        this.start = this.#at;
        this.stop = this.#at += Math.min(available, this.#payloadBytes);
        this.#payloadBytes -= this.stop - this.start;
        return OpaqueFound.DATA;
      }
      this.#head = ((this.#head << 8) | (bytes[this.#at++] as number)) >>> 0;
      if (++this.#headBytes < OPAQUE_HEAD_BYTES) continue;
      const head = this.#head;
      this.#head = 0;
      this.#headBytes = 0;
      if (head === 0) return (this.#over = OpaqueFound.END);
      if (head === RESET_MARK) return (this.#over = OpaqueFound.RESET);
      if (head > OPAQUE_PAYLOAD_BYTES_MAX) return this.#fail(`a frame of ${head} bytes is over the limit`);
      this.#payloadBytes = head;
    }
  }

  #fail(message: string): OpaqueFound {
    this.error = new ProtocolError("OPAQUE_FRAME_INVALID", message);
    return OpaqueFound.ERROR;
  }
}

const RESET_MARK = 0xffff_ffff;
const EMPTY = new Uint8Array(0);

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}
