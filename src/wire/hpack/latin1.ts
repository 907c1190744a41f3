/** Node's direct calls, which the type declarations leave out; `toString("latin1", …)` ends up here after a detour. */
interface Latin1Buffer {
  latin1Slice(start: number, stop: number): string;
  latin1Write(text: string, at: number, length: number): number;
}

/** `bytes[start, stop)` as text, one character a byte. */
export function latin1Text(bytes: Buffer, start: number, stop: number): string {
  return (bytes as unknown as Latin1Buffer).latin1Slice(start, stop);
}

/** Writes `text`, one byte a character, at `at`, where there is room; gives the end. */
export function writeLatin1(text: string, bytes: Buffer, at: number): number {
  const length = text.length;
  // Below this a loop beats the call into native code.
  if (length >= 24) return at + (bytes as unknown as Latin1Buffer).latin1Write(text, at, length);
  for (let i = 0; i < length; i++) bytes[at + i] = text.charCodeAt(i);
  return at + length;
}
