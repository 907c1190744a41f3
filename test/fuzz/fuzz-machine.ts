/** One protocol machine, as the fuzzer drives it. */
export interface FuzzMachine {
  readonly name: string;
  /** Inputs that mean something; others are bred from them. */
  seeds(): Uint8Array[];
  /** Places in `bytes` where its parts begin: lines, frames. Mutation moves whole parts, too. */
  parts(bytes: Uint8Array): number[];
  /**
   * Feeds the pieces in order and says what the machine made of them, without trace of where they were cut. Throws when
   * the machine throws, or holds more than its bound.
   */
  run(pieces: readonly Uint8Array[]): string[];
  /** More than one machine, on a clock: what it says may depend on what came in one turn. It is not compared. */
  readonly hasTurns?: boolean;
}

/** Where lines begin. */
export function lines(bytes: Uint8Array): number[] {
  const starts: number[] = [];
  for (let at = 0; at < bytes.length; at++) if (bytes[at] === 0x0a) starts.push(at + 1);
  return starts;
}

/** Where the parts begin of which each has its length in its head: `headBytes` long, the length of `lengthBytes` at `at`. */
export function framesOf(
  bytes: Uint8Array,
  start: number,
  headBytes: number,
  at: number,
  lengthBytes: number,
): number[] {
  const starts: number[] = [];
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let next = start; next + headBytes <= bytes.length && starts.length < 1000;) {
    starts.push(next);
    next += headBytes + view.readUIntBE(next + at, lengthBytes);
  }
  return starts;
}
