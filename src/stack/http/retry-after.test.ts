import assert from "node:assert/strict";
import { test } from "node:test";
import { pauseAskedMs, retryAfterMs } from "./retry-after.ts";

const NOW_MS = Date.parse("2026-11-27T15:00:00Z");

test("Retry-After is seconds or a date; what is over or no date is none (RFC 9110 §10.2.3)", () => {
  const of = (value: string): number => retryAfterMs(["Retry-After", value], NOW_MS);
  assert.equal(of("120"), 120_000);
  assert.equal(of(" 0 "), 0);
  assert.equal(of("Fri, 27 Nov 2026 15:00:30 GMT"), 30_000);
  assert.equal(of("Fri, 27 Nov 2026 14:59:30 GMT"), 0);
  for (const nonsense of ["", "-5", "soon", "1.5", "99999999999999"]) assert.equal(of(nonsense), 0);
  assert.equal(retryAfterMs([], NOW_MS), 0);
});

test("gRPC's pushback goes before it, and neither holds an endpoint off for more than five minutes", () => {
  assert.equal(pauseAskedMs(["grpc-retry-pushback-ms", "1500", "retry-after", "9"], NOW_MS), 1_500);
  assert.equal(pauseAskedMs(["grpc-retry-pushback-ms", "-1", "retry-after", "9"], NOW_MS), 0);
  assert.equal(pauseAskedMs(["retry-after", "9"], NOW_MS), 9_000);
  for (const fields of [
    ["retry-after", "86400"],
    ["grpc-retry-pushback-ms", "999999999"],
  ])
    assert.equal(pauseAskedMs(fields, NOW_MS), 300_000);
});
