import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "#/base/random.ts";
import { drawMs } from "./latency.ts";

function quantiles(draw: () => number): { p50: number; p99: number; mean: number } {
  const values = Array.from({ length: 100_000 }, draw).toSorted((a, b) => a - b);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return { p50: values[50_000]!, p99: values[99_000]!, mean };
}

test("a log-normal latency has the median and the 99th percentile that it was given", () => {
  const random = new SeededRandom(1);
  const { p50, p99 } = quantiles(() => drawMs({ kind: "log-normal", medianMs: 5, p99Ms: 80 }, random));
  assert.ok(Math.abs(p50 - 5) < 0.15, `${p50}`);
  assert.ok(Math.abs(p99 - 80) < 5, `${p99}`);
});

test("an exponential latency has its mean, a constant one is itself", () => {
  const random = new SeededRandom(2);
  const { mean } = quantiles(() => drawMs({ kind: "exponential", meanMs: 7 }, random));
  assert.ok(Math.abs(mean - 7) < 0.15, `${mean}`);
  assert.equal(drawMs({ kind: "constant", ms: 3 }, random), 3);
});
