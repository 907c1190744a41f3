import assert from "node:assert/strict";
import { test } from "node:test";
import { medianInterval, showSpread, spread, table } from "./report.ts";

test("a spread has the median of odd and even counts, and zeros for none", () => {
  assert.deepEqual(spread([3, 1, 2]), { min: 1, median: 2, max: 3 });
  assert.deepEqual(spread([4, 1, 2, 3]), { min: 1, median: 2.5, max: 4 });
  assert.deepEqual(spread([]), { min: 0, median: 0, max: 0 });
  assert.equal(showSpread(spread([1, 2, 3]), 1), "1.0 / 2.0 / 3.0");
});

test("a median lies between two of the values that were measured (95 %, by their order)", () => {
  const values = Array.from({ length: 100 }, (_, i) => 100 - i);
  // The table of the binomial distribution has the 40th and the 61st of a hundred.
  assert.deepEqual(medianInterval(values), { min: 40, median: 50.5, max: 61 });
  assert.deepEqual(medianInterval([2, 1, 3]), { min: 1, median: 2, max: 3 });
  assert.deepEqual(medianInterval([]), { min: 0, median: 0, max: 0 });
});

test("a table pads every column to its widest cell", () => {
  assert.equal(table(["a", "b"], [["long", "1"], ["x"]]), "a     b\n────  ─\nlong  1\nx");
});
