import { HEX_VALUE, IS_TOKEN, IS_VALUE } from "./tables.ts";

/** What `ChunkReader.next()` found. */
export const ChunkFound = { NOTHING: 0, DATA: 1, LAST: 2, BROKEN: 3 } as const;
export type ChunkFound = (typeof ChunkFound)[keyof typeof ChunkFound];

/**
 * Undoes chunked coding (RFC 9112 §7.1) up to the last chunk; the trailer section is the caller's. Data is handed on as it comes,
 * whatever the chunks' sizes, and nothing is held: not even a split size line.
 */
export class ChunkReader {
  /** Index after what was consumed. */
  at = 0;
  /** DATA: the bytes are `[start, at)`. */
  start = 0;
  /** BROKEN: what is wrong, for the message of the error. */
  why = "";

  readonly #extensionBytesMax: number;
  /** Extension bytes that the peer may still send; every byte of data earns one back, up to the maximum. */
  #extensionBytesLeft: number;
  #state: State = State.SizeFirst;
  /** Of the current chunk: its size while the size is read, then what is still to come. */
  #chunkBytes = 0;
  #digits = 0;

  constructor(extensionBytesMax: number) {
    this.#extensionBytesMax = extensionBytesMax;
    this.#extensionBytesLeft = extensionBytesMax;
  }

  /** A new message. */
  begin(): void {
    this.#state = State.SizeFirst;
    this.#chunkBytes = 0;
    this.#extensionBytesLeft = this.#extensionBytesMax;
  }

  next(bytes: Uint8Array, start: number, stop: number): ChunkFound {
    for (let at = start; at < stop; at++) {
      const byte = bytes[at] as number;
      switch (this.#state) {
        case State.SizeFirst:
          this.#chunkBytes = HEX_VALUE[byte] as number;
          if (this.#chunkBytes === 255) return this.#break("a chunk size is missing");
          this.#digits = 1;
          this.#state = State.Size;
          break;
        case State.Size: {
          const digit = HEX_VALUE[byte] as number;
          if (digit !== 255) {
            // RFC 9112 §7.1: recipients must guard against overflow. Twelve digits are 256 TiB.
            if (++this.#digits > SIZE_DIGITS_MAX) return this.#break("a chunk size has too many digits");
            this.#chunkBytes = this.#chunkBytes * 16 + digit;
          } else if (byte === CR) this.#state = State.SizeLineFeed;
          // No blanks before the semicolon: RFC 9112 §7.1.1 lets old senders put them there, and readers differ.
          else if (byte === SEMICOLON) this.#state = State.ExtensionFirst;
          else return this.#break("a chunk size is not hexadecimal");
          break;
        }
        case State.ExtensionFirst:
        case State.ExtensionName:
        case State.ExtensionValueFirst:
        case State.ExtensionValue:
        case State.ExtensionQuoted:
        case State.ExtensionEscaped:
        case State.ExtensionQuotedEnd:
          if (--this.#extensionBytesLeft < 0) return this.#break("chunk extensions are over their limit");
          if (!this.#extension(byte)) return this.#break("a chunk extension is malformed");
          break;
        case State.SizeLineFeed:
          if (byte !== LF) return this.#break("a chunk size line does not end in CRLF");
          if (this.#chunkBytes === 0) {
            this.at = at + 1;
            return ChunkFound.LAST;
          }
          this.#state = State.Data;
          break;
        case State.Data:
          return this.#data(at, stop);
        case State.DataReturn:
          if (byte !== CR) return this.#break("chunk data does not end in CRLF");
          this.#state = State.DataLineFeed;
          break;
        case State.DataLineFeed:
          if (byte !== LF) return this.#break("chunk data does not end in CRLF");
          this.#state = State.SizeFirst;
          break;
      }
    }
    this.at = stop;
    return ChunkFound.NOTHING;
  }

  /**
   * RFC 9112 §7.1.1: `;name`, `;name=token` or `;name="quoted"`, without blanks. The meaning is ignored, the form is not: where it
   * ends is where the data begins. False when malformed.
   */
  #extension(byte: number): boolean {
    switch (this.#state) {
      case State.ExtensionFirst:
        this.#state = State.ExtensionName;
        return IS_TOKEN[byte] === 1;
      case State.ExtensionName:
        if (byte === EQUALS) this.#state = State.ExtensionValueFirst;
        else return IS_TOKEN[byte] === 1 || this.#extensionEnd(byte);
        return true;
      case State.ExtensionValueFirst:
        this.#state = byte === QUOTE ? State.ExtensionQuoted : State.ExtensionValue;
        return byte === QUOTE || IS_TOKEN[byte] === 1;
      case State.ExtensionValue:
        return IS_TOKEN[byte] === 1 || this.#extensionEnd(byte);
      case State.ExtensionQuoted:
        if (byte === QUOTE) this.#state = State.ExtensionQuotedEnd;
        else if (byte === BACKSLASH) this.#state = State.ExtensionEscaped;
        return IS_VALUE[byte] === 1;
      case State.ExtensionEscaped:
        this.#state = State.ExtensionQuoted;
        return IS_VALUE[byte] === 1;
      default:
        return this.#extensionEnd(byte);
    }
  }

  #extensionEnd(byte: number): boolean {
    if (byte === CR) this.#state = State.SizeLineFeed;
    else if (byte === SEMICOLON) this.#state = State.ExtensionFirst;
    else return false;
    return true;
  }

  #data(at: number, stop: number): ChunkFound {
    const size = Math.min(stop - at, this.#chunkBytes);
    this.#chunkBytes -= size;
    if (this.#chunkBytes === 0) this.#state = State.DataReturn;
    this.#extensionBytesLeft = Math.min(this.#extensionBytesMax, this.#extensionBytesLeft + size);
    this.start = at;
    this.at = at + size;
    return ChunkFound.DATA;
  }

  #break(why: string): ChunkFound {
    this.why = why;
    return ChunkFound.BROKEN;
  }
}

const State = {
  SizeFirst: 0,
  Size: 1,
  ExtensionFirst: 2,
  ExtensionName: 3,
  ExtensionValueFirst: 4,
  ExtensionValue: 5,
  ExtensionQuoted: 6,
  ExtensionEscaped: 7,
  ExtensionQuotedEnd: 8,
  SizeLineFeed: 9,
  Data: 10,
  DataReturn: 11,
  DataLineFeed: 12,
} as const;
type State = (typeof State)[keyof typeof State];

const CR = 0x0d;
const LF = 0x0a;
const SEMICOLON = 0x3b;
const EQUALS = 0x3d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const SIZE_DIGITS_MAX = 12;
