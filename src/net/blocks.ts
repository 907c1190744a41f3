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

/** A copy that is the caller's. Small ones that follow each other lie side by side in memory, so that they can be joined. */
export function copyOf(bytes: Uint8Array): Uint8Array {
  if (bytes.length <= TINY_BYTES_MAX) return tiny.copyOf(bytes);
  if (bytes.length <= SHARED_BYTES_MAX) return shared.copyOf(bytes);
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Copies pieces that follow each other into memory that takes them all. */
export function join(pieces: readonly Uint8Array[], into: Uint8Array): void {
  let at = 0;
  for (let i = 0; i < pieces.length; i++) {
    const piece = pieces[i] as Uint8Array;
    into.set(piece, at);
    at += piece.length;
  }
}

/** What a `Block` holds; about what the kernel takes at once. */
export const BLOCK_BYTES = 64 * 1024;
/** So many wait to be used again; more are left to the garbage collector. */
const FREE_BLOCKS_MAX = 16;
const free: Buffer[] = [];

/** Memory of `BLOCK_BYTES` with anything in it, the caller's until it is given back, if ever. */
export function takeBlock(): Buffer {
  return free.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
}

/** The caller keeps no view of it, and gives it back once. */
export function giveBlock(block: Buffer): void {
  if (free.length < FREE_BLOCKS_MAX) free.push(block);
}

/**
 * Where pieces are joined for whoever has read them before anything else runs: large enough for what a connection takes until it asks to
 * wait, and the heads of its frames.
 */
export const joinBuffer: Buffer = Buffer.allocUnsafeSlow(272 * 1024);
