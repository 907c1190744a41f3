/**
 * Bytes on their way out. Written at `bytes[at…]` by whoever called `reserve` first; handed over by `take`, after
 * which the taker owns them. One slab serves many takes: each gets the part written since the one before. So a small
 * answer costs no buffer of its own. Slabs grow and shrink with what is taken, so that a quiet connection holds little
 * and a take from a busy one is rarely in two pieces.
 *
 * Holds what is written and not taken, which the owner bounds through `pendingBytes`, and one slab of at most
 * `SLAB_BYTES_MAX` (more only while a single piece is larger).
 */
export class ByteWriter {
  /** The slab. Only `[start, at)` is pending; 0 <= start <= at <= bytes.length. */
  bytes: Buffer = EMPTY;
  at = 0;
  #start = 0;
  /** Full slabs' pending parts, oldest first. */
  #full: Buffer[] = [];
  #fullBytes = 0;
  #slabBytes: number;
  /** Takes since the slab was made. */
  #takes = 0;

  constructor(slabBytes: number = SLAB_BYTES_MIN) {
    this.#slabBytes = slabBytes;
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

  /** `bytes[start, stop)` behind what was written, as they are: they must not change any more. */
  pass(bytes: Uint8Array, start: number, stop: number): void {
    if (this.at > this.#start) {
      this.#full.push(this.bytes.subarray(this.#start, this.at));
      this.#fullBytes += this.at - this.#start;
      this.#start = this.at;
    }
    this.#full.push(bytes.subarray(start, stop) as Buffer);
    this.#fullBytes += stop - start;
  }

  /** Everything written since the last take in one buffer, or null. */
  take(): Buffer | null {
    if (this.#fullBytes > 0) return Buffer.concat(this.takeAll());
    return this.at === this.#start ? null : this.#cut();
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
    this.#takes++;
    this.#start = this.at;
    // What is nearly full, or served long enough, is let go, so that a small rest does not keep a large slab alive.
    if (this.bytes.length - this.at < SLAB_REST_BYTES_MIN) this.#drop();
    return cut;
  }

  /** Forgets the slab; the next `reserve` makes one that fits the rhythm of takes. */
  #drop(): void {
    if (this.#takes < TAKES_FEW) this.#slabBytes = Math.min(2 * this.#slabBytes, SLAB_BYTES_MAX);
    else if (this.#takes > TAKES_MANY) this.#slabBytes = Math.max(this.#slabBytes >>> 1, SLAB_BYTES_MIN);
    this.#takes = 0;
    this.bytes = EMPTY;
    this.at = 0;
    this.#start = 0;
  }

  #next(count: number, keepFrom: number): number {
    const { bytes, at } = this;
    const kept = at - keepFrom;
    if (keepFrom > this.#start) {
      this.#full.push(bytes.subarray(this.#start, keepFrom));
      this.#fullBytes += keepFrom - this.#start;
    }
    if (bytes.length > 0) this.#drop();
    this.bytes = Buffer.allocUnsafeSlow(Math.max(this.#slabBytes, 2 * kept + count));
    bytes.copy(this.bytes, 0, keepFrom, at);
    this.at = kept;
    return 0;
  }
}

const EMPTY: Buffer = Buffer.alloc(0);
const SLAB_BYTES_MIN = 2048;
/** A little above the usual bound of queued output (256 KiB of DATA and the frames around it). */
const SLAB_BYTES_MAX = 320 * 1024;
/** A slab that served fewer takes was too small, one that served more was too large. */
const TAKES_FEW = 4;
const TAKES_MANY = 64;
/** Less room than this is not worth keeping a slab for. */
const SLAB_REST_BYTES_MIN = 512;
