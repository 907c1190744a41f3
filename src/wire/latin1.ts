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

// Native methods that @types/node does not declare. They accept any Uint8Array as `this`.
type Slice = (this: Uint8Array, start: number, stop: number) => string;
type Write = (this: Uint8Array, text: string, at: number, length: number) => number;
const { latin1Slice, latin1Write } = Buffer.prototype as unknown as {
  latin1Slice: Slice;
  latin1Write: Write;
};
