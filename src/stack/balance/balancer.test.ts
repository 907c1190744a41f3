import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SeededRandom } from "#/base/random.ts";
import { Balancer } from "./balancer.ts";
import { PeakEwma } from "./peak-ewma.ts";
import { Standing } from "./standing.ts";
import { endpoint } from "./testing.ts";

function balancer(ips: string[], dropped: string[] = []): Balancer<string> {
  const made = new Balancer<string>({
    random: new SeededRandom(3),
    make: (at) => at.address.ip,
    drop: (ip) => dropped.push(ip),
  });
  made.update(
    ips.map((ip) => endpoint(ip)),
    0,
  );
  return made;
}

test("spreads evenly over equals and away from a slow endpoint", () => {
  const over = balancer(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
  const counts: Record<string, number> = {};
  for (let i = 0; i < 3_000; i++) {
    const member = over.pick(i, [])!;
    counts[member.extra] = (counts[member.extra] ?? 0) + 1;
    member.latency.observe(member.extra === "10.0.0.3" ? 500 : 5, i);
  }
  assert.ok(counts["10.0.0.3"]! < 100, `slow endpoint got ${counts["10.0.0.3"]}`);
  assert.ok(Math.abs(counts["10.0.0.1"]! - counts["10.0.0.2"]!) < 450, JSON.stringify(counts));
});

test("prefers the endpoint with fewer requests under way", () => {
  const over = balancer(["10.0.0.1", "10.0.0.2"]);
  over.members[0]!.pending = 10;
  for (let i = 0; i < 20; i++) assert.equal(over.pick(0, [])!.extra, "10.0.0.2");
});

test("an ejected endpoint is left alone while others serve, and tried when nobody else is left", () => {
  const over = balancer(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
  over.connectFailed(over.members[0]!, 0);
  for (let i = 0; i < 50; i++) assert.notEqual(over.pick(50, [])!.extra, "10.0.0.1");
  const others = over.members.slice(1);
  assert.equal(over.pick(50, others)!.extra, "10.0.0.1");
  assert.equal(over.pick(50, over.members), null);
});

test("whether another one is left counts those in use", () => {
  const over = balancer(["10.0.0.1", "10.0.0.2"]);
  const [one, two] = over.members as [(typeof over.members)[0], (typeof over.members)[0]];
  assert(over.hasOther([]) && over.hasOther([one]) && !over.hasOther([one, two]));
  over.connectFailed(two, 0);
  assert(!over.hasOther([one]));
});

test("a new set keeps what is known of endpoints that stay and lets go of those that left", () => {
  const dropped: string[] = [];
  const over = balancer(["10.0.0.1", "10.0.0.2"], dropped);
  const kept = over.members[1];
  over.update([endpoint("10.0.0.2", { labels: { pod: "b" } }), endpoint("10.0.0.3")], 1);
  assert.equal(over.members[0], kept);
  assert.deepEqual(dropped, ["10.0.0.1"]);
  // Another identity at the same address is another endpoint: its connections were made for the old one.
  over.update([endpoint("10.0.0.2", { identity: { name: "a", serverName: "a" } })], 2);
  assert.notEqual(over.members[0], kept);
  assert.deepEqual(dropped, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
});

test("a pick is never among the tried, and only absent when all were tried", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 12 }),
      fc.integer({ min: 0, max: 12 }),
      fc.nat(),
      (count, triedCount, nowMs) => {
        const over = balancer(Array.from({ length: count }, (_, i) => `10.0.1.${i + 1}`));
        const tried = over.members.slice(0, triedCount);
        const picked = over.pick(nowMs, tried);
        if (tried.length === count) assert.equal(picked, null);
        else assert.ok(picked !== null && !tried.includes(picked));
      },
    ),
  );
});

test("peak EWMA rises at once and falls by its decay", () => {
  const latency = new PeakEwma(30, 10_000, 0);
  latency.observe(200, 0);
  assert.equal(latency.load(0, 0), 200);
  assert.ok(latency.load(0, 10_000) < 75);
  latency.observe(10, 10_000);
  assert.ok(latency.load(0, 10_000) > 10 && latency.load(0, 10_000) < 200);
  assert.equal(latency.load(3, 10_000), 4 * latency.load(0, 10_000));
});

