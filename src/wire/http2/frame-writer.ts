import type { Fields } from "#/base/fields.ts";
import { ByteWriter } from "../hpack/byte-writer.ts";
import type { HpackEncoder } from "../hpack/encoder.ts";
import { copyBytes, putLatin1 } from "../latin1.ts";
import { CLIENT_PREFACE, Flag, Frame, FRAME_BYTES_DEFAULT, FRAME_HEAD_BYTES } from "./frame.ts";

/**
 * Writes HTTP/2 frames (RFC 9113 §6) one behind the other. Knows their form and nothing of streams or windows; the
 * owner decides what may be sent and bounds `pendingBytes`.
 */
export class FrameWriter {
  /** Largest payload of HEADERS and DATA: what the remote allows, and no more than we find fair to other streams. */
  frameBytesMax: number = FRAME_BYTES_DEFAULT;
  /** Long DATA goes out as it was given, without a copy. */
  passesData = false;
  readonly encoder: HpackEncoder;
  readonly #out = new ByteWriter();
  /** Of the DATA frame written last, until it is taken: its stream, and where its head lies. 0: there is none, or it ends its stream. */
  #dataStreamId = 0;
  #dataBytes: Buffer = NOTHING;
  #dataAt = 0;

  constructor(encoder: HpackEncoder) {
    this.encoder = encoder;
  }

  get pendingBytes(): number {
    return this.#out.pendingBytes;
  }

  take(): Uint8Array | null {
    this.#forgetData();
    return this.#out.take();
  }

  takeAll(): Uint8Array[] {
    this.#forgetData();
    return this.#out.takeAll();
  }

  #rememberData(): void {
    const { bytes, at } = this.#out;
    this.#dataAt = at - FRAME_HEAD_BYTES;
    if (this.#dataBytes !== bytes) this.#dataBytes = bytes;
  }

