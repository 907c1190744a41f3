/** Pieces up to here share blocks of memory. One that is kept keeps its block, so tiny ones share small blocks. */
const SHARED_BYTES_MAX = 8 * 1024;
const SHARED_BLOCK_BYTES = 64 * 1024;
const TINY_BYTES_MAX = 1024;
const TINY_BLOCK_BYTES = 16 * 1024;

/** Memory that pieces are cut from, one after the other. */
class Shared {
  readonly #blockBytes: number;
  #block: Uint8Array = new Uint8Array(0);
  #usedBytes = 0;

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
  }

  copyOf(bytes: Uint8Array): Uint8Array {
    if (bytes.length > this.#block.length - this.#usedBytes) {
      this.#block = Buffer.allocUnsafeSlow(this.#blockBytes);
      this.#usedBytes = 0;
    }
    const start = this.#usedBytes;
    this.#usedBytes += bytes.length;
    this.#block.set(bytes, start);
    return this.#block.subarray(start, this.#usedBytes);
  }
}

const shared = new Shared(SHARED_BLOCK_BYTES);
const tiny = new Shared(TINY_BLOCK_BYTES);

/**
 * A copy that is the caller's, of `bytes` or a part of them. Small ones that follow each other lie side by side in memory, so that they can be joined;
 * one that is kept keeps up to 64 KiB (`KeptBytes` bounds that).
 */
export function copyOf(all: Uint8Array, start = 0, stop = all.length): Uint8Array {
  // `slice` of a Buffer would be a view.
  const bytes = start === 0 && stop === all.length ? all : all.subarray(start, stop);
  if (bytes.length <= TINY_BYTES_MAX) return tiny.copyOf(bytes);
  if (bytes.length <= SHARED_BYTES_MAX) return shared.copyOf(bytes);
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}
