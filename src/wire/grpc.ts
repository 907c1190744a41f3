import { ProtocolError } from "#/base/errors.ts";

/** Status codes with the names and numbers of the gRPC specification. */
export const GrpcStatus = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type GrpcStatus = (typeof GrpcStatus)[keyof typeof GrpcStatus];

/** What `GrpcMessageReader.next()` found. */
export const GrpcFound = { NOTHING: 0, MESSAGE: 1, ERROR: 2 } as const;
export type GrpcFound = (typeof GrpcFound)[keyof typeof GrpcFound];

/** Cuts the DATA bytes of one direction of a call into messages. Drain `next()` until NOTHING after each `feed`. */
export class GrpcMessageReader {
  /** MESSAGE: the message. A view of what was fed where it lay in one piece, else a copy; never written to by us. */
  message: Uint8Array = EMPTY;
  /** MESSAGE: it is compressed with the call's `grpc-encoding`. */
  compressed = false;
  /** Set when `next()` first returns ERROR; the reader is dead from then on. */
  error: ProtocolError | null = null;

  readonly #messageBytesMax: number;
  /** Bytes not yet consumed, in order; the first from #at. At most one message and its head are held. */
  #chunks: Uint8Array[] = [];
  #at = 0;
  #heldBytes = 0;

  /** 4 MiB is what gRPC libraries take by default. A longer message is refused from its head. */
  constructor(messageBytesMax = 4 * 1024 * 1024) {
    this.#messageBytesMax = messageBytesMax;
  }

  feed(bytes: Uint8Array, start = 0, stop = bytes.length): void {
    if (stop <= start || this.error !== null) return;
    this.#chunks.push(start === 0 && stop === bytes.length ? bytes : bytes.subarray(start, stop));
    this.#heldBytes += stop - start;
    if (this.#chunks.length > CHUNKS_MANY) this.#mergeSmall();
  }

  /** A peer that sends single bytes costs us no more than the bytes: equal neighbours are joined, as in a merge sort. */
  #mergeSmall(): void {
    const chunks = this.#chunks;
    for (let last = chunks.length - 1; last > 1; last--) {
      const [a, b] = [chunks[last - 1] as Uint8Array, chunks[last] as Uint8Array];
      if (a.length > b.length) return;
      const joined = new Uint8Array(a.length + b.length);
      joined.set(a);
      joined.set(b, a.length);
      chunks.splice(last - 1, 2, joined);
    }
  }

  /** No message was begun and left unfinished: the stream may end here. */
  get isBetweenMessages(): boolean {
    return this.#heldBytes === 0;
  }

  next(): GrpcFound {
    if (this.error !== null) return GrpcFound.ERROR;
    if (this.#heldBytes < HEAD_BYTES) return GrpcFound.NOTHING;
    const flag = this.#peek(0);
    if (flag > 1) return this.#fail("GRPC_FLAG_INVALID", `message flag ${flag} is not known`);
    const messageBytes =
      this.#peek(1) * 0x100_0000 + (this.#peek(2) << 16) + (this.#peek(3) << 8) + this.#peek(4);
    if (messageBytes > this.#messageBytesMax) {
      return this.#fail(
        "GRPC_MESSAGE_TOO_LARGE",
        `a message of ${messageBytes} bytes is over ${this.#messageBytesMax}`,
      );
    }
    if (this.#heldBytes < HEAD_BYTES + messageBytes) return GrpcFound.NOTHING;
    this.#take(HEAD_BYTES);
    this.compressed = flag === 1;
    this.message = this.#take(messageBytes);
    return GrpcFound.MESSAGE;
  }

  /** Byte `offset` after the first one held. Heads are nearly always in the first chunk. */
  #peek(offset: number): number {
    let at = this.#at + offset;
    for (const chunk of this.#chunks) {
      if (at < chunk.length) return chunk[at] as number;
      at -= chunk.length;
    }
    return 0;
  }

