import { ProtocolError } from "#/base/errors.ts";
import { Frame, Flag, FRAME_HEAD_BYTES } from "./frame.ts";

/** What `FrameReader.next()` found. */
export const Found = {
  NOTHING: 0,
  /** A whole frame, any type but DATA. */
  FRAME: 1,
  /** The head of a DATA frame; its payload follows as DATA. `length` counts padding too (RFC 9113 §6.9.1). */
  DATA_HEAD: 2,
  /** A part of the payload, padding left out. `isLast` when the frame is over with it. */
  DATA: 3,
  ERROR: 4,
} as const;
export type Found = (typeof Found)[keyof typeof Found];

/**
 * Splits a byte stream into HTTP/2 frames (RFC 9113 §4.1). Holds no socket and no timer.
 *
 * The fields describe what was found until the following call; the payload is `bytes[start, stop)`. DATA is passed on
 * as it arrives and never held back; of other frames at most one is held, of at most `frameBytesMax`.
 */
export class FrameReader {
  type = 0;
  flags = 0;
  streamId = 0;
  /** Payload bytes in the frame's head, padding included. */
  length = 0;
  bytes: Buffer = EMPTY;
  start = 0;
  stop = 0;
  isLast = false;
  /** DATA: payload bytes of the frame still to come after this part, padding left out. */
  restBytes = 0;
  /** Set once; the reader is dead from then on. */
  error: ProtocolError | null = null;

  readonly #frameBytesMax: number;
  #chunk: Buffer = EMPTY;
  /** First byte of the chunk not yet consumed. 0 <= #at <= #chunk.length. */
  #at = 0;
  /** A frame whose bytes came in several chunks: #held[0, #heldBytes), wanted up to #wantedBytes. */
  #held: Buffer = EMPTY;
  #heldBytes = 0;
  #wantedBytes = 0;
  /** Of the DATA frame being passed on: payload and padding still to come. */
  #dataBytes = 0;
  #paddingBytes = 0;
  #expect: number = Expect.HEAD;

  constructor(frameBytesMax: number) {
    this.#frameBytesMax = frameBytesMax;
  }

  /** Bytes kept from earlier chunks. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Whether the stream of bytes stands between two frames. */
  get isBetweenFrames(): boolean {
    return this.#expect === Expect.HEAD && this.#heldBytes === 0 && this.#at === this.#chunk.length;
  }

  /** `bytes` are looked at until `next` gives NOTHING; what is held beyond that is copied. */
  feed(bytes: Uint8Array): void {
    const chunk = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    // Usually everything was drained; else what is left goes in front.
    this.#chunk =
      this.#at === this.#chunk.length ? chunk : Buffer.concat([this.#chunk.subarray(this.#at), chunk]);
    this.#at = 0;
  }

  /** Lets go of memory that nothing more will be read from. After NOTHING: a connection may be idle for hours. */
  release(): void {
    this.bytes = EMPTY;
    if (this.#at < this.#chunk.length) return;
    this.#chunk = EMPTY;
    this.#at = 0;
  }

  next(): number {
    if (this.error !== null) return Found.ERROR;
    if (this.#expect !== Expect.HEAD) return this.#nextData();
    if (this.#heldBytes > 0) return this.#nextHeld();

    const chunk = this.#chunk;
    const start = this.#at;
    const available = chunk.length - start;
    if (available < FRAME_HEAD_BYTES) {
      if (available > 0) this.#hold(FRAME_HEAD_BYTES);
      return Found.NOTHING;
    }
    const length = this.#readHead(chunk, start);
    if (length < 0) return Found.ERROR;
    if (this.type === Frame.DATA) {
      this.#at = start + FRAME_HEAD_BYTES;
      return this.#beginData();
    }
    if (available < FRAME_HEAD_BYTES + length) {
      this.#hold(FRAME_HEAD_BYTES + length);
      return Found.NOTHING;
    }
    this.bytes = chunk;
    this.start = start + FRAME_HEAD_BYTES;
    this.stop = this.#at = this.start + length;
    return Found.FRAME;
  }

  /** Reads the frame head at `at`; gives the payload's length, or -1 after setting `error`. */
  #readHead(bytes: Buffer, at: number): number {
    const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    this.type = bytes[at + 3]!;
    this.flags = bytes[at + 4]!;
    // RFC 9113 §4.1: the reserved bit is ignored on receipt.
    this.streamId =
      ((bytes[at + 5]! & 0x7f) << 24) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 8) | bytes[at + 8]!;
    this.length = length;
    // RFC 9113 §4.2: judged from the head alone, so that a peer cannot make us hold the payload first.
    if (length > this.#frameBytesMax) {
      return this.#fail("H2_FRAME_SIZE_ERROR", `frame of ${length} bytes, ${this.#frameBytesMax} allowed`);
    }
    return length;
  }

  #fail(code: string, message: string): -1 {
    this.error = new ProtocolError(code, message);
    return -1;
  }

