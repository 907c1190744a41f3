import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { RetryBudget } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { RetryBudgetWindow } from "./retry-budget.ts";

const DEFAULT = BACKEND_TRAFFIC_DEFAULTS.retryBudget;
const NO_FLOOR: RetryBudget = { ...DEFAULT, floorCount: 0 };

/** Keeps every moment, and counts. */
class NaiveBudget {
  readonly #settings: RetryBudget;
  readonly #requests: number[] = [];
  readonly #retries: number[] = [];
  constructor(settings: RetryBudget) {
    this.#settings = settings;
  }
  request(nowMs: number): void {
    this.#requests.push(nowMs);
  }
  retried(nowMs: number): void {
    this.#retries.push(nowMs);
  }
  /** Requests count that are younger than `requestsFromMs` and older than `requestsToMs`, and retries younger than `retriesFromMs`. */
  allows(nowMs: number, requestsFromMs?: number, requestsToMs = -1, retriesFromMs?: number): boolean {
    const { percent, intervalMs, floorCount, floorIntervalMs } = this.#settings;
    const since = (times: number[], fromMs: number): number[] =>
      times.filter((atMs) => atMs > nowMs - fromMs);
    if (since(this.#retries, floorIntervalMs).length < floorCount) return true;
    const requests = since(this.#requests, requestsFromMs ?? intervalMs).filter(
      (atMs) => atMs < nowMs - requestsToMs,
    );
    const retries = since(this.#retries, retriesFromMs ?? intervalMs);
    return (retries.length + 1) * 100 <= percent * requests.length;
  }
}

const settings = fc.record({
  percent: fc.integer({ min: 0, max: 60 }),
  intervalMs: fc.constantFrom(1_000, 10_000, 3_600_000),
  floorCount: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 12 })),
  floorIntervalMs: fc.constantFrom(100, 1_000, 10_000),
});
/** Pauses as parts of an interval: bursts, steady load, and gaps longer than the interval. */
const pause = fc.oneof(
  { weight: 6, arbitrary: fc.constant(0) },
  { weight: 6, arbitrary: fc.double({ min: 0, max: 0.02, noNaN: true }) },
  { weight: 1, arbitrary: fc.double({ min: 0, max: 1.5, noNaN: true }) },
);
const steps = fc.array(fc.record({ pause, isRetry: fc.boolean() }), { minLength: 100, maxLength: 300 });

test("no retry is allowed that one who remembers every request would not allow (GEP-3388)", () => {
  fc.assert(
    fc.property(settings, steps, (budget, script) => {
      const window = new RetryBudgetWindow(budget);
      const naive = new NaiveBudget(budget);
      let nowMs = 1_000;
      for (const step of script) {
        nowMs += step.pause * budget.intervalMs;
        if (!step.isRetry) {
          window.request(nowMs);
          naive.request(nowMs);
          continue;
        }
        const wouldAllow = naive.allows(nowMs);
        if (!window.tryRetry(nowMs)) continue;
        assert.ok(wouldAllow, `allowed at ${nowMs}`);
        naive.retried(nowMs);
      }
    }),
    { numRuns: 1_000 },
  );
});

test("… and all are that he would allow who counts two twentieths of the interval against them", () => {
  fc.assert(
    fc.property(settings, steps, (budget, script) => {
      const window = new RetryBudgetWindow(budget);
      const strict = new NaiveBudget(budget);
      const partMs = budget.intervalMs / 20;
      let nowMs = 1_000;
      for (const step of script) {
        nowMs += step.pause * budget.intervalMs;
        if (!step.isRetry) {
          window.request(nowMs);
          strict.request(nowMs);
          continue;
        }
        // A microsecond for the roundings of time.
        const mustAllow = strict.allows(
          nowMs,
          budget.intervalMs - partMs - 1e-3,
          partMs + 1e-3,
          budget.intervalMs + partMs + 1e-3,
        );
        const isAllowed = window.tryRetry(nowMs);
        if (mustAllow) assert.ok(isAllowed, `withheld at ${nowMs}`);
        if (isAllowed) strict.retried(nowMs);
      }
    }),
    { numRuns: 1_000 },
  );
});

test("under steady load with everything failing, retries come to nearly the whole share and never more", () => {
  const window = new RetryBudgetWindow(NO_FLOOR);
  let retries = 0;
  for (let at = 0; at < 60_000; at++) {
    window.request(at);
    if (window.tryRetry(at)) retries++;
  }
  assert.ok(retries <= 12_000, `${retries} of 60,000`);
  assert.ok(retries >= 10_800, `${retries} of 60,000`);
});

test("the floor holds where there is no load, and not more than it", () => {
  const window = new RetryBudgetWindow(DEFAULT);
  const allowedAt = (nowMs: number): boolean => window.tryRetry(nowMs);
  for (let i = 0; i < 10; i++) assert.ok(allowedAt(5_000 + i));
  assert.ok(!allowedAt(5_500));
  assert.equal(window.exhaustedAtMs, 5_500);
  assert.ok(!allowedAt(5_999));
  assert.ok(allowedAt(6_000), "the first was a second ago");
  assert.ok(!allowedAt(6_000));
  assert.ok(allowedAt(6_001));
});

test("after an hour without a request nothing is left of the last one", () => {
  const window = new RetryBudgetWindow(NO_FLOOR);
  for (let i = 0; i < 1_000; i++) window.request(1_000);
  assert.ok(window.tryRetry(1_500));
  assert.ok(!window.tryRetry(3_601_000));
});
