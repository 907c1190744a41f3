import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import type { RetryPolicy, Timeouts } from "#/model/route.ts";
import { readOverrides } from "./request-overrides.ts";

const TIMEOUTS: Timeouts = { requestMs: 1_000, responseMs: 2_000, attemptMs: 3_000, idleMs: 4_000 };
const POLICY: RetryPolicy = {
  retriesMax: 5,
  statusRanges: [[503, 503]],
  grpcCodes: [14],
  onConnectionError: true,
  attemptTimeoutMs: null,
  bodyBytesMax: 1_000,
  backoff: { minMs: 1, maxMs: 2, jitterRatio: 0 },
  respectsRetryAfter: false,
};

function timeouts(...fields: string[]): Timeouts | undefined {
  return readOverrides(fields as Fields, TIMEOUTS, null)?.timeouts;
}

function retry(policy: RetryPolicy | null, ...fields: string[]): RetryPolicy | null | undefined {
  return readOverrides(fields as Fields, TIMEOUTS, policy)?.retry;
}

test("a request without any of them is left as it is", () => {
  assert.equal(
    readOverrides(["l5d-client-id", "a", "x", "y", "link", "l5d-timeout"], TIMEOUTS, POLICY),
    null,
  );
});

test("timeouts are those of the request where it has its own", () => {
  assert.deepEqual(timeouts("l5d-timeout", "5s"), { ...TIMEOUTS, requestMs: 5_000 });
  assert.deepEqual(timeouts("l5d-request-timeout", "1m30s"), { ...TIMEOUTS, requestMs: 90_000 });
  assert.deepEqual(timeouts("l5d-response-timeout", "20ms"), { ...TIMEOUTS, responseMs: 20 });
  assert.deepEqual(timeouts("l5d-timeout", "0s"), { ...TIMEOUTS, requestMs: null });
  assert.deepEqual(timeouts("l5d-timeout", "0"), { ...TIMEOUTS, requestMs: null });
});

test("the request's longer name wins, in either order", () => {
  const short = ["l5d-timeout", "1s"];
  const long = ["L5d-Request-Timeout", "2s"];
  for (const fields of [
    [...short, ...long],
    [...long, ...short],
  ])
    assert.equal(timeouts(...fields)?.requestMs, 2_000);
});

test("retries are those of the rule, but for what the request says", () => {
  assert.deepEqual(retry(POLICY, "l5d-retry-limit", "1"), { ...POLICY, retriesMax: 1 });
  assert.deepEqual(retry(POLICY, "l5d-retry-timeout", "50ms"), { ...POLICY, attemptTimeoutMs: 50 });
  assert.deepEqual(retry(POLICY, "l5d-retry-http", "5xx,gateway-error, 429,400-403"), {
    ...POLICY,
    statusRanges: [
      [500, 599],
      [502, 504],
      [429, 429],
      [400, 403],
    ],
  });
  assert.deepEqual(
    retry(POLICY, "l5d-retry-grpc", "cancelled,deadline-exceeded,internal,resource-exhausted,Unavailable")
      ?.grpcCodes,
    [1, 4, 13, 8, 14],
  );
});

test("where the rule has none, a request that asks for them gets one (facts §8.2)", () => {
  const implied = retry(null, "l5d-retry-http", "503");
  assert.deepEqual(implied?.statusRanges, [[503, 503]]);
  assert.equal(implied?.retriesMax, 1);
  assert.equal(implied?.bodyBytesMax, 65_536);
  assert.equal(retry(null, "l5d-timeout", "1s"), null);
});

test("what cannot be read is as if it were not there, and goes no further either", () => {
  const bad: [string, string][] = [
    ["l5d-timeout", "fast"],
    ["l5d-timeout", "-1s"],
    ["l5d-timeout", "1.5s"],
    ["l5d-timeout", "9999999999d"],
    ["l5d-retry-limit", "many"],
    ["l5d-retry-limit", "-1"],
    ["l5d-retry-http", "6xx"],
    ["l5d-retry-http", "503,oops"],
    ["l5d-retry-grpc", "ok"],
    ["l5d-retry-timeout", ""],
  ];
  for (const [name, value] of bad) {
    const own = readOverrides(["a", "b", name, value], TIMEOUTS, POLICY);
    assert.deepEqual(own?.fields, ["a", "b"]);
    assert.deepEqual(own?.timeouts, TIMEOUTS, value);
    assert.deepEqual(own?.retry, POLICY, value);
  }
});
