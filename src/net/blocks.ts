/** Pieces below this share blocks: a piece that is kept keeps its block. */
const SHARED_BYTES_MAX = 2 * 1024;
const SHARED_BLOCK_BYTES = 16 * 1024;

let shared = new Uint8Array(0);
let usedBytes = 0;

/** A copy that is the caller's. Small ones that follow each other lie side by side in memory, so that they can be joined. */
export function copyOf(bytes: Uint8Array): Uint8Array {
  const size = bytes.length;
  if (size > SHARED_BYTES_MAX) {
    const copy = Buffer.allocUnsafeSlow(size);
    copy.set(bytes);
    return copy;
  }
  if (size > shared.length - usedBytes) {
    shared = Buffer.allocUnsafeSlow(SHARED_BLOCK_BYTES);
    usedBytes = 0;
  }
  const start = usedBytes;
  usedBytes += size;
  shared.set(bytes, start);
  return shared.subarray(start, usedBytes);
}

/** What a `Block` holds; about what the kernel takes at once. */
export const BLOCK_BYTES = 64 * 1024;
/** So many wait to be used again; more are left to the garbage collector. */
const FREE_BLOCKS_MAX = 8;
const free: Buffer[] = [];

/** Memory of `BLOCK_BYTES` with anything in it, the caller's until it is given back, if ever. */
export function takeBlock(): Buffer {
  return free.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
}

/** The caller keeps no view of it, and gives it back once. */
export function giveBlock(block: Buffer): void {
  if (free.length < FREE_BLOCKS_MAX) free.push(block);
}
