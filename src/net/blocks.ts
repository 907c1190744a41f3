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
