import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

const FILLED_BYTES = 64 << 20;

/** Prints how much more is used once a buffer is filled, which is used after. */
const PROGRAM = `
import { processMemory } from ${JSON.stringify(import.meta.resolve("./process-memory.ts"))};
const memory = processMemory(2 ** 30);
const beforeBytes = memory.usedBytes();
const filled = Buffer.alloc(${FILLED_BYTES}, 1);
const grownBytes = memory.usedBytes() - beforeBytes;
console.log(filled[0] * grownBytes);
`;

test("counts the bytes that are filled, whatever a page of this machine is", () => {
  // In a process of its own: that of all unit tests gives memory back from other threads, whenever it pleases.
  const said = execFileSync(process.execPath, ["--no-warnings", "--input-type=module", "--eval", PROGRAM]);
  const grownBytes = Number(said);
  assert.ok(
    grownBytes > 0.9 * FILLED_BYTES && grownBytes < 1.5 * FILLED_BYTES,
    `${grownBytes} bytes more after ${FILLED_BYTES}`,
  );
});
