import { strict as assert } from "node:assert";
import { test } from "node:test";
import { SystemClock } from "./clock.ts";
import { SOON_ROUNDS_MAX } from "./turn.ts";

test("what a task puts off is done in the same turn of the event loop, so often and no more", async () => {
  const clock = new SystemClock();
  let turns = 0;
  const countTurns = (): void => {
    turns++;
    if (turns < 4) setImmediate(countTurns);
  };
  const ranIn: number[] = [];
  const again = (): void => {
    ranIn.push(turns);
    if (ranIn.length < SOON_ROUNDS_MAX + 2) clock.soon(again);
  };
  // Before and behind it in the turn's list, so that a turn is counted before each run.
  setImmediate(countTurns);
  clock.soon(again);
  while (turns < 4) await new Promise((resolve) => setImmediate(resolve));
  const [first = -1] = ranIn;
  assert.deepEqual(ranIn, [...Array<number>(SOON_ROUNDS_MAX).fill(first), first + 1, first + 1]);
});

test("tasks run once each, in their order, and those of another turn are none of theirs", async () => {
  const clock = new SystemClock();
  const ran: string[] = [];
  clock.soon(() => {
    ran.push("a");
    clock.soon(() => ran.push("c"));
  });
  clock.soon(() => ran.push("b"));
  assert.equal(ran.length, 0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(ran, ["a", "b", "c"]);
  clock.soon(() => ran.push("d"));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(ran, ["a", "b", "c", "d"]);
});
