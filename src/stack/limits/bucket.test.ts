import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Bucket } from "./bucket.ts";
import { convert, isFull, rateOf, take, waitMs } from "./bucket.ts";

/** The textbook's: tokens are added as time goes by, in whole thousandths so that nothing is rounded. */
class NaiveBucket {
  #tokens: number;
  #atMs = 0;
  readonly #perMs: number;
  readonly #capacity: number;
  constructor(millisPerMs: number, burst: number) {
    this.#perMs = millisPerMs;
    this.#capacity = burst * 1_000;
    this.#tokens = this.#capacity;
  }
  take(nowMs: number): boolean {
    this.#tokens = Math.min(this.#capacity, this.#tokens + (nowMs - this.#atMs) * this.#perMs);
    this.#atMs = nowMs;
    if (this.#tokens < 1_000) return false;
    this.#tokens -= 1_000;
    return true;
  }
}

const steps = fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 300 });

test("admits the same requests as the textbook's token bucket", () => {
  const rates = fc.record({
    perSecond: fc.integer({ min: 1, max: 500 }),
    burst: fc.integer({ min: 1, max: 50 }),
  });
  fc.assert(
    fc.property(rates, steps, ({ perSecond, burst }, gapsMs) => {
      const rate = rateOf(perSecond, 1_000, burst);
      const bucket: Bucket = { earnedAtMs: 0 };
      const naive = new NaiveBucket(perSecond, burst);
      let nowMs = 0;
      for (const gapMs of gapsMs) {
        nowMs += gapMs;
        const fits = waitMs(bucket, rate, nowMs) === 0;
        assert.equal(fits, naive.take(nowMs), `at ${nowMs} ms`);
        if (fits) take(bucket, rate, nowMs);
      }
    }),
    { numRuns: 500 },
  );
});

test("who waits as long as told is admitted, and a moment earlier is not", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 10 }), (perSecond, burst) => {
      const rate = rateOf(perSecond, 1_000, burst);
      const bucket: Bucket = { earnedAtMs: 0 };
      for (let i = 0; i < burst; i++) take(bucket, rate, 0);
      const wait = waitMs(bucket, rate, 0);
      assert.ok(wait > 0);
      assert.ok(waitMs(bucket, rate, wait * 0.99) > 0);
      assert.equal(waitMs(bucket, rate, wait), 0);
    }),
  );
});

test("a new rate keeps what was taken: neither a full bucket nor a longer penalty than one burst", () => {
  const before = rateOf(10, 1_000, 10);
  const bucket: Bucket = { earnedAtMs: 0 };
  for (let i = 0; i < 10; i++) take(bucket, before, 0);
  const after = rateOf(100, 1_000, 20);
  convert(bucket, before, after, 0);
  let admitted = 0;
  while (waitMs(bucket, after, 0) === 0 && admitted < 100) {
    take(bucket, after, 0);
    admitted++;
  }
  assert.equal(admitted, 10);
  const smaller = rateOf(1, 1_000, 2);
  convert(bucket, after, smaller, 0);
  assert.equal(waitMs(bucket, smaller, 0), 1_000);
});

test("a rate of nothing admits nothing, and its bucket owes nothing", () => {
  const none = rateOf(0, 1_000, 5);
  const bucket: Bucket = { earnedAtMs: 0 };
  assert.equal(waitMs(bucket, none, 0), Infinity);
  take(bucket, none, 0);
  assert.ok(isFull(bucket, 0));
});
