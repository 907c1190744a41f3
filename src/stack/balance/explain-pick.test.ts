import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fields } from "#/base/fields.ts";
import type { PickExplanation } from "./explain-pick.ts";
import { ACCRUAL, balancerOf, balancing, BY_USER, endpoints } from "./testing.ts";

test("says by which algorithm a pick was made, from how many, and what each endpoint was like", () => {
  const over = balancerOf(endpoints(4, (i) => ({ labels: { pod: `web-${i}` } })));
  const [first, second] = over.members;
  over.connectFailed(first!, 0);
  over.begin(second!);
  const picked = over.pick(10, [])!;
  const explained = over.explainPick(10, [], null, picked);
  assert.equal(explained.algorithm, "p2c-ewma");
  assert.equal(explained.endpoint, picked.key);
  assert.equal(explained.reason, "of two drawn from 3 of 4 endpoints in use it had the lower load");
  assert.equal(explained.candidates[0]!.address, picked.key, "the one that was picked comes first");
  const aside = explained.candidates.at(-1)!;
  assert.deepEqual(
    [aside.pod, aside.state, aside.why, aside.forMs],
    ["web-0", "set aside", "cannot be connected to", first!.standing.untilMs - 10],
  );
  const busy = explained.candidates.find(({ address }) => address === second!.key)!;
  assert.deepEqual([busy.pending, Math.round(busy.load / busy.latencyMs)], [1, 2]);
});

test("asking for an explanation changes nothing", () => {
  const over = balancerOf(endpoints(3), { ...balancing("round-robin"), accrual: ACCRUAL });
  const twin = balancerOf(endpoints(3), { ...balancing("round-robin"), accrual: ACCRUAL });
  for (const each of [over, twin]) each.connectFailed(each.members[0]!, 0);
  for (let nowMs = 0; nowMs < 400; nowMs += 10) {
    over.explainPick(nowMs, [], ["x-user", "a"]);
    assert.equal(over.pick(nowMs, [])!.key, twin.pick(nowMs, [])!.key);
  }
});

test("a session, a key and a lone endpoint are certain beforehand; chance is not", () => {
  const persistence = {
    kind: "cookie",
    name: "sid",
    absoluteTimeoutMs: null,
    isPermanent: false,
    path: "/",
  } as const;
  const sticky = balancerOf(endpoints(9));
  const explain = (fields: Fields): PickExplanation =>
    sticky.explainPick(0, [], fields, undefined, persistence);
  assert.deepEqual([explain([]).endpoint, explain([]).reason], [null, "one of 9 of 9 endpoints in use"]);
  const member = sticky.pick(0, [], [], persistence)!;
  const cookie = sticky.sessionBegun([], [], member, persistence)![1]!.split(";")[0]!;
  const inSession = explain(["cookie", cookie]);
  assert.equal(inSession.endpoint, member.key);
  assert.equal(inSession.reason, "the session of cookie sid stays with its endpoint");

  const hashed = balancerOf(endpoints(9), balancing("consistent-hash", BY_USER, 1.25));
  const fields = ["x-user", "secret-name"];
  const owner = hashed.pick(0, [], fields)!;
  const before = hashed.explainPick(0, [], fields);
  assert.deepEqual([before.endpoint, before.reason], [owner.key, "the key header x-user belongs to it"]);
  assert.doesNotMatch(JSON.stringify(before), /secret-name/);
  const next = hashed.pick(0, [owner], fields)!;
  assert.equal(
    hashed.explainPick(0, [owner], fields, next).reason,
    `the key header x-user belongs to ${owner.key}, which was tried, and this is the next`,
  );
  hashed.connectFailed(owner, 0);
  assert.match(hashed.explainPick(0, [], fields, hashed.pick(0, [], fields)).reason, /which is set aside/);

  const one = balancerOf(endpoints(1));
  assert.equal(one.explainPick(0, [], null).endpoint, one.members[0]!.key);
});

test("says why an endpoint that was set aside is asked, and why nobody is", () => {
  const over = balancerOf(endpoints(2), { accrual: ACCRUAL, ejectionFloor: 0, panicThreshold: 0 });
  const [first, second] = over.members;
  for (const member of [first!, second!]) for (let i = 0; i < 3; i++) over.answered(member, true, 0, 0, 0);
  assert.equal(over.pick(1, []), null);
  const refused = over.explainPick(1, [], null, null);
  assert.equal(
    refused.reason,
    "all endpoints are set aside for their answers, and the policy has neither floor nor panic",
  );
  assert.deepEqual(
    refused.candidates.map(({ why }) => why),
    ["its answers failed", "its answers failed"],
  );
  assert.equal(over.explainPick(1, [], null).reason, refused.reason);
  const picked = over.pick(1_000, [])!;
  const explained = over.explainPick(1_000, [], null, picked);
  assert.equal(explained.reason, "it was set aside, its time is over, and this request tries it");
  assert.equal(explained.candidates[0]!.state, "being tried");
  assert.equal(over.explainPick(1_000, over.members, null, null).reason, "all endpoints were tried");
  assert.equal(balancerOf([]).explainPick(0, [], null).reason, "the service has no endpoint");
  const unreachable = balancerOf(endpoints(1));
  unreachable.connectFailed(unreachable.members[0]!, 0);
  assert.match(unreachable.explainPick(1, [], null, unreachable.pick(1, [])).reason, /^nobody else is left/);
});

test("says when a request leaves its zone, and when panic lets all in", () => {
  const zoned = balancerOf(
    endpoints(4, (i) => ({ labels: { zone: i === 0 ? "a" : "b" } })),
    { zone: { spillAtPending: 1, healthyShareMin: 0.5 } },
    { client: { id: "x", zone: "a" } },
  );
  const local = zoned.pick(0, [])!;
  assert.match(
    zoned.explainPick(0, [], null, local).reason,
    /from 1 of 1 endpoints in use in the client's zone/,
  );
  assert.deepEqual(
    zoned.explainPick(0, [], null).candidates.map(({ state }) => state),
    ["in use", "other zone", "other zone", "other zone"],
  );
  zoned.begin(local);
  const remote = zoned.pick(0, [])!;
  assert.match(
    zoned.explainPick(0, [], null, remote).reason,
    /3 of 3 endpoints in use in other zones, as the client's own is loaded/,
  );

  const over = balancerOf(endpoints(4), { accrual: ACCRUAL, panicThreshold: 0.5 });
  for (const member of over.members.slice(0, 2))
    for (let i = 0; i < 3; i++) over.answered(member, true, 0, 0, 0);
  over.connectFailed(over.members[3]!, 0);
  const explained = over.explainPick(1, [], null, over.members[0]!);
  assert.equal(explained.isPanicking, true);
  assert.match(explained.reason, /too few of them good/);
});

test("of a thousand endpoints a hundred are listed, and the rest counted", () => {
  const explained = balancerOf(endpoints(1_000)).explainPick(0, [], null);
  assert.deepEqual([explained.candidates.length, explained.omitted], [100, 900]);
});