  #take(size: number): Uint8Array {
    this.#heldBytes -= size;
    const first = this.#chunks[0];
    if (size === 0 || first === undefined) return EMPTY;
    if (first.length - this.#at > size) {
      this.#at += size;
      return first.subarray(this.#at - size, this.#at);
    }
    if (first.length - this.#at === size) {
      const out = first.subarray(this.#at);
      this.#chunks.shift();
      this.#at = 0;
      return out;
    }
    const out = new Uint8Array(size);
    let filled = 0;
    let used = 0;
    for (const chunk of this.#chunks) {
      const stop = Math.min(chunk.length, this.#at + size - filled);
      out.set(chunk.subarray(this.#at, stop), filled);
      filled += stop - this.#at;
      this.#at = stop === chunk.length ? 0 : stop;
      if (stop === chunk.length) used++;
      if (filled === size) break;
    }
    this.#chunks.splice(0, used);
    return out;
  }

  #fail(code: string, message: string): GrpcFound {
    this.error = new ProtocolError(code, message);
    this.#chunks = [];
    return GrpcFound.ERROR;
  }
}

/** One message with its head, ready to be sent as DATA. */
export function encodeGrpcMessage(message: Uint8Array, compressed = false): Uint8Array {
  const out = new Uint8Array(HEAD_BYTES + message.length);
  out[0] = compressed ? 1 : 0;
  new DataView(out.buffer).setUint32(1, message.length);
  out.set(message, HEAD_BYTES);
  return out;
}

/** Milliseconds of a `grpc-timeout` value (at most eight digits and a unit), rounded up; null when it is malformed. */
export function parseGrpcTimeout(value: string): number | null {
  const unitMs = UNIT_MS.get(value.slice(-1));
  const digits = value.slice(0, -1);
  if (unitMs === undefined || !/^[0-9]{1,8}$/.test(digits)) return null;
  return Math.ceil(Number(digits) * unitMs);
}

/** The finest unit that holds `timeoutMs` in eight digits; never shorter than asked. Negative means already over. */
export function encodeGrpcTimeout(timeoutMs: number): string {
  const ms = Math.max(0, timeoutMs);
  for (const [unit, unitMs] of UNIT_MS) {
    if (unitMs < 1) continue; // our clocks do not tell less than a millisecond
    const count = Math.ceil(ms / unitMs);
    if (count <= 99_999_999) return `${count}${unit}`;
  }
  return "99999999H";
}

/** The number of a `grpc-status` value; null when it is not a plain decimal. Unknown numbers are kept: peers may know them. */
export function parseGrpcStatus(value: string): number | null {
  return /^[0-9]{1,3}$/.test(value) ? Number(value) : null;
}

/** `grpc-message`: UTF-8, percent-encoded except for printable ASCII other than "%". */
export function encodeGrpcText(text: string): string {
  let out = "";
  for (const byte of UTF8.encode(text)) {
    out +=
      byte >= 0x20 && byte <= 0x7e && byte !== PERCENT
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/** The specification wants malformed percent signs kept as they are and invalid UTF-8 replaced, never an error. */
export function decodeGrpcText(value: string): string {
  const bytes = new Uint8Array(value.length);
  let length = 0;
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    const digits = value.slice(i + 1, i + 3);
    if (code === PERCENT && /^[0-9a-fA-F]{2}$/.test(digits)) {
      bytes[length++] = Number.parseInt(digits, 16);
      i += 2;
    } else bytes[length++] = code;
  }
  return TEXT.decode(bytes.subarray(0, length));
}

/** What a client concludes from an HTTP status without `grpc-status` (gRPC's http-grpc-status-mapping). */
export function grpcStatusOfHttp(status: number): GrpcStatus {
  switch (status) {
    case 400:
      return GrpcStatus.INTERNAL;
    case 401:
      return GrpcStatus.UNAUTHENTICATED;
    case 403:
      return GrpcStatus.PERMISSION_DENIED;
    case 404:
      return GrpcStatus.UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
      return GrpcStatus.UNAVAILABLE;
    default:
      return GrpcStatus.UNKNOWN;
  }
}

/** What a client concludes from RST_STREAM instead of a status (gRPC over HTTP2, "Errors"). Codes not named there: UNKNOWN. */
export function grpcStatusOfReset(http2Code: number): GrpcStatus {
  return RESET_STATUSES[http2Code] ?? GrpcStatus.UNKNOWN;
}

/** By RFC 9113 §7 code. */
const RESET_STATUSES: readonly GrpcStatus[] = [
  GrpcStatus.INTERNAL, // NO_ERROR
  GrpcStatus.INTERNAL, // PROTOCOL_ERROR
  GrpcStatus.INTERNAL, // INTERNAL_ERROR
  GrpcStatus.INTERNAL, // FLOW_CONTROL_ERROR
  GrpcStatus.UNKNOWN, // SETTINGS_TIMEOUT
  GrpcStatus.UNKNOWN, // STREAM_CLOSED
  GrpcStatus.INTERNAL, // FRAME_SIZE_ERROR
  GrpcStatus.UNAVAILABLE, // REFUSED_STREAM
  GrpcStatus.CANCELLED, // CANCEL
  GrpcStatus.INTERNAL, // COMPRESSION_ERROR
  GrpcStatus.INTERNAL, // CONNECT_ERROR
  GrpcStatus.RESOURCE_EXHAUSTED, // ENHANCE_YOUR_CALM
  GrpcStatus.PERMISSION_DENIED, // INADEQUATE_SECURITY
];

const HEAD_BYTES = 5;
const CHUNKS_MANY = 64;
const EMPTY = new Uint8Array(0);
const PERCENT = 0x25;
const UTF8 = new TextEncoder();
const TEXT = new TextDecoder();

const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ["n", 1e-6],
  ["u", 1e-3],
  ["m", 1],
  ["S", 1000],
  ["M", 60_000],
  ["H", 3_600_000],
]);
