import assert from "node:assert/strict";
import { test } from "node:test";
import { FRESH_BACKOFF, nextRestart } from "./restart-backoff.ts";

test("the first restart is at once, then 10 s doubling to 5 min", () => {
  let state = FRESH_BACKOFF;
  const waits: number[] = [];
  for (let i = 0; i < 8; i++) {
    const next = nextRestart(state, 100);
    waits.push(next.waitMs / 1000);
    state = next.state;
  }
  assert.deepEqual(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
});

test("ten minutes of running forget it all", () => {
  assert.deepEqual(nextRestart({ waitMs: 300_000 }, 600_000), { waitMs: 0, state: { waitMs: 10_000 } });
  assert.equal(nextRestart({ waitMs: 300_000 }, 599_999).waitMs, 300_000);
});
