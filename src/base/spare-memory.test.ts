import assert from "node:assert/strict";
import { test } from "node:test";
import { giveSpare, SPARE_BYTES, takeSpare } from "./spare-memory.ts";

test("what was given back is used again, few pieces wait for it, and no piece is two callers'", () => {
  const taken = Array.from({ length: 10 }, takeSpare);
  assert.equal(new Set(taken).size, 10);
  for (const memory of taken) {
    assert.equal(memory.length, SPARE_BYTES);
    giveSpare(memory);
  }
  const again = Array.from({ length: 10 }, takeSpare);
  assert.equal(new Set(again).size, 10);
  assert.equal(again.filter((memory) => taken.includes(memory)).length, 4);
  giveSpare(again[0]!);
  assert.throws(() => giveSpare(again[0]!), /free already/);
  assert.equal(takeSpare(), again[0]);
});
