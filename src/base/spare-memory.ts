import { assert } from "./assert.ts";

/** What one read of a socket brings at most. */
export const SPARE_BYTES: number = 128 * 1024;
/** So many pieces wait to be used again; more are left to the garbage collector. */
const FREE_MAX = 4;
const free: Buffer[] = [];

/**
 * Memory of `SPARE_BYTES` with anything in it, the caller's until it is given back, if ever. For what is held for a moment again and again:
 * made anew it would cost its pages, and, every 10 MB, a collection of the whole heap.
 */
export function takeSpare(): Buffer {
  return free.pop() ?? Buffer.allocUnsafeSlow(SPARE_BYTES);
}

/** The caller keeps no view of it, and gives it back once: twice, and two would write to it, each the other's bytes. */
export function giveSpare(memory: Buffer): void {
  assert(!free.includes(memory), "memory was given back that was free already");
  if (free.length < FREE_MAX) free.push(memory);
}
