import assert from "node:assert/strict";
import { test } from "node:test";
import type { Endpoint } from "#/model/endpoint.ts";
import type { Balancer, Member } from "./balancer.ts";
import { balancerOf, endpoint, endpoints } from "./testing.ts";
import { localityOf } from "./zone.ts";

const ZONE = { spillAtPending: 4, healthyShareMin: 0.7 };
const CLIENT = { id: "front-1", zone: "a" };
/** Four endpoints in the client's zone and eight in another. */
const SET: readonly Endpoint[] = endpoints(12, (i) => ({ labels: { zone: i < 4 ? "a" : "b" } }));

function zoned(): Balancer<string> {
  return balancerOf(SET, { zone: ZONE }, { client: CLIENT });
}

function isLocal({ endpoint: { labels } }: Member<string>): boolean {
  return labels["zone"] === "a";
}

test("where an endpoint is: the control plane's word, or else the zones' names", () => {
  const at = (labels: Record<string, string>, zone: string = "a"): string =>
    localityOf(endpoint("10.0.0.1", { labels }), zone);
  assert.equal(at({ zone: "a" }), "local");
  assert.equal(at({ zone: "b" }), "remote");
  assert.equal(at({ zone: "a", zone_locality: "remote" }), "remote");
  assert.equal(at({ zone_locality: "local" }, ""), "local");
  assert.equal(at({ zone: "a", zone_locality: "unknown" }), "local");
  assert.equal(at({ zone: "b" }, ""), "unknown");
  assert.equal(at({}), "unknown");
});

test("traffic stays in the zone until the mean under way there would exceed the bound; what is more goes elsewhere", () => {
  const over = zoned();
  const begun: Member<string>[] = [];
  const begin = (): Member<string> => {
    const member = over.pick(0, [])!;
    over.begin(member);
    begun.push(member);
    return member;
  };
  for (let i = 0; i < 16; i++) assert.ok(isLocal(begin()), `request ${i}`);
  for (let i = 0; i < 20; i++) assert.ok(!isLocal(begin()), `request ${16 + i}`);
  over.end(begun.find(isLocal)!, 0);
  assert.ok(isLocal(over.pick(0, [])!), "and back as soon as there is room");
});

test("the overflow does not pile up elsewhere while the client's own zone has less to do", () => {
  const over = zoned();
  let local = 0;
  for (let i = 0; i < 240; i++) {
    const member = over.pick(0, [])!;
    over.begin(member);
    if (isLocal(member)) local++;
  }
  // 20 each.
  assert.ok(local >= 79 && local <= 88, String(local));
});

test("with too few local endpoints in use all zones are used, until enough are back", () => {
  const over = zoned();
  const [first, second] = over.members;
  const remoteShare = (): number =>
    Array.from({ length: 600 }, () => over.pick(1, [])!).filter((member) => !isLocal(member)).length / 600;
  over.connectFailed(first!, 0);
  assert.equal(remoteShare(), 0, "3 of 4 are 0.75");
  over.connectFailed(second!, 0);
  assert.ok(Math.abs(remoteShare() - 8 / 10) < 0.07, "all that are in use, alike");
  over.observe(second!, 30, false, 1);
  assert.equal(remoteShare(), 0);
});

test("a request that tried all local endpoints goes to another zone, and one that tried all goes nowhere", () => {
  const over = zoned();
  const tried = over.members.filter(isLocal);
  for (let i = 0; i < 8; i++) {
    const member = over.pick(0, tried)!;
    assert.ok(!isLocal(member));
    tried.push(member);
  }
  assert.equal(over.pick(0, tried), null);
});

test("endpoints of other zones that are set aside are not tried by local traffic", () => {
  const over = zoned();
  over.connectFailed(over.members[11]!, 0);
  for (let i = 0; i < 50; i++) assert.ok(isLocal(over.pick(60_000, [])!));
});

test("without a zone of its own, or without endpoints there, a client uses all", () => {
  for (const client of [
    { id: "x", zone: "" },
    { id: "x", zone: "c" },
  ]) {
    const over = balancerOf(SET, { zone: ZONE }, { client });
    const used = new Set(Array.from({ length: 600 }, () => over.pick(0, [])));
    assert.equal(used.size, 12);
  }
});

test("endpoints that move to another zone are balanced so at once, with their connections", () => {
  const over = zoned();
  const before = [...over.members];
  over.update(
    SET.map((each, i) => ({ ...each, labels: { zone: i === 11 ? "a" : "b" } })),
    1,
  );
  assert.deepEqual([...over.members], before);
  for (let i = 0; i < 20; i++) assert.equal(over.pick(1, []), before[11]);
});

/** Requests that come at a rate, each for a time; what is under way follows by Little's law. */
test("a day of load: no request leaves the zone below the bound, and the zone stays at it above", () => {
  const over = zoned();
  const ends: { atMs: number; member: Member<string> }[] = [];
  for (const [perMs, expectsSpill] of [
    [0.5, false],
    [1.4, false],
    [4, true],
    [0.7, false],
  ] as const) {
    const startMs = ends.at(-1)?.atMs ?? 0;
    let remote = 0;
    for (let i = 0; i < 2_000; i++) {
      const nowMs = startMs + i / perMs;
      while (ends.length > 0 && ends[0]!.atMs <= nowMs) over.end(ends.shift()!.member, 0);
      const member = over.pick(nowMs, [])!;
      over.begin(member);
      ends.push({ atMs: nowMs + 10, member });
      if (!isLocal(member)) remote++;
      const local = over.members.filter(isLocal).reduce((sum, { pending }) => sum + pending, 0);
      assert.ok(local <= 16, `${local} under way`);
    }
    // 16 fit in the zone, and 40 are under way at four in a millisecond.
    const expected = expectsSpill ? 24 / 40 : 0;
    assert.ok(Math.abs(remote / 2_000 - expected) < 0.03, `${remote} of 2000 at ${perMs}`);
  }
});
