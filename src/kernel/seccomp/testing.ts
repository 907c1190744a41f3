import assert from "node:assert/strict";

/** Runs a filter as the kernel would: struct seccomp_data in, verdict out. */
export function verdict(
  program: Uint8Array,
  audit: number,
  number: number,
  ...args: readonly number[]
): string {
  const view = new DataView(program.buffer, program.byteOffset, program.length);
  const data: Record<number, number> = { 0: number, 4: audit, 16: 0, 24: 0, 32: 0 };
  for (const [index, arg] of args.entries()) data[16 + 8 * index] = arg;
  let accumulator = 0;
  for (let at = 0; at < program.length / 8; at++) {
    const [code, yes, no, value] = [
      view.getUint16(at * 8, true),
      view.getUint8(at * 8 + 2),
      view.getUint8(at * 8 + 3),
      view.getUint32(at * 8 + 4, true),
    ];
    if (code === 0x20) accumulator = data[value] ?? assert.fail("a load from elsewhere");
    else if (code === 0x54) accumulator = (accumulator & value) >>> 0;
    else if (code === 0x15) at += accumulator === value ? yes : no;
    else if (code === 0x35) at += accumulator >= value ? yes : no;
    else if (code === 0x45) at += (accumulator & value) !== 0 ? yes : no;
    else if (code === 0x06) return said(value);
    else assert.fail(`unknown code ${code}`);
  }
  return assert.fail("ran off the end");
}

function said(value: number): string {
  if (value === 0x7fff_0000) return "allow";
  return value === 0x8000_0000 ? "kill" : `errno ${value & 0xffff}`;
}
