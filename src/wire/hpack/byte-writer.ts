/**
 * Bytes on their way out. Written at `bytes[at…]` by whoever called `reserve` first; handed over by `take`, after
 * which the taker owns them. One slab serves many takes: each gets the part written since the one before, and a new
 * slab begins when the old one is nearly full. So a small answer costs no buffer of its own.
 *
 * Holds what is written and not taken; the owner bounds that through `pendingBytes`.
 */
export class ByteWriter {
  /** The slab. Only `[start, at)` is pending; 0 <= start <= at <= bytes.length. */
  bytes: Buffer;
  at = 0;
  #start = 0;
  /** Full slabs' pending parts, oldest first. */
  #full: Buffer[] = [];
  #fullBytes = 0;
  readonly #slabBytes: number;

  constructor(slabBytes: number = SLAB_BYTES) {
    this.#slabBytes = slabBytes;
    this.bytes = Buffer.allocUnsafeSlow(FIRST_SLAB_BYTES);
  }

  get pendingBytes(): number {
    return this.#fullBytes + this.at - this.#start;
  }

  /**
   * Makes room for `count` more bytes at `at`. The bytes from `keepFrom` on stay contiguous with them, so that a frame
   * head can be filled in afterwards; gives the place where `keepFrom` is now.
   */
  reserve(count: number, keepFrom: number = this.at): number {
    return this.bytes.length - this.at >= count ? keepFrom : this.#next(count, keepFrom);
  }

  /** Everything written since the last take in one buffer, or null. */
  take(): Buffer | null {
    if (this.#fullBytes === 0) {
      if (this.at === this.#start) return null;
      return this.#cut();
    }
    return Buffer.concat(this.takeAll());
  }

  /** The same as a short list, for a gathering write: nothing is copied. */
  takeAll(): Buffer[] {
    const all = this.#full;
    if (this.at > this.#start) all.push(this.#cut());
    this.#full = [];
    this.#fullBytes = 0;
    return all;
  }

  #cut(): Buffer {
    const cut = this.bytes.subarray(this.#start, this.at);
    if (this.bytes.length - this.at < SLAB_REST_BYTES_MIN) {
      this.bytes = Buffer.allocUnsafeSlow(this.#slabBytes);
      this.at = 0;
    }
    this.#start = this.at;
    return cut;
  }

  #next(count: number, keepFrom: number): number {
    const kept = this.at - keepFrom;
    const slab = Buffer.allocUnsafeSlow(Math.max(this.#slabBytes, 2 * kept + count));
    this.bytes.copy(slab, 0, keepFrom, this.at);
    if (keepFrom > this.#start) {
      this.#full.push(this.bytes.subarray(this.#start, keepFrom));
      this.#fullBytes += keepFrom - this.#start;
    }
    this.bytes = slab;
    this.#start = 0;
    this.at = kept;
    return 0;
  }
}

/** A connection that says little keeps little. */
const FIRST_SLAB_BYTES = 4096;
const SLAB_BYTES = 65536;
/** Less room than this is not worth keeping a slab for. */
const SLAB_REST_BYTES_MIN = 512;
