import assert from "node:assert/strict";
import { test } from "node:test";
import type { BalancingAlgorithm } from "#/model/traffic.ts";
import { balancerOf, balancing, counts, endpoints } from "./testing.ts";

const SLOW_START_MS = 10_000;
const ALGORITHMS: readonly BalancingAlgorithm[] = ["p2c-ewma", "round-robin", "random", "least-request"];

for (const algorithm of ALGORITHMS) {
  test(`${algorithm}: a new endpoint's share grows to the full one, and that of the first set is full at once`, () => {
    const over = balancerOf(endpoints(4), { ...balancing(algorithm), slowStartMs: SLOW_START_MS });
    assert.ok(Math.abs(counts(over, 4_000).get("10.1.0.0")! - 1_000) < 150);
    const joinedMs = 100_000;
    // As quick as the new one is taken to be.
    for (const member of over.members) over.observe(member, 30, false, joinedMs);
    over.update(endpoints(5), joinedMs);
    const shareAfter = (ms: number): number =>
      (counts(over, 20_000, joinedMs + ms).get("10.1.0.4") ?? 0) / 20_000;
    for (const [afterMs, warmth] of [
      [0, 0.1],
      [5_000, 0.5],
      [10_000, 1],
    ] as const) {
      const share = shareAfter(afterMs);
      assert.ok(Math.abs(share - warmth / (4 + warmth)) < 0.015, `${share} after ${afterMs}`);
    }
  });
}

test("a new endpoint that looks quickest gets no more for it while it is new", () => {
  const over = balancerOf(endpoints(10), { slowStartMs: SLOW_START_MS });
  for (const member of over.members) over.observe(member, 500, false, 0);
  over.update(endpoints(11), 1);
  const got = counts(over, 20_000, 1).get("10.1.0.10")!;
  assert.ok(got < (20_000 * 2 * 0.1) / 10 + 100, String(got));
});

test("endpoints that all are new share the load at once", () => {
  const over = balancerOf(endpoints(3), { slowStartMs: SLOW_START_MS });
  over.update(endpoints(6).slice(3), 1);
  assert.deepEqual(
    over.members.map((member) => member.pool?.warmth(member, 2)),
    [1, 1, 1],
  );
});
