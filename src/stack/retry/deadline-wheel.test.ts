import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Timer } from "#/base/clock.ts";
import { ManualClock } from "../http/testing.ts";
import { Deadline, DeadlineWheel } from "./deadline-wheel.ts";

const TICK_MS = 10;

class Noted extends Deadline {
  readonly #act: (nowMs: number) => void;
  constructor(act: (nowMs: number) => void) {
    super();
    this.#act = act;
  }
  expire(nowMs: number): void {
    this.#act(nowMs);
  }
}

class CountingClock extends ManualClock {
  timers = 0;
  override after(afterMs: number, fire: () => void): Timer {
    this.timers++;
    return super.after(afterMs, fire);
  }
}

test("each deadline comes once, never early and at most a tick late, however they are set, moved and cleared", () => {
  const moment = fc.oneof(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: 30_000 }));
  const step = fc.record({
    afterMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 12_000 })),
    which: fc.nat(7),
    /** Null clears it. */
    inMs: fc.option(moment, { freq: 5 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (script) => {
      const clock = new ManualClock();
      const wheel = new DeadlineWheel(clock);
      const dueAtMs: (number | null)[] = Array.from({ length: 8 }, () => null);
      const deadlines = dueAtMs.map(
        (_, which) =>
          new Noted((nowMs) => {
            const dueMs = dueAtMs[which]!;
            assert.notEqual(dueMs, null, "not set");
            assert.ok(nowMs >= dueMs && nowMs <= dueMs + TICK_MS, `${nowMs} for ${dueMs}`);
            dueAtMs[which] = null;
          }),
      );
      for (const { afterMs, which, inMs } of script) {
        clock.advance(afterMs);
        const deadline = deadlines[which]!;
        if (inMs === null) wheel.clear(deadline);
        else wheel.set(deadline, clock.nowMs() + inMs);
        dueAtMs[which] = inMs === null ? null : clock.nowMs() + inMs;
        assert.equal(wheel.size, dueAtMs.filter((each) => each !== null).length);
      }
      clock.advance(40_000);
      assert.equal(wheel.size, 0);
      assert.deepEqual(
        dueAtMs.filter((each) => each !== null),
        [],
      );
    }),
    { numRuns: 300 },
  );
});

test("what a deadline does when it comes may set and clear others that are due with it", () => {
  const clock = new ManualClock();
  const wheel = new DeadlineWheel(clock);
  const came: string[] = [];
  const moved = new Noted(() => came.push(`moved ${clock.nowMs()}`));
  const cleared = new Noted(() => came.push("cleared"));
  const actor: Noted = new Noted((nowMs) => {
    came.push(`actor ${nowMs}`);
    wheel.clear(cleared);
    wheel.set(moved, nowMs + 100);
    if (came.length === 1) wheel.set(actor, nowMs);
  });
  wheel.set(cleared, 1_050);
  wheel.set(moved, 1_050);
  wheel.set(actor, 1_050);
  clock.advance(1_000);
  assert.deepEqual(came, ["actor 1050", "actor 1060", "moved 1160"]);
  assert.equal(wheel.size, 0);
});

test("a thousand requests that end in time need hardly a timer", () => {
  const clock = new CountingClock();
  const wheel = new DeadlineWheel(clock);
  for (let i = 0; i < 1_000; i++) {
    const deadline = new Noted(() => assert.fail("came"));
    wheel.set(deadline, clock.nowMs() + 5_000);
    clock.advance(5);
    wheel.clear(deadline);
  }
  assert.ok(clock.timers <= 3, `${clock.timers} timers`);
});

test("a clock that stood still does not lose a deadline, however long", () => {
  const clock = new ManualClock();
  const wheel = new DeadlineWheel(clock);
  const came: number[] = [];
  for (let i = 1; i <= 20; i++) wheel.set(new Noted(() => came.push(i)), clock.nowMs() + i * 700);
  clock.stall(60_000);
  clock.advance(1_000);
  assert.deepEqual(
    came.toSorted((a, b) => a - b),
    Array.from({ length: 20 }, (_, i) => i + 1),
  );
  assert.equal(wheel.size, 0);
});
