import assert from "node:assert/strict";
import ffi from "node:ffi";
import { test } from "node:test";
import { boundFreeMemory } from "./libc.ts";

const MIB = 1 << 20;
const PIECES = 64;

test("what is freed between pieces that live goes back to the kernel, whatever was freed before", () => {
  const { malloc, free, memset } = ffi.dlopen(null, {
    malloc: { arguments: ["uint64"], return: "pointer" },
    free: { arguments: ["pointer"], return: "void" },
    memset: { arguments: ["pointer", "int32", "uint64"], return: "pointer" },
  }).functions;
  boundFreeMemory({ mmapFromBytes: 131_072, trimAboveBytes: 524_288 });
  // From here on glibc would keep pieces of up to 4 MiB in its heap, if its bound were still its own to move.
  free(malloc(BigInt(4 * MIB)));

  const beforeBytes = process.memoryUsage.rss();
  const pieces = Array.from({ length: PIECES }, () => {
    const large = malloc(BigInt(MIB));
    memset(large, 1, BigInt(MIB));
    return { large, small: malloc(100_000n) };
  });
  const grownBytes = process.memoryUsage.rss() - beforeBytes;
  assert.ok(grownBytes > 0.9 * PIECES * MIB, `${grownBytes} bytes more while ${PIECES} MiB are in use`);
  for (const { large } of pieces) free(large);
  const leftBytes = process.memoryUsage.rss() - beforeBytes;
  for (const { small } of pieces) free(small);
  assert.ok(leftBytes < (PIECES * MIB) / 4, `${leftBytes} bytes are left of ${PIECES} MiB`);
});
