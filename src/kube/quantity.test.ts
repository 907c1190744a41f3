import assert from "node:assert/strict";
import { test } from "node:test";
import { byteCount, cpuMillis, parseQuantity } from "./quantity.ts";

test("reads Kubernetes quantities", () => {
  for (const [text, value] of [
    ["1", 1],
    ["250m", 0.25],
    ["1.5Gi", 1.5 * 2 ** 30],
    ["2e3", 2000],
    ["128Mi", 2 ** 27],
    ["1k", 1000],
    [".5", 0.5],
    ["1E", 1e18],
  ] as const)
    assert.equal(parseQuantity(text), value);
  for (const text of ["", "lots", "1 Gi", "1KB", "0x10", "1mi"])
    assert.equal(parseQuantity(text), null, text);
});

test("rounds up to whole millis and bytes", () => {
  assert.equal(cpuMillis("0.1"), 100);
  assert.equal(cpuMillis(1.0005), 1001);
  assert.equal(cpuMillis("100u"), 1);
  assert.equal(byteCount("1.5"), 2);
  assert.equal(byteCount("-1"), null);
});
