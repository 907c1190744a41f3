import assert from "node:assert/strict";
import { test } from "node:test";
import type { RateLimit } from "#/model/traffic.ts";
import { LEASE_MS } from "#/stack/limits/quota-share.ts";
import { QuotaPools } from "./quota-pools.ts";

const LIMIT: RateLimit = {
  source: { group: "", kind: "RateLimitPolicy", namespace: "shop", name: "all", section: "", port: 0 },
  matches: [],
  key: { kind: "total" },
  requests: 100,
  windowMs: 1_000,
  burst: 10,
  scope: "global",
};
const ONE = { held: 0, returned: 0, wanted: 1, demandPerSecond: 1, overdraft: 0 };

test("a workload that names ports without end gets so many counts and no more, and others theirs", () => {
  const pools = new QuotaPools();
  const lease = (workload: string, port: number, nowMs: number): number | undefined =>
    pools.lease(workload, `${port} all`, LIMIT, "pod", "", ONE, nowMs)?.granted;
  for (let port = 1; port <= 256; port++) assert.equal(lease("greedy", port, 0), 1);
  for (let port = 257; port <= 10_000; port++) assert.equal(lease("greedy", port, 0), undefined);
  assert.equal(pools.size, 256);
  assert.equal(lease("other", 80, 0), 1);
  assert.equal(lease("greedy", 1, 0), 1);
  // What nobody uses any more makes room.
  assert.equal(lease("greedy", 9_999, 2 * LEASE_MS), 1);
  assert.equal(pools.size, 1);
});

test("keys without end take no count from a limit that has none yet", () => {
  const pools = new QuotaPools();
  for (let limit = 0; limit < 60; limit++)
    for (let key = 0; key < 1_100; key++)
      assert.ok(pools.lease("greedy", `${limit}`, LIMIT, "pod", `k${key}`, ONE, 0) !== null);
  assert.ok(pools.size <= 50_000, String(pools.size));
  const before = pools.size;
  assert.equal(pools.lease("other", "80 all", LIMIT, "pod", "", ONE, 0)?.granted, 1);
  assert.equal(pools.size, before + 1);
});
