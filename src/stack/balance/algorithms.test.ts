/** What every algorithm owes: shares by weight, nobody twice, and what only one of them promises. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SeededRandom } from "#/base/random.ts";
import type { BalancingAlgorithm } from "#/model/traffic.ts";
import { AliasTable } from "./alias-table.ts";
import type { Member } from "./balancer.ts";
import { balancerOf, balancing, BY_USER, counts, endpoints } from "./testing.ts";

const ALGORITHMS: readonly BalancingAlgorithm[] = [
  "p2c-ewma",
  "round-robin",
  "random",
  "least-request",
  "consistent-hash",
];

for (const algorithm of ALGORITHMS) {
  test(`${algorithm}: shares follow weights, and weight 0 gets nothing`, () => {
    const weights = [10_000, 20_000, 0, 50_000];
    const set = endpoints(4, (i) => ({ weight: weights[i]! }));
    const over = balancerOf(set, balancing(algorithm, BY_USER));
    const picks = 40_000;
    const got = counts(over, picks);
    assert.equal(got.get("10.1.0.2"), undefined);
    for (const [i, weight] of weights.entries()) {
      const share = (got.get(`10.1.0.${i}`) ?? 0) / picks;
      assert.ok(Math.abs(share - weight / 80_000) < 0.012, `${i}: ${share}`);
    }
  });

  test(`${algorithm}: shares are even among equals`, () => {
    const got = counts(balancerOf(endpoints(10), balancing(algorithm, BY_USER)), 50_000);
    for (const [ip, count] of got) assert.ok(Math.abs(count - 5_000) < 350, `${ip}: ${count}`);
    assert.equal(got.size, 10);
  });

  test(`${algorithm}: a weight that changes holds at once, and 0 for all is the same for all`, () => {
    const over = balancerOf(endpoints(2), balancing(algorithm, BY_USER));
    over.update(
      endpoints(2, (i) => ({ weight: i === 0 ? 30_000 : 10_000 })),
      1,
    );
    assert.ok(Math.abs(counts(over, 8_000, 1).get("10.1.0.0")! - 6_000) < 250);
    over.update(
      endpoints(2, () => ({ weight: 0 })),
      2,
    );
    assert.ok(Math.abs(counts(over, 8_000, 2).get("10.1.0.0")! - 4_000) < 250);
  });

  test(`${algorithm}: a pick is in use and was not tried, while there is such a one`, () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("in", "aside", "tried", "both"), { minLength: 1, maxLength: 20 }),
        fc.boolean(),
        fc.nat(1_000),
        (kinds, isUneven, seed) => {
          const set = endpoints(kinds.length, (i) => ({ weight: isUneven ? 1_000 * (1 + (i % 7)) : 10_000 }));
          const over = balancerOf(set, balancing(algorithm, BY_USER), { seed });
          const tried: Member<string>[] = [];
          for (const [i, kind] of kinds.entries()) {
            const member = over.members[i]!;
            if (kind === "aside" || kind === "both") over.connectFailed(member, 0);
            if (kind === "tried" || kind === "both") tried.push(member);
          }
          for (let i = 0; i < 10; i++) {
            const picked = over.pick(1, tried, ["x-user", `${seed} ${i}`]);
            const kind = picked === null ? null : kinds[over.members.indexOf(picked)];
            if (kinds.includes("in")) assert.equal(kind, "in");
            else if (kinds.includes("aside")) assert.equal(kind, "aside");
            else assert.equal(kind, null);
          }
        },
      ),
    );
  });
}

test("round-robin: equals take turns, one each in every round, and each client begins elsewhere", () => {
  const firsts = new Set<string>();
  for (let seed = 0; seed < 20; seed++) {
    const over = balancerOf(endpoints(7), balancing("round-robin"), { seed });
    const round = Array.from({ length: 7 }, () => over.pick(0, [])!.extra);
    assert.equal(new Set(round).size, 7);
    for (let i = 0; i < 700; i++) assert.equal(over.pick(0, [])!.extra, round[i % 7]);
    firsts.add(round[0]!);
  }
  assert.ok(firsts.size > 4);
});

test("round-robin: turns of a heavy endpoint are spread, not in a row", () => {
  const over = balancerOf(
    endpoints(3, (i) => ({ weight: i === 0 ? 20_000 : 10_000 })),
    balancing("round-robin"),
  );
  const picks = Array.from({ length: 400 }, () => over.pick(0, [])!.extra === "10.1.0.0");
  assert.equal(picks.filter(Boolean).length, 200);
  for (let i = 2; i < picks.length; i++)
    assert.ok(!(picks[i] && picks[i - 1] && picks[i - 2]), `three in a row at ${i}`);
});

test("round-robin: who comes has its turn within a round and nothing to catch up on", () => {
  const over = balancerOf(endpoints(4), balancing("round-robin"));
  counts(over, 10_000);
  over.update(endpoints(5), 1);
  const got = counts(over, 5, 1);
  assert.deepEqual([...got.values()], [1, 1, 1, 1, 1]);
});

test("round-robin: endpoints of other zones that join have nothing to catch up on either", () => {
  const over = balancerOf(
    endpoints(6, (i) => ({ labels: { zone: i < 2 ? "a" : "b" } })),
    { ...balancing("round-robin"), zone: { spillAtPending: 0, healthyShareMin: 1 } },
    { client: { id: "x", zone: "a" } },
  );
  assert.equal(counts(over, 1_000).size, 2);
  over.connectFailed(over.members[0]!, 0);
  const got = counts(over, 50, 1);
  for (const count of got.values()) assert.ok(Math.abs(count - 10) <= 1, JSON.stringify([...got]));
  assert.equal(got.size, 5);
});

test("least-request: goes where fewer are under way for the weight, whatever latencies are", () => {
  const over = balancerOf(
    endpoints(2, (i) => ({ weight: i === 0 ? 40_000 : 10_000 })),
    balancing("least-request"),
  );
  const [big, small] = over.members as [Member<string>, Member<string>];
  over.observe(big, 5_000, false, 0);
  for (let i = 0; i < 4; i++) over.begin(big);
  over.begin(small);
  over.begin(small);
  for (let i = 0; i < 100; i++) {
    const picked = over.pick(0, [])!;
    // Drawn by weight and put back: the small one alone is drawn once in 25 times.
    if (picked === small) continue;
    assert.equal(picked, big);
  }
  const got = counts(over, 5_000);
  assert.ok(got.get(small.extra)! < 5_000 * 0.06, String(got.get(small.extra)));
});

test("p2c-ewma: with unequal weights too the slow endpoint gets less than its share", () => {
  const over = balancerOf(endpoints(4, (i) => ({ weight: 10_000 * (1 + (i % 2)) })));
  for (const member of over.members) over.observe(member, member.extra === "10.1.0.0" ? 500 : 40, false, 0);
  const got = counts(over, 6_000);
  // 1 of 6 by weight; taken only where it is drawn twice.
  assert.ok((got.get("10.1.0.0") ?? 0) < 6_000 * 0.05, String(got.get("10.1.0.0")));
});

test("an alias table draws by weight", () => {
  const weights = [1, 0.001, 7, 2.5, 1, 30];
  const table = new AliasTable(weights);
  const random = new SeededRandom(5);
  const got = weights.map(() => 0);
  const draws = 200_000;
  for (let i = 0; i < draws; i++) got[table.draw(random)]!++;
  for (const [i, weight] of weights.entries())
    assert.ok(Math.abs(got[i]! / draws - weight / 41.501) < 0.004, `${i}: ${got[i]}`);
});

/** Ten replicas, one of which takes ten times as long; requests come by chance. The 99th percentile of answers, in ms. */
function p99WithSlowReplica(algorithm: BalancingAlgorithm): number {
  const over = balancerOf(endpoints(10), balancing(algorithm), { seed: 17 });
  const random = new SeededRandom(23);
  const exponential = (mean: number): number => -mean * Math.log(1 - random.next());
  const under: { endMs: number; startMs: number; member: Member<string> }[] = [];
  const latencies: number[] = [];
  const end = (untilMs: number): void => {
    under.sort((a, b) => a.endMs - b.endMs);
    while (under.length > 0 && under[0]!.endMs <= untilMs) {
      const { endMs, startMs, member } = under.shift()!;
      over.observe(member, endMs - startMs, false, endMs);
      over.end(member, startMs);
      latencies.push(endMs - startMs);
    }
  };
  let nowMs = 0;
  for (let i = 0; i < 10_000; i++) {
    nowMs += exponential(2);
    end(nowMs);
    const member = over.pick(nowMs, [])!;
    over.begin(member);
    const serviceMs = exponential(member.extra === "10.1.0.0" ? 100 : 10);
    under.push({ endMs: nowMs + serviceMs, startMs: nowMs, member });
  }
  end(Infinity);
  return latencies.toSorted((a, b) => a - b)[Math.floor(latencies.length * 0.99)]!;
}

test("with one of ten replicas ten times slower, the default's p99 is less than half of round robin's", () => {
  const roundRobin = p99WithSlowReplica("round-robin");
  const ewma = p99WithSlowReplica("p2c-ewma");
  const leastRequest = p99WithSlowReplica("least-request");
  assert.ok(ewma < roundRobin / 2, `${ewma} and ${roundRobin}`);
  assert.ok(leastRequest < roundRobin, `${leastRequest} and ${roundRobin}`);
  assert.ok(ewma < leastRequest, `${ewma} and ${leastRequest}`);
});
