import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { RateLimit } from "#/model/traffic.ts";
import { LEASE_MS, QuotaShare } from "#/stack/limits/quota-share.ts";
import { QuotaPool, waterFill } from "./quota-pool.ts";

const INTERVAL_MS = 100;
const SOURCE = { group: "", kind: "RateLimitPolicy", namespace: "", name: "all", section: "", port: 0 };

function limitOf(requests: number, burst: number): RateLimit {
  return {
    source: SOURCE,
    matches: [],
    key: { kind: "total" },
    requests,
    windowMs: 1_000,
    burst,
    scope: "global",
  };
}

/** One step of a run: who, what happens, and how much time goes by before. */
const steps = fc.array(
  fc.record({
    who: fc.integer({ min: 0, max: 4 }),
    gapMs: fc.integer({ min: 0, max: 150 }),
    what: fc.oneof(
      { weight: 6, arbitrary: fc.record({ arrive: fc.integer({ min: 1, max: 40 }) }) },
      { weight: 4, arbitrary: fc.constant("report" as const) },
      {
        weight: 1,
        arbitrary: fc.constantFrom("report lost" as const, "answer lost" as const, "restart" as const),
      },
    ),
  }),
  { maxLength: 300 },
);

test("however load, time and losses fall, no time has more admitted than one bucket would: capacity + rate · time", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 500 }),
      fc.integer({ min: 1, max: 200 }),
      steps,
      (perSecond, burst, run) => {
        const limit = limitOf(perSecond, burst);
        const pool = new QuotaPool({ perMs: perSecond / 1_000, burst }, INTERVAL_MS, 0);
        const capacity = Math.max(1, burst, perSecond * 0.4);
        const shares = Array.from({ length: 5 }, () => new QuotaShare(limit, 0));
        const admitted: [atMs: number, count: number][] = [];
        let nowMs = 0;
        for (const { who, gapMs, what } of run) {
          nowMs += gapMs;
          const share = shares[who]!;
          if (what === "restart") shares[who] = new QuotaShare(limit, nowMs);
          else if (typeof what === "string") {
            const sent = share.report(nowMs, INTERVAL_MS);
            if (what === "report lost") continue;
            const { granted, waitMs } = pool.report(String(who), sent, nowMs, INTERVAL_MS, LEASE_MS);
            assert.ok(granted >= 0 && granted <= sent.wanted && Number.isInteger(granted));
            assert.ok(granted === sent.wanted || waitMs >= INTERVAL_MS);
            if (what === "report") share.granted({ granted, waitMs, replicas: 5 }, sent.wanted, nowMs, nowMs);
          } else {
            let count = 0;
            for (let i = 0; i < what.arrive; i++) {
              share.arrived(nowMs);
              if (share.look(nowMs) !== 0) continue;
              share.take(nowMs);
              count++;
            }
            if (count > 0) admitted.push([nowMs, count]);
          }
          assert.ok(pool.level + pool.held <= capacity + 1e-6, `${pool.level} + ${pool.held} > ${capacity}`);
        }
        for (let i = 0; i < admitted.length; i++) {
          let sum = 0;
          for (let j = i; j < admitted.length; j++) {
            sum += admitted[j]![1];
            const bound = capacity + (perSecond / 1_000) * (admitted[j]![0] - admitted[i]![0]);
            assert.ok(sum <= bound + 1e-6, `${sum} > ${bound}`);
          }
        }
      },
    ),
    { numRuns: 300 },
  );
});

