import assert from "node:assert/strict";
import { test } from "node:test";
import { processMemory } from "./process-memory.ts";

const FILLED_BYTES = 64 << 20;

test("counts the bytes that are filled, whatever a page of this machine is", () => {
  const memory = processMemory(1 << 30);
  // What other tests of this process have left must not go just while this one looks.
  memory.giveBack();
  const beforeBytes = memory.usedBytes();
  const filled = Buffer.alloc(FILLED_BYTES, 1);
  const grownBytes = memory.usedBytes() - beforeBytes;
  assert.ok(
    grownBytes > 0.9 * FILLED_BYTES && grownBytes < 1.5 * FILLED_BYTES,
    `${grownBytes} bytes more after ${filled.length}`,
  );
});
