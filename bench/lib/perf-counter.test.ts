import assert from "node:assert/strict";
import { test } from "node:test";
import { countIn } from "./perf-counter.ts";

test("a count is read from what perf prints, and what was not counted is none", () => {
  assert.equal(countIn("123456789,,instructions,1000000,100.00,,\n"), 123_456_789);
  assert.equal(countIn("12.50,msec,task-clock,12500000,100.00,0.125,CPUs utilized\n"), 12.5);
  assert.equal(countIn("<not supported>,,instructions,0,100.00,,\n"), null);
  assert.equal(countIn("<not counted>,,instructions,0,0.00,,\n"), null);
  assert.equal(countIn("Events enabled\n99,,instructions,7,100.00,,\n"), 99);
  assert.equal(countIn(""), null);
});