  /** Its memory must not be kept for it, and is another's to change. */
  #forgetData(): void {
    this.#dataStreamId = 0;
    this.#dataBytes = NOTHING;
  }

  /** RFC 9113 §3.4. */
  preface(): void {
    const out = this.#out;
    out.reserve(CLIENT_PREFACE.length);
    CLIENT_PREFACE.copy(out.bytes, out.at);
    out.at += CLIENT_PREFACE.length;
  }

  /** A header or trailer section: HEADERS, and CONTINUATION where one frame is too small. */
  section(streamId: number, fields: Fields, endStream: boolean): void {
    const out = this.#out;
    const flags = endStream ? Flag.END_STREAM : 0;
    out.reserve(FRAME_HEAD_BYTES + 256);
    let head = out.at;
    out.at += FRAME_HEAD_BYTES;
    head = this.encoder.encode(fields, out, head);
    const length = out.at - head - FRAME_HEAD_BYTES;
    if (length <= this.frameBytesMax) {
      fillHead(out.bytes, head, length, Frame.HEADERS, flags | Flag.END_HEADERS, streamId);
    } else {
      this.#split(head, length, flags, streamId);
    }
  }

  /** RFC 9113 §4.3: what does not fit one frame goes on in CONTINUATION. Moves the later parts apart, last first. */
  #split(at: number, length: number, flags: number, streamId: number): void {
    const out = this.#out;
    const part = this.frameBytesMax;
    const parts = Math.ceil(length / part);
    const head = out.reserve((parts - 1) * FRAME_HEAD_BYTES, at);
    const bytes = out.bytes;
    const payload = head + FRAME_HEAD_BYTES;
    for (let i = parts - 1; i > 0; i--) {
      const from = payload + i * part;
      const partBytes = Math.min(part, length - i * part);
      const to = from + i * FRAME_HEAD_BYTES;
      bytes.copyWithin(to, from, from + partBytes);
      const isLast = i === parts - 1;
      fillHead(
        bytes,
        to - FRAME_HEAD_BYTES,
        partBytes,
        Frame.CONTINUATION,
        isLast ? Flag.END_HEADERS : 0,
        streamId,
      );
    }
    fillHead(bytes, head, part, Frame.HEADERS, flags, streamId);
    out.at += (parts - 1) * FRAME_HEAD_BYTES;
  }

  /** `bytes[start, stop)` in as many frames as it takes, at least one; END_STREAM on the last. Copies, unless it passes long ones. */
  data(streamId: number, bytes: Uint8Array, start: number, stop: number, endStream: boolean): void {
    const out = this.#out;
    const most = this.frameBytesMax;
    let at = start;
    do {
      const length = stop - at < most ? stop - at : most;
      const flags = endStream && at + length === stop ? Flag.END_STREAM : 0;
      if (this.passesData && length >= PASSED_BYTES_MIN) {
        this.#head(0, Frame.DATA, flags, streamId, length);
        this.#rememberData();
        out.pass(bytes, at, at + length);
      } else {
        this.#head(length, Frame.DATA, flags, streamId);
        this.#rememberData();
        copy(bytes, at, at + length, out.bytes, out.at);
        out.at += length;
      }
      at += length;
    } while (at < stop);
    this.#dataStreamId = endStream ? 0 : streamId;
  }

  /** END_STREAM, with the stream's last DATA if that is still here, else in a frame of its own. */
  end(streamId: number): void {
    if (this.#dataStreamId !== streamId) this.data(streamId, NOTHING, 0, 0, true);
    else {
      this.#dataBytes[this.#dataAt + FLAGS_AT]! |= Flag.END_STREAM;
      this.#dataStreamId = 0;
    }
  }

  /** Of a frame whose payload does not come this way. */
  dataHead(streamId: number, length: number): void {
    this.#head(0, Frame.DATA, 0, streamId, length);
    this.#forgetData();
  }

  reset(streamId: number, errorCode: number): void {
    this.#head(4, Frame.RST_STREAM, 0, streamId);
    this.#uint32(errorCode);
  }

  /** Pairs of identifier and value. */
  settings(entries: readonly (readonly [id: number, value: number])[]): void {
    const out = this.#out;
    this.#head(6 * entries.length, Frame.SETTINGS, 0, 0);
    for (const [id, value] of entries) {
      out.bytes[out.at++] = id >>> 8;
      out.bytes[out.at++] = id;
      this.#uint32(value);
    }
  }

  settingsAck(): void {
    this.#head(0, Frame.SETTINGS, Flag.ACK, 0);
  }

  ping(first: number, second: number): void {
    this.#head(8, Frame.PING, 0, 0);
    this.#uint32(first);
    this.#uint32(second);
  }

  /** RFC 9113 §6.7: the answer repeats the 8 bytes at `start`. */
  pingAck(bytes: Uint8Array, start: number): void {
    const out = this.#out;
    this.#head(8, Frame.PING, Flag.ACK, 0);
    copy(bytes, start, start + 8, out.bytes, out.at);
    out.at += 8;
  }

  /** `debug` beyond `GOAWAY_DEBUG_BYTES_MAX` is cut off. */
  goAway(lastStreamId: number, errorCode: number, debug: string): void {
    const out = this.#out;
    const text = debug.slice(0, GOAWAY_DEBUG_BYTES_MAX);
    this.#head(8 + text.length, Frame.GOAWAY, 0, 0);
    this.#uint32(lastStreamId);
    this.#uint32(errorCode);
    out.at += putLatin1(out.bytes, text, out.at);
  }

  windowUpdate(streamId: number, bytes: number): void {
    this.#head(4, Frame.WINDOW_UPDATE, 0, streamId);
    this.#uint32(bytes);
  }

  /** Writes a frame head and makes room for its payload, or for as much of it as is written here. */
  #head(reserved: number, type: number, flags: number, streamId: number, length: number = reserved): void {
    const out = this.#out;
    out.reserve(FRAME_HEAD_BYTES + reserved);
    fillHead(out.bytes, out.at, length, type, flags, streamId);
    out.at += FRAME_HEAD_BYTES;
  }

  #uint32(value: number): void {
    const out = this.#out;
    const bytes = out.bytes;
    bytes[out.at++] = value >>> 24;
    bytes[out.at++] = value >>> 16;
    bytes[out.at++] = value >>> 8;
    bytes[out.at++] = value;
  }
}

/**
 * Shorter DATA costs less to copy than to write as a piece of its own. Who lends bytes for as long as a call must therefore announce
 * longer ones (`announceData`) and hand over shorter ones alone.
 */
export const PASSED_BYTES_MIN = 8192;
const NOTHING: Buffer = Buffer.alloc(0);
/** Within a frame's head (RFC 9113 §4.1). */
const FLAGS_AT = 4;
const GOAWAY_DEBUG_BYTES_MAX = 1024;
/** Below this a loop beats the call into native code. */
const NATIVE_COPY_BYTES_MIN = 32;

function fillHead(
  bytes: Buffer,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  bytes[at] = length >>> 16;
  bytes[at + 1] = length >>> 8;
  bytes[at + 2] = length;
  bytes[at + 3] = type;
  bytes[at + 4] = flags;
  bytes[at + 5] = streamId >>> 24;
  bytes[at + 6] = streamId >>> 16;
  bytes[at + 7] = streamId >>> 8;
  bytes[at + 8] = streamId;
}

function copy(from: Uint8Array, start: number, stop: number, into: Buffer, at: number): void {
  if (stop - start < NATIVE_COPY_BYTES_MIN) {
    while (start < stop) into[at++] = from[start++]!;
  } else {
    copyBytes(from, start, stop, into, at);
  }
}