  /** Moves the rest of the chunk aside until `wantedBytes` are there. */
  #hold(wantedBytes: number): void {
    const rest = this.#chunk.length - this.#at;
    // A fresh buffer each time: what was handed out is never written again.
    const held = Buffer.allocUnsafeSlow(wantedBytes);
    this.#chunk.copy(held, 0, this.#at);
    this.#held = held;
    this.#heldBytes = rest;
    this.#wantedBytes = wantedBytes;
    this.#chunk = EMPTY;
    this.#at = 0;
  }

  #nextHeld(): number {
    for (;;) {
      const missing = this.#wantedBytes - this.#heldBytes;
      const available = this.#chunk.length - this.#at;
      const taken = missing < available ? missing : available;
      this.#chunk.copy(this.#held, this.#heldBytes, this.#at, this.#at + taken);
      this.#at += taken;
      this.#heldBytes += taken;
      if (taken < missing) return Found.NOTHING;

      if (this.#wantedBytes === FRAME_HEAD_BYTES) {
        const length = this.#readHead(this.#held, 0);
        if (length < 0) return Found.ERROR;
        if (this.type === Frame.DATA) {
          this.#heldBytes = 0;
          return this.#beginData();
        }
        if (length > 0) {
          const held = Buffer.allocUnsafeSlow(FRAME_HEAD_BYTES + length);
          this.#held.copy(held, 0, 0, FRAME_HEAD_BYTES);
          this.#held = held;
          this.#wantedBytes = FRAME_HEAD_BYTES + length;
          continue;
        }
      }
      this.bytes = this.#held;
      this.start = FRAME_HEAD_BYTES;
      this.stop = this.#wantedBytes;
      this.#heldBytes = 0;
      this.#held = EMPTY;
      return Found.FRAME;
    }
  }

  #beginData(): number {
    this.#dataBytes = this.length;
    this.#paddingBytes = 0;
    if ((this.flags & Flag.PADDED) === 0) {
      this.#expect = Expect.DATA;
    } else if (this.length === 0) {
      // RFC 9113 §4.2: too small to hold the padding's length.
      this.#fail("H2_FRAME_SIZE_ERROR", "padded DATA frame of 0 bytes");
      return Found.ERROR;
    } else {
      this.#expect = Expect.PADDING_LENGTH;
    }
    return Found.DATA_HEAD;
  }

  #nextData(): number {
    const chunk = this.#chunk;
    if (this.#expect === Expect.PADDING_LENGTH) {
      if (this.#at === chunk.length) return Found.NOTHING;
      this.#paddingBytes = chunk[this.#at++]!;
      this.#dataBytes -= 1 + this.#paddingBytes;
      // RFC 9113 §6.1: padding as long as the payload or longer is a PROTOCOL_ERROR.
      if (this.#dataBytes < 0) {
        this.#fail("H2_PROTOCOL_ERROR", "padding longer than its frame");
        return Found.ERROR;
      }
      this.#expect = Expect.DATA;
    }
    const available = chunk.length - this.#at;
    if (this.#expect === Expect.DATA) {
      const wanted = this.#dataBytes;
      if (available === 0 && wanted > 0) return Found.NOTHING;
      const taken = wanted < available ? wanted : available;
      this.bytes = chunk;
      this.start = this.#at;
      this.stop = this.#at += taken;
      this.#dataBytes = this.restBytes = wanted - taken;
      this.isLast = taken === wanted;
      if (this.isLast) this.#expect = this.#paddingBytes > 0 ? Expect.PADDING : Expect.HEAD;
      return Found.DATA;
    }
    const taken = this.#paddingBytes < available ? this.#paddingBytes : available;
    this.#at += taken;
    this.#paddingBytes -= taken;
    if (this.#paddingBytes > 0) return Found.NOTHING;
    this.#expect = Expect.HEAD;
    return this.next();
  }
}

/** What the reader waits for. */
const Expect = { HEAD: 0, PADDING_LENGTH: 1, DATA: 2, PADDING: 3 } as const;
const EMPTY: Buffer = Buffer.alloc(0);
