/**
 * Text of `bytes[start, stop)`, one character per byte. For anything longer than a few bytes this is one native call;
 * cut parts out of the result with `slice` rather than calling again (a call costs ~100 ns, a slice ~20 ns).
 */
export function latin1(bytes: Uint8Array, start: number, stop: number): string {
  return latin1Slice.call(bytes, start, stop);
}

/**
 * Writes `text` at `bytes[at…]`, one byte per character, and returns how many were written. The low eight bits are
 * taken of characters above U+00FF: check with `isLatin1Field` and the like where that would matter.
 */
export function putLatin1(bytes: Uint8Array, text: string, at: number): number {
  return latin1Write.call(bytes, text, at, text.length);
}

/** The bytes of a latin1 text, in memory of their own (never a slice of a shared pool). */
export function latin1Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  putLatin1(bytes, text, 0);
  return bytes;
}

/**
 * Text as bytes for one write, cut from Node's shared pool: half the cost of memory of its own, which matters per message. For
 * bytes that are kept use `latin1Bytes`, or they hold the pool's block with them.
 */
export function latin1Message(text: string): Uint8Array {
  const bytes = Buffer.allocUnsafe(text.length);
  putLatin1(bytes, text, 0);
  return bytes;
}

/** Whether `a[aStart, aStart + size)` and `b[bStart, bStart + size)` are the same. Both must lie inside. */
export function sameBytes(
  a: Uint8Array,
  aStart: number,
  b: Uint8Array,
  bStart: number,
  size: number,
): boolean {
  // A native call costs ~80 ns whatever the size, the loop ~1 ns a byte.
  if (size > 80) return compare.call(a, b, bStart, bStart + size, aStart, aStart + size) === 0;
  for (let i = 0; i < size; i++) if (a[aStart + i] !== b[bStart + i]) return false;
  return true;
}

/** Copies `from[start, stop)` to `to[at…]`, without making views. */
export function copyBytes(from: Uint8Array, start: number, stop: number, to: Uint8Array, at: number): void {
  copy.call(from, to, at, start, stop);
}

// Native methods that @types/node does not declare so. They accept any Uint8Array as `this`.
type Slice = (this: Uint8Array, start: number, stop: number) => string;
type Write = (this: Uint8Array, text: string, at: number, length: number) => number;
type Compare = (
  this: Uint8Array,
  b: Uint8Array,
  bStart: number,
  bStop: number,
  aStart: number,
  aStop: number,
) => number;
type Copy = (this: Uint8Array, to: Uint8Array, at: number, start: number, stop: number) => number;
const { latin1Slice, latin1Write, compare, copy } = Buffer.prototype as unknown as {
  latin1Slice: Slice;
  latin1Write: Write;
  compare: Compare;
  copy: Copy;
};