test("what cannot be connected to is set aside for a time that doubles to its bound and ends with the first success", () => {
  const over = new Balancer<string>({ random: { next: () => 0.5 }, make: () => "", drop: () => {} });
  over.update([endpoint("10.0.0.1"), endpoint("10.0.0.2")], 0);
  const member = over.members[0]!;
  const { standing } = member;
  over.connectFailed(member, 0);
  assert.equal(standing.untilMs, 100);
  // All who waited for one connection report its failure.
  for (let i = 0; i < 20; i++) over.connectFailed(member, 99);
  assert.equal(standing.untilMs, 100);
  over.connectFailed(member, 100);
  assert.equal(standing.untilMs, 300);
  let nowMs = 300;
  for (let i = 0; i < 20; i++) {
    nowMs = standing.untilMs;
    over.connectFailed(member, nowMs);
  }
  assert.equal(standing.untilMs, nowMs + 10_000);
  over.observe(member, 5, false, nowMs + 10_000);
  assert.deepEqual([standing.untilMs, standing.aside], [0, "no"]);
  over.connectFailed(member, nowMs + 10_000);
  assert.equal(standing.untilMs, nowMs + 10_100);
});

test("an endpoint whose time is over is tried by one request, and by the next once that has told nothing", () => {
  const over = balancer(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
  const [first] = over.members;
  over.connectFailed(first!, 0);
  const dueMs = first!.standing.untilMs;
  const picks = Array.from({ length: 100 }, () => over.pick(dueMs, []));
  assert.deepEqual([picks[0] === first, picks.slice(1).includes(first!)], [true, false]);
  over.begin(first!);
  over.end(first!, dueMs);
  assert.equal(over.pick(dueMs + 1, []), first);
});

test("no endpoint's requests under way are lost count of when it changes its place", () => {
  const over = balancer(["10.0.0.1", "10.0.0.2"]);
  const [first, second] = over.members;
  for (const member of [first!, first!, second!]) over.begin(member);
  over.connectFailed(first!, 0);
  const counts = (): number[] => [over.pending, first!.pool?.pending ?? 0];
  assert.deepEqual(counts(), [3, 3]);
  over.update([endpoint("10.0.0.1"), endpoint("10.0.0.3")], 1);
  assert.deepEqual(counts(), [3, 2], "one of them is at an endpoint that has left");
  over.end(second!, 0);
  assert.deepEqual(counts(), [2, 2]);
  over.end(first!, 0);
  over.end(first!, 0);
  assert.deepEqual(counts(), [0, 0]);
});

test("quick failures let nobody look quicker, slow ones let it look slower", () => {
  const over = balancer(["10.0.0.1", "10.0.0.2"]);
  const [failing, serving] = over.members;
  for (const member of over.members) over.observe(member, 20, false, 0);
  for (let nowMs = 0; nowMs < 60_000; nowMs += 20) {
    over.observe(failing!, 1, true, nowMs);
    over.observe(serving!, 20, false, nowMs);
  }
  assert.ok(failing!.load(60_000) > 18, String(failing!.load(60_000)));
  over.observe(failing!, 900, true, 60_000);
  assert.equal(failing!.load(60_000), 900);
});

test("who says that it is overloaded is asked less, and is not set aside", () => {
  const over = balancer(["10.0.0.1", "10.0.0.2"]);
  const [first] = over.members;
  over.overloaded(first!, 0, 0);
  for (let i = 0; i < 50; i++) assert.notEqual(over.pick(0, []), first);
  assert.equal(first!.standing.aside, "no");
  assert.ok(first!.load(60_000) < 30, "and is forgiven");
});

test("a standing's window forgets what is older", () => {
  const standing = new Standing();
  const accrual = {
    consecutiveFailures: 0,
    successRateMin: 0.5,
    windowMs: 1_000,
    requestsMin: 4,
    backoff: { minMs: 1, maxMs: 1, jitterRatio: 0 },
    respectsRetryAfter: false,
  };
  for (const atMs of [0, 10, 20]) assert.equal(standing.counts(true, accrual, atMs), false, "too few");
  assert.equal(standing.counts(true, accrual, 2_000), false, "the others are long over");
  for (let i = 0; i < 3; i++) standing.counts(false, accrual, 2_100);
  assert.equal(standing.counts(true, accrual, 2_200), false, "3 of 5");
  assert.equal(standing.counts(true, accrual, 2_300), false, "3 of 6 are the share asked for");
  assert.equal(standing.counts(true, accrual, 2_300), true, "3 of 7");
});
