import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Histogram } from "./histogram.ts";

test("a quantile is never below the true one and at most 1 % above it", () => {
  const latencies = fc.array(fc.integer({ min: 1, max: 50_000_000 }), { minLength: 1, maxLength: 300 });
  fc.assert(
    fc.property(latencies, fc.double({ min: 0.01, max: 1, noNaN: true }), (values, q) => {
      const histogram = new Histogram();
      for (const value of values) histogram.record(value);
      const sorted = values.toSorted((a, b) => a - b);
      const exact = sorted[Math.ceil(values.length * q) - 1]!;
      const found = histogram.quantileUs(q);
      assert.ok(found >= exact * 0.9999 && found <= exact * 1.0102 + 0.02, `${found} for ${exact}`);
    }),
  );
});

test("an empty histogram has quantiles of zero, also after clear", () => {
  const histogram = new Histogram();
  assert.equal(histogram.quantileUs(0.99), 0);
  histogram.record(7);
  histogram.clear();
  assert.equal(histogram.quantileUs(0.5), 0);
  assert.equal(histogram.count, 0);
});