test("parts by demand are max-min fair: all of the rate, none more than it wants while another lacks", () => {
  const demands = fc.array(fc.double({ min: 0, max: 1_000, noNaN: true }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(demands, fc.double({ min: 0.001, max: 2_000, noNaN: true }), (wanted, total) => {
      const parts = waterFill(wanted, total);
      const sum = parts.reduce((a, b) => a + b, 0);
      assert.ok(Math.abs(sum - total) < 1e-6 * total + 1e-9);
      for (const [i, part] of parts.entries()) {
        if (part >= wanted[i]! - 1e-9) continue;
        // Whoever lacks has at least as much as everybody else.
        for (const other of parts) assert.ok(part >= other - 1e-6);
      }
    }),
  );
});

/** All of them want more than there is, at every report; what each was given in `rounds` reports. */
function contend(demandsPerSecond: readonly number[], perSecond: number, rounds: number): number[] {
  const pool = new QuotaPool({ perMs: perSecond / 1_000, burst: 1 }, INTERVAL_MS, 0);
  const got = demandsPerSecond.map(() => 0);
  for (let round = 0; round < rounds; round++) {
    for (const [i, demandPerSecond] of demandsPerSecond.entries()) {
      const nowMs = (round + i / demandsPerSecond.length) * INTERVAL_MS;
      // Whole requests that have come since the last report; what is refused does not come again.
      const wanted =
        Math.floor((demandPerSecond * (round + 1)) / 10) - Math.floor((demandPerSecond * round) / 10);
      const { granted } = pool.report(
        String(i),
        { held: 0, returned: 0, wanted, demandPerSecond, overdraft: 0 },
        nowMs,
        INTERVAL_MS,
        LEASE_MS,
      );
      got[i]! += granted;
    }
  }
  return got;
}

test("nobody starves beside others who want everything, whatever the order of reports", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 20, max: 5_000 }), { minLength: 2, maxLength: 12 }), (demands) => {
      const seconds = 20;
      const got = contend(demands, 100, seconds * 10);
      const fair = waterFill(demands, 100);
      for (const [i, count] of got.entries())
        assert.ok(
          count >= 0.85 * Math.min(fair[i]!, demands[i]!) * seconds - 2,
          `${i}: ${got.join()} of ${fair.join()}`,
        );
    }),
    { numRuns: 50 },
  );
});

test("a limit of a few requests in a minute is still given whole, one at a time", () => {
  const pool = new QuotaPool({ perMs: 6 / 60_000, burst: 1 }, INTERVAL_MS, 0);
  let got = 0;
  for (let nowMs = 0; nowMs < 60_000; nowMs += 100) {
    const report = { held: 0, returned: 0, wanted: 1, demandPerSecond: 10, overdraft: 0 };
    got += pool.report(String(nowMs % 300), report, nowMs, INTERVAL_MS, LEASE_MS).granted;
  }
  assert.ok(got >= 6 && got <= 7, String(got));
});

test("a small burst is given whole to whoever comes, and a pod is told when the next request will have been earned", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 4 }), (burst, members) => {
      const pool = new QuotaPool({ perMs: 5 / 60_000, burst }, INTERVAL_MS, 0);
      const ask = (request: number, nowMs: number): { granted: number; waitMs: number } => {
        const report = { held: 0, returned: 0, wanted: 1, demandPerSecond: 20, overdraft: 0 };
        return pool.report(String(request % members), report, nowMs, INTERVAL_MS, LEASE_MS);
      };
      for (let request = 0; request < burst; request++) assert.equal(ask(request, request).granted, 1);
      const { granted, waitMs } = ask(burst, burst);
      assert.equal(granted, 0);
      assert.ok(waitMs > 11_000 && waitMs <= 12_000, String(waitMs));
      assert.equal(ask(burst, burst + waitMs).granted, 1);
    }),
  );
});

test("what a member admitted by itself is made good by all", () => {
  const pool = new QuotaPool({ perMs: 0.1, burst: 40 }, INTERVAL_MS, 0);
  const ask = (nowMs: number, overdraft: number): number =>
    pool.report(
      "a",
      { held: 0, returned: 0, wanted: 40, demandPerSecond: 1_000, overdraft },
      nowMs,
      INTERVAL_MS,
      LEASE_MS,
    ).granted;
  assert.equal(ask(0, 60), 0);
  assert.equal(ask(150, 0), 0);
  assert.ok(ask(400, 0) > 0);
});

test("what a member says to hold beyond what it was given is not believed", () => {
  const pool = new QuotaPool({ perMs: 0.1, burst: 40 }, INTERVAL_MS, 0);
  pool.report(
    "a",
    { held: 1e9, returned: 1e9, wanted: 0, demandPerSecond: 0, overdraft: 0 },
    0,
    INTERVAL_MS,
    LEASE_MS,
  );
  assert.equal(pool.held, 0);
  assert.equal(pool.level, 40);
});

test("a member that says nothing for the time of a lease holds nothing, and a pool that nobody uses may be forgotten", () => {
  const pool = new QuotaPool({ perMs: 0.1, burst: 40 }, INTERVAL_MS, 0);
  pool.report(
    "a",
    { held: 0, returned: 0, wanted: 5, demandPerSecond: 100, overdraft: 0 },
    0,
    INTERVAL_MS,
    LEASE_MS,
  );
  assert.equal(pool.held, 5);
  assert.ok(!pool.isFresh(LEASE_MS - 1, INTERVAL_MS));
  assert.ok(pool.isFresh(LEASE_MS + 1_000, INTERVAL_MS));
  assert.equal(pool.held, 0);
});
