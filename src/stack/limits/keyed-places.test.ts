import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Bucket } from "./bucket.ts";
import { isFull, rateOf, take, waitMs } from "./bucket.ts";
import { KeyedPlaces } from "./keyed-places.ts";

const RATE = rateOf(1, 1_000, 2);

class KeyedBuckets extends KeyedPlaces<Bucket> {
  constructor(keysMax = 1_000) {
    super({ keysMax, make: () => ({ earnedAtMs: 0 }), isFresh: isFull });
  }
}

function admits(buckets: KeyedBuckets, key: string, client: string | null, nowMs: number): boolean {
  const bucket = buckets.find(key, client, nowMs);
  if (waitMs(bucket, RATE, nowMs) > 0) return false;
  take(bucket, RATE, nowMs);
  return true;
}

test("counts each key apart", () => {
  const buckets = new KeyedBuckets();
  for (const key of ["a", "b"]) {
    assert.ok(admits(buckets, key, null, 0));
    assert.ok(admits(buckets, key, null, 0));
    assert.ok(!admits(buckets, key, null, 0));
  }
});

test("whatever keys are invented meanwhile, no key is admitted more than its limit, and the places keep their bound", () => {
  const keys = fc.array(
    fc.record({
      key: fc.integer({ min: 0, max: 60 }).map(String),
      client: fc.constantFrom("x", "y", "z", null),
      gapMs: fc.integer({ min: 0, max: 900 }),
    }),
    { maxLength: 400 },
  );
  fc.assert(
    fc.property(keys, (requests) => {
      const buckets = new KeyedBuckets(8);
      const admitted = new Map<string, number[]>();
      let nowMs = 0;
      for (const { key, client, gapMs } of requests) {
        nowMs += gapMs;
        if (!admits(buckets, key, client, nowMs)) continue;
        const times = admitted.get(key) ?? [];
        times.push(nowMs);
        admitted.set(key, times);
        assert.ok(buckets.size <= 8);
      }
      // A key may have its own bucket and, while it has no place, a part of a shared one.
      for (const times of admitted.values())
        for (let i = 0; i < times.length; i++)
          for (let j = i; j < times.length; j++) {
            const bound = 3 * (2 + (times[j]! - times[i]!) / 1_000);
            assert.ok(j - i + 1 <= bound, `${j - i + 1} within ${times[j]! - times[i]!} ms`);
          }
    }),
    { numRuns: 300 },
  );
});

test("a key that has reached its limit is not forgotten for others that are invented", () => {
  const buckets = new KeyedBuckets(100);
  while (admits(buckets, "busy", "attacker", 0));
  for (let i = 0; i < 10_000; i++) {
    admits(buckets, `invented ${i}`, `client ${i % 7}`, i * 0.01);
    assert.ok(!admits(buckets, "busy", "attacker", i * 0.01));
  }
  assert.ok(buckets.size <= 100);
});

test("beyond its share of places a client's inventions share one bucket, and others still find places", () => {
  const buckets = new KeyedBuckets(100);
  let admitted = 0;
  for (let i = 0; i < 1_000; i++) if (admits(buckets, `invented ${i}`, "attacker", 0)) admitted++;
  assert.equal(admitted, 25 + 2);
  for (let i = 0; i < 20; i++) assert.ok(admits(buckets, `honest ${i}`, "honest", 0));
});

test("when every place is owed to, new keys share one bucket; when they are paid for, new keys find places", () => {
  const buckets = new KeyedBuckets(10);
  for (let i = 0; i < 10; i++) admits(buckets, `old ${i}`, null, 0);
  assert.ok(admits(buckets, "new", null, 0));
  assert.ok(admits(buckets, "newer", null, 0));
  assert.ok(!admits(buckets, "newest", null, 0));
  assert.ok(admits(buckets, "newest", null, 1_500));
  assert.ok(admits(buckets, "newest", null, 1_500));
  assert.equal(buckets.size <= 10, true);
});

test("a key of any length is kept as its first characters", () => {
  const buckets = new KeyedBuckets();
  const long = "k".repeat(100_000);
  assert.equal(buckets.find(long, null, 0), buckets.find(`${long}x`, null, 0));
});
