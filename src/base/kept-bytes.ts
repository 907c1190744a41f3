/** Chunks below this are copied together once several wait: a view costs more than its bytes, and keeps what it views alive. */
const SMALL_BYTES = 1_024;
const BLOCK_BYTES_FIRST = 256;
const BLOCK_BYTES = 8_192;
/** So few may wait as they are: the everyday case costs no copy. */
const VIEWS_MAX = 4;
/** A view of memory that many share keeps all of it: at most so many times what it shows. */
const KEPT_SHARE_MAX = 4;

/**
 * Chunks that wait to be passed on, in order. Memory stays near the sum of their bytes even when a remote side sends one
 * byte at a time, or its pieces lie in memory that others share; the sum is bounded by whoever fills it.
 */
export class KeptBytes {
  /** To be read, and shortened from the front, by the owner. */
  chunks: Uint8Array[] = [];
  /** Memory of our own that the last chunk ends in. */
  #block: Uint8Array = EMPTY;
  #usedBytes = 0;
  readonly #viewsMax: number;

  /** `viewsMax`: so many chunks may keep all the memory that they came in. 0 for what is kept for long. */
  constructor(viewsMax: number = VIEWS_MAX) {
    this.#viewsMax = viewsMax;
  }

  get isEmpty(): boolean {
    return this.chunks.length === 0;
  }

  push(bytes: Uint8Array, start: number, stop: number): void {
    const { chunks } = this;
    const size = stop - start;
    const view = start === 0 && stop === bytes.length ? bytes : bytes.subarray(start, stop);
    // What was read in several pieces lies in one, as a rule: one view of it costs its taker less.
    const before = chunks.length === 0 ? undefined : chunks[chunks.length - 1];
    if (
      before !== undefined &&
      before.byteOffset + before.length === view.byteOffset &&
      before.buffer === view.buffer
    ) {
      chunks[chunks.length - 1] = new Uint8Array(before.buffer, before.byteOffset, before.length + size);
      return;
    }
    if (chunks.length < this.#viewsMax || isWorthItsMemory(view)) {
      // The next small chunk must not be joined to one before this.
      this.#block = EMPTY;
      chunks.push(view);
      return;
    }
    const block = this.#block;
    const usedBytes = this.#usedBytes;
    if (usedBytes + size <= block.length) {
      // The owner may have taken a part of the last chunk already.
      const last = chunks[chunks.length - 1] as Uint8Array;
      block.set(view, usedBytes);
      this.#usedBytes = usedBytes + size;
      chunks[chunks.length - 1] = block.subarray(usedBytes - last.length, this.#usedBytes);
      return;
    }
    // A small chunk between large ones must not cost a whole block.
    this.#block = new Uint8Array(block.length === 0 ? Math.max(size, BLOCK_BYTES_FIRST) : BLOCK_BYTES);
    this.#block.set(view);
    this.#usedBytes = size;
    chunks.push(this.#block.subarray(0, size));
  }

  /** Everything kept, which is the taker's from here on. */
  take(): Uint8Array[] {
    const { chunks } = this;
    this.chunks = [];
    this.#block = EMPTY;
    return chunks;
  }
}

/** Whether a view of it, instead of a copy, keeps no more memory than a bound on bytes may stand for. */
function isWorthItsMemory(view: Uint8Array): boolean {
  const size = view.length;
  return size >= SMALL_BYTES && (size > BLOCK_BYTES || size * KEPT_SHARE_MAX >= view.buffer.byteLength);
}

const EMPTY = new Uint8Array(0);
