import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

const FILLED_BYTES = 64 << 20;

/** Prints how much more is used after filling a buffer. */
const PROGRAM = `
import { processMemory } from ${JSON.stringify(import.meta.resolve("./process-memory.ts"))};
const memory = processMemory(2 ** 30);
const beforeBytes = memory.usedBytes();
const filled = Buffer.alloc(${FILLED_BYTES}, 1);
console.log(memory.usedBytes() - beforeBytes, filled.length);
`;

test("counts the bytes that are filled, whatever a page of this machine is", () => {
  // In a process of its own: memory that other tests filled goes back to the kernel whenever V8 or the C library please.
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ["--no-warnings", "--input-type=module", "--eval", PROGRAM],
    { encoding: "utf8" },
  );
  const grownBytes = Number(stdout.split(" ")[0]);
  assert.ok(
    grownBytes > 0.9 * FILLED_BYTES && grownBytes < 1.5 * FILLED_BYTES,
    `${grownBytes} bytes more after ${FILLED_BYTES}\n${stderr}`,
  );
});
