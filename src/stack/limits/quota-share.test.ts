import assert from "node:assert/strict";
import { test } from "node:test";
import type { RateLimit } from "#/model/traffic.ts";
import { ASK, LEASE_MS, QuotaShare } from "./quota-share.ts";

const INTERVAL_MS = 100;
const LIMIT: RateLimit = {
  source: { group: "", kind: "RateLimitPolicy", namespace: "shop", name: "web", section: "", port: 0 },
  matches: [],
  key: { kind: "total" },
  requests: 100,
  windowMs: 1_000,
  burst: 10,
  scope: "global",
};

/** So many requests at one moment; how many were admitted. */
function admit(share: QuotaShare, times: number, nowMs: number): number {
  let count = 0;
  for (let i = 0; i < times; i++) {
    share.arrived(nowMs);
    if (share.look(nowMs) !== 0) continue;
    share.take(nowMs);
    count++;
  }
  return count;
}

test("what was given is void the time of a lease after its report was sent, not after its answer came", () => {
  const share = new QuotaShare(LIMIT, 0);
  share.granted({ granted: 5, waitMs: 0, replicas: 1 }, 5, 100, 400);
  assert.equal(admit(share, 1, 100 + LEASE_MS - 1), 1);
  assert.equal(share.look(100 + LEASE_MS), ASK);
});

test("once the control plane has said that there is no more, it is not asked until then", () => {
  const share = new QuotaShare(LIMIT, 0);
  share.granted({ granted: 1, waitMs: 300, replicas: 1 }, 4, 0, 10);
  assert.equal(admit(share, 3, 10), 1);
  assert.equal(share.look(10), 300);
  assert.equal(share.look(310), ASK);
});

test("what is held beyond the demand goes back with the next report", () => {
  const share = new QuotaShare(LIMIT, 0);
  share.granted({ granted: 20, waitMs: 0, replicas: 1 }, 20, 0, 0);
  const { held, returned, wanted } = share.report(100, INTERVAL_MS);
  assert.deepEqual({ held, returned, wanted }, { held: 0, returned: 20, wanted: 0 });
  assert.equal(share.look(100), ASK);
});

test("what it admits by itself is reported until an answer has come, and once", () => {
  const share = new QuotaShare(LIMIT, 0);
  share.granted({ granted: 0, waitMs: 0, replicas: 10 }, 0, 0, 0);
  share.leftAlone(2_000);
  assert.equal(admit(share, 5, 2_000), 1, "no burst beside what others may still hold");
  assert.equal(admit(share, 5, 2_100), 1, "a tenth of 100 in a second");
  assert.equal(share.report(2_100, INTERVAL_MS).overdraft, 2);
  assert.equal(admit(share, 5, 2_200), 1);
  assert.equal(
    share.report(2_200, INTERVAL_MS).overdraft,
    3,
    "the report before was lost, as far as it knows",
  );
  assert.equal(admit(share, 5, 2_300), 1);
  share.granted({ granted: 0, waitMs: 0, replicas: 10 }, 0, 2_200, 2_300);
  assert.equal(share.report(2_400, INTERVAL_MS).overdraft, 1);
});

test("a share that nobody uses says nothing and may be forgotten, but not while what it took is not made good", () => {
  const share = new QuotaShare(LIMIT, 0);
  assert.ok(share.isFresh(0));
  share.leftAlone(0);
  admit(share, 1, 0);
  share.report(60_000, INTERVAL_MS);
  assert.ok(!share.isIdle(60_000), "its overdraft has still to be told");
  share.granted({ granted: 0, waitMs: 0, replicas: 1 }, 0, 60_000, 60_000);
  share.report(70_000, INTERVAL_MS);
  assert.ok(share.isFresh(70_000), "nothing came for ten seconds");
});
