import assert from "node:assert/strict";
import { test } from "node:test";
import type { RateLimit } from "#/model/traffic.ts";
import type { RequestHead } from "../http/exchange.ts";
import { QuotaShares } from "./quota-shares.ts";
import { limitIds, RateLimiter } from "./rate-limiter.ts";
import { rate, SOURCE } from "./testing.ts";

function head(over: Partial<RequestHead> = {}): RequestHead {
  return {
    method: "GET",
    scheme: "http",
    authority: "web",
    path: "/",
    version: "1.1",
    absoluteForm: false,
    upgrade: null,
    fields: [],
    ...over,
  };
}

function limiter(...rates: RateLimit[]): RateLimiter {
  const made = new RateLimiter(80, new QuotaShares());
  made.update(rates, 0);
  return made;
}

/** How many of `times` requests at one moment are admitted. */
function admitted(
  by: RateLimiter,
  times: number,
  nowMs: number,
  request = head(),
  client: string | null = null,
): number {
  let count = 0;
  for (let i = 0; i < times; i++) if (by.decide(request, client, nowMs, true).kind === "admit") count++;
  return count;
}

test("admits a burst, then as many as are earned, and says what was exceeded and for how long", () => {
  const by = limiter(rate());
  assert.equal(admitted(by, 5, 0), 2);
  const refused = by.decide(head(), null, 0, true);
  assert.ok(refused.kind === "refuse");
  assert.equal(refused.waitMs, 100);
  assert.equal(refused.why, "more than 10 requests in 1 s");
  assert.equal(refused.limit.source, SOURCE);
  assert.equal(admitted(by, 5, 100), 1);
  assert.equal(admitted(by, 5, 10_000), 2);
});

test("counts each client apart by its identity, and all clients without one together", () => {
  const by = limiter(rate({ key: { kind: "identity" } }));
  assert.equal(admitted(by, 5, 0, head(), "a"), 2);
  assert.equal(admitted(by, 5, 0, head(), "b"), 2);
  assert.equal(admitted(by, 5, 0, head(), null), 2);
  assert.equal(admitted(by, 5, 0, head(), null), 0);
});

test("counts each value of a header apart; leaving the header out, or giving it twice, is no way around", () => {
  const by = limiter(rate({ key: { kind: "header", name: "x-user" } }));
  const of = (...values: string[]) => head({ fields: values.flatMap((value) => ["X-User", value]) });
  assert.equal(admitted(by, 5, 0, of("a")), 2);
  assert.equal(admitted(by, 5, 0, of("b")), 2);
  assert.equal(admitted(by, 5, 0, of()), 2);
  assert.equal(admitted(by, 5, 0, of()), 0);
  assert.equal(admitted(by, 5, 0, of("a")), 0);
});

test("counts only requests that a match names", () => {
  const by = limiter(
    rate({ matches: [{ path: { kind: "prefix", value: "/api" }, headers: [], query: [], method: "POST" }] }),
  );
  assert.equal(admitted(by, 5, 0, head({ path: "/api/x?y", method: "POST" })), 2);
  assert.equal(admitted(by, 5, 0, head({ path: "/api/x", method: "GET" })), 5);
  assert.equal(admitted(by, 5, 0, head({ path: "/apis", method: "POST" })), 5);
  const calls = limiter(
    rate({
      matches: [
        { path: { kind: "rpc", service: "shop.Cart", method: "Add" }, headers: [], query: [], method: null },
      ],
    }),
  );
  assert.equal(admitted(calls, 5, 0, head({ path: "/shop.Cart/Add" })), 2);
  assert.equal(admitted(calls, 5, 0, head({ path: "/shop.Cart/Get" })), 5);
});

test("a request that one limit refuses takes nothing from the others", () => {
  const wide = rate({ burst: 10, source: { ...SOURCE, name: "wide" } });
  const narrow = rate({
    burst: 2,
    source: { ...SOURCE, name: "narrow" },
    matches: [{ path: { kind: "exact", value: "/slow" }, headers: [], query: [], method: null }],
  });
  const by = limiter(wide, narrow);
  assert.equal(admitted(by, 50, 0, head({ path: "/slow" })), 2);
  assert.equal(admitted(by, 50, 0), 8);
});

test("a change of numbers keeps what was counted; a change of what is counted begins anew", () => {
  const by = limiter(rate());
  assert.equal(admitted(by, 5, 0), 2);
  by.update([rate({ requests: 100, burst: 3 })], 0);
  assert.equal(admitted(by, 5, 0), 1);
  by.update([rate({ key: { kind: "identity" } })], 0);
  assert.equal(admitted(by, 5, 0), 2);
  by.update([], 0);
  assert.equal(admitted(by, 5, 0), 5);
});

test("limits of one policy have names of their own that their numbers do not change", () => {
  const rates = [rate(), rate({ requests: 5 }), rate({ key: { kind: "header", name: "x-user" } })];
  assert.deepEqual(limitIds(rates), [
    "RateLimitPolicy/shop/web/total",
    "RateLimitPolicy/shop/web/total#2",
    "RateLimitPolicy/shop/web/header:x-user",
  ]);
});

test("a global limit asks where only the control plane can tell, and goes by an equal part where it cannot be asked", () => {
  const quota = new QuotaShares();
  const by = new RateLimiter(80, quota);
  by.update([rate({ scope: "global", burst: 4 })], 0);
  assert.equal(by.decide(head(), null, 0, true).kind, "ask");
  quota.report(0, 100)[0]!.share.granted({ granted: 3, waitMs: 0, replicas: 2 }, 3, 0, 0);
  assert.equal(admitted(by, 9, 0), 3);
  assert.equal(by.decide(head(), null, 0, true).kind, "ask");
  // What was given holds for its time; after it, half of 10 in a second.
  quota.setAlone(true, 0);
  assert.equal(admitted(by, 9, 0), 1);
  assert.equal(admitted(by, 9, 200), 1);
  assert.equal(admitted(by, 9, 10_000), 2);
});

test("clients with a limit of their own are counted by it, and not by the one for each client of the same policy", () => {
  const by = limiter(
    rate({ key: { kind: "identity" } }),
    rate({ key: { kind: "clients", identities: ["vip", "bulk"] }, burst: 7 }),
  );
  assert.equal(admitted(by, 20, 0, head(), "vip"), 7);
  assert.equal(admitted(by, 20, 0, head(), "bulk"), 7);
  assert.equal(admitted(by, 20, 0, head(), "other"), 2);
  assert.equal(admitted(by, 20, 0, head(), null), 2);
  const alone = limiter(rate({ key: { kind: "clients", identities: ["vip"] } }));
  assert.equal(admitted(alone, 20, 0, head(), "other"), 20);
  assert.equal(admitted(alone, 20, 0, head(), null), 20);
});
