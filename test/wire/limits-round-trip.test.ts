import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import type { StandardLimit } from "#/control/answers/encode-limits.ts";
import { standardLimits, wireLimits } from "#/control/answers/encode-limits.ts";
import { ServerSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { InboundLimits, RateLimit } from "#/model/traffic.ts";
import { decodeInboundPolicy } from "#/proxy/control/decode-inbound.ts";
import { inboundLimits } from "./policy-models.ts";

const SOURCE = {
  group: "pillion.dev",
  kind: "RateLimitPolicy",
  namespace: "shop",
  name: "web",
  section: "",
  port: 0,
};

function read(init: MessageInitShape<typeof ServerSchema>): InboundLimits | null | undefined {
  const protocol = { kind: { case: "http2" as const, value: {} } };
  return decodeInboundPolicy(toBinary(ServerSchema, create(ServerSchema, { protocol, ...init } as never)))
    ?.limits;
}

test("limits come out of the contract as they went in", () => {
  fc.assert(
    fc.property(inboundLimits, (limits) => {
      assert.deepEqual(read({ limits: wireLimits(limits) }), limits);
    }),
    { numRuns: 300 },
  );
});

test("Linkerd's own limit is followed: of all, of each client, of clients by name (facts §13)", () => {
  const limit = {
    total: { requestsPerSecond: 100 },
    identity: { requestsPerSecond: 10 },
    overrides: [
      { limit: { requestsPerSecond: 50 }, clients: { identities: [{ name: "a.b" }, { name: "c.d" }] } },
    ],
  };
  const rate = (key: RateLimit["key"], requests: number) => ({
    source: { group: "", kind: "default", namespace: "", name: "", section: "", port: 0 },
    matches: [],
    key,
    requests,
    windowMs: 1000,
    burst: requests,
    scope: "local",
  });
  const wanted = {
    exempt: [],
    rates: [
      rate({ kind: "total" }, 100),
      rate({ kind: "identity" }, 10),
      rate({ kind: "clients", identities: ["a.b", "c.d"] }, 50),
    ],
    concurrency: null,
  };
  for (const [name, field] of [
    ["detect", "httpLocalRateLimit"],
    ["http1", "localRateLimit"],
    ["http2", "localRateLimit"],
  ] as const)
    assert.deepEqual(
      read({ protocol: { kind: { case: name, value: { [field]: limit } } } as never }),
      wanted,
      name,
    );
});

test("what the standard field says of limits never admits more than they do", () => {
  const small: fc.Arbitrary<RateLimit> = fc.record({
    source: fc.constant(SOURCE),
    matches: fc.constant([]),
    key: fc.constantFrom<RateLimit["key"]>(
      { kind: "total" },
      { kind: "identity" },
      { kind: "header", name: "x" },
      { kind: "clients", identities: ["a.b"] },
    ),
    requests: fc.nat(1000),
    windowMs: fc.integer({ min: 1, max: 60_000 }),
    burst: fc.nat(1000),
    scope: fc.constantFrom("local", "global"),
  });
  fc.assert(
    fc.property(
      fc.array(small, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 10 }),
      (rates, pods) => {
        const standard = standardLimits({ exempt: [], rates, concurrency: null }, pods, () => undefined);
        if (standard.kind === "refused") return;
        assert.equal(standard.kind, "limit");
        const limit = (standard as Extract<StandardLimit, { kind: "limit" }>).limit;
        const total = limit.total?.requestsPerSecond ?? Infinity;
        const identity = limit.identity?.requestsPerSecond ?? Infinity;
        for (const rate of rates) {
          // A client's requests count against both; those of several clients against the first alone.
          const isPerClient = rate.key.kind === "identity" || rate.key.kind === "clients";
          const perSecond = isPerClient ? Math.min(total, identity) : total;
          const share = rate.scope === "global" ? pods : 1;
          assert.ok(perSecond >= 1);
          assert.ok(perSecond * share <= (rate.requests * 1000) / rate.windowMs, "in the long run");
          assert.ok(perSecond * share <= Math.max(1, rate.burst), "at once");
        }
      },
    ),
    { numRuns: 1000 },
  );
});
