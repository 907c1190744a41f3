import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

const MIB = 1 << 20;
const PIECES = 64;

/** Prints how much more is resident while large pieces are in use, and once they are freed between small ones that live. */
const PROGRAM = `
import ffi from "node:ffi";
import { boundFreeMemory } from ${JSON.stringify(import.meta.resolve("./libc.ts"))};
const { malloc, free, memset } = ffi.dlopen(null, {
  malloc: { arguments: ["uint64"], return: "pointer" },
  free: { arguments: ["pointer"], return: "void" },
  memset: { arguments: ["pointer", "int32", "uint64"], return: "pointer" },
}).functions;
boundFreeMemory({ mmapFromBytes: 131_072, trimAboveBytes: 524_288 });
// From here on glibc would keep pieces of up to 4 MiB in its heap, if its bound were still its own to move.
free(malloc(${4 * MIB}n));
const beforeBytes = process.memoryUsage.rss();
const pieces = Array.from({ length: ${PIECES} }, () => {
  const large = malloc(${MIB}n);
  memset(large, 1, ${MIB}n);
  malloc(100_000n);
  return large;
});
const grownBytes = process.memoryUsage.rss() - beforeBytes;
for (const large of pieces) free(large);
const leftBytes = process.memoryUsage.rss() - beforeBytes;
console.log(JSON.stringify({ grownBytes, leftBytes }));
`;

test("what is freed between pieces that live goes back to the kernel, whatever was freed before", () => {
  // In a process of its own: that of all unit tests gives memory back from other threads, whenever it pleases.
  const said = execFileSync(process.execPath, ["--no-warnings", "--input-type=module", "--eval", PROGRAM]);
  const { grownBytes, leftBytes } = JSON.parse(said.toString()) as { grownBytes: number; leftBytes: number };
  assert.ok(grownBytes > 0.9 * PIECES * MIB, `${grownBytes} bytes more while ${PIECES} MiB are in use`);
  assert.ok(leftBytes < (PIECES * MIB) / 4, `${leftBytes} bytes are left of ${PIECES} MiB`);
});
