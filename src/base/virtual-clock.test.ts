import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "./random.ts";
import { VirtualClock } from "./virtual-clock.ts";

test("timers fire in the order of their times, equal ones in the order they were set, cancelled ones never", () => {
  const clock = new VirtualClock();
  const random = new SeededRandom(4);
  const fired: { atMs: number; order: number }[] = [];
  let cancelled = 0;
  for (let order = 0; order < 5_000; order++) {
    const atMs = Math.floor(random.next() * 100);
    const timer = clock.after(atMs, () => fired.push({ atMs: clock.nowMs(), order }));
    // Enough of them that the sweep has to happen, and twice, which counts once.
    if (order % 4 === 0) continue;
    timer.cancel();
    timer.cancel();
    cancelled++;
  }
  assert.equal(clock.timers, 5_000 - cancelled);
  clock.run(100);
  assert.equal(clock.timers, 0);
  assert.equal(fired.length, 1_250);
  for (let i = 1; i < fired.length; i++) {
    const [a, b] = [fired[i - 1]!, fired[i]!];
    assert.ok(a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order), `${i}`);
  }
});

test("a timer that fired cannot be cancelled any more, and is not counted twice", () => {
  const clock = new VirtualClock();
  const timer = clock.after(1, () => timer.cancel());
  clock.after(5, () => undefined);
  clock.run(2);
  timer.cancel();
  assert.equal(clock.timers, 1);
  assert.equal(clock.nowMs(), 2);
});
