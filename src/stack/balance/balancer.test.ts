import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseSocketAddress } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { Balancer } from "./balancer.ts";
import { Ejection } from "./ejection.ts";
import { PeakEwma } from "./peak-ewma.ts";

function endpoint(ip: string, over: Partial<Endpoint> = {}): Endpoint {
  return {
    address: parseSocketAddress(`${ip}:80`)!,
    weight: 10_000,
    identity: null,
    protocolHint: "unknown",
    tunnelPort: null,
    authorityOverride: null,
    labels: {},
    ...over,
  };
}

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
  over.members[0]!.ejection.failed(0);
  for (let i = 0; i < 50; i++) assert.notEqual(over.pick(50, [])!.extra, "10.0.0.1");
  const others = over.members.slice(1);
  assert.equal(over.pick(50, others)!.extra, "10.0.0.1");
  assert.equal(over.pick(50, over.members), null);
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

test("ejection doubles to its bound and ends with the first success", () => {
  const ejection = new Ejection({ next: () => 0.5 });
  ejection.failed(0);
  assert.equal(ejection.untilMs, 100);
  // All who waited for one connection report its failure.
  for (let i = 0; i < 20; i++) ejection.failed(99);
  assert.equal(ejection.untilMs, 100);
  ejection.failed(100);
  assert.equal(ejection.untilMs, 300);
  let nowMs = 300;
  for (let i = 0; i < 20; i++) {
    nowMs = ejection.untilMs;
    ejection.failed(nowMs);
  }
  assert.equal(ejection.untilMs, nowMs + 10_000);
  ejection.succeeded();
  assert.equal(ejection.untilMs, 0);
});
