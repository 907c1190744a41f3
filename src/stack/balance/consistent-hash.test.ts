import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Endpoint } from "#/model/endpoint.ts";
import type { Balancer, Member } from "./balancer.ts";
import { balancerOf, balancing, BY_USER, endpoints } from "./testing.ts";

const KEYS = Array.from({ length: 20_000 }, (_, i) => `user-${i}`);
const HASHED = balancing("consistent-hash", BY_USER);

function owners(over: Balancer<string>, keys: readonly string[] = KEYS): string[] {
  return keys.map((key) => over.pick(0, [], ["X-User", key])!.extra);
}

test("all clients send a key to the same endpoint, in whatever order and by whatever changes they learned of the endpoints", () => {
  const set = endpoints(12);
  const expected = owners(balancerOf(set, HASHED));
  assert.deepEqual(owners(balancerOf([...set].reverse(), HASHED, { seed: 99 })), expected);
  const late = balancerOf(set.slice(3, 9), HASHED);
  owners(late, KEYS.slice(0, 5_000));
  late.update([...set.slice(0, 7), ...endpoints(20).slice(15)], 1);
  owners(late, KEYS.slice(0, 9_000));
  late.update(set, 2);
  assert.deepEqual(owners(late), expected);
});

test("a change of one endpoint moves its own keys, 1/n of all, and no others", () => {
  for (const n of [2, 10, 50]) {
    const set = endpoints(n);
    const over = balancerOf(set, HASHED);
    const before = owners(over);
    over.update(set.slice(1), 1);
    const without = owners(over);
    let moved = 0;
    for (const [i, owner] of before.entries()) {
      if (owner === "10.1.0.0") moved++;
      else assert.equal(without[i], owner);
    }
    // ε: keys and slots are drawn by a hash, three deviations of which are 0.01 at most here.
    assert.ok(
      moved / KEYS.length <= 1 / n + 0.01,
      `${moved} of ${KEYS.length} keys moved with ${n} endpoints`,
    );
    over.update(set, 2);
    assert.deepEqual(owners(over), before, "and back");
  }
});

test("a heavier weight takes keys from others, and gives none away", () => {
  const set = endpoints(5, (i) => ({ weight: 10_000 + i }));
  const over = balancerOf(set, HASHED);
  const before = owners(over);
  over.update(
    set.map((each, i): Endpoint => (i === 0 ? { ...each, weight: 20_000 } : each)),
    1,
  );
  const after = owners(over);
  for (const [i, owner] of after.entries()) if (owner !== before[i]) assert.equal(owner, "10.1.0.0");
  const share = after.filter((owner) => owner === "10.1.0.0").length / KEYS.length;
  assert.ok(Math.abs(share - 2 / 6) < 0.015, String(share));
});

test("keys of an endpoint that is set aside spread over the others, and come back", () => {
  const over = balancerOf(endpoints(8), HASHED);
  const before = owners(over);
  const [first] = over.members;
  over.connectFailed(first!, 0);
  const meanwhile = owners(over);
  const heirs = new Set<string>();
  for (const [i, owner] of before.entries()) {
    if (owner === first!.extra) heirs.add(meanwhile[i]!);
    else assert.equal(meanwhile[i], owner);
  }
  assert.deepEqual([heirs.size, heirs.has(first!.extra)], [7, false]);
  over.observe(first!, 5, false, 1);
  assert.deepEqual(owners(over), before);
});

test("an endpoint that is set aside is tried by a key of its own", () => {
  const over = balancerOf(endpoints(8), HASHED);
  const [first] = over.members;
  const mine = KEYS.find((key) => over.pick(0, [], ["x-user", key]) === first)!;
  const other = KEYS.find((key) => over.pick(0, [], ["x-user", key]) !== first)!;
  over.connectFailed(first!, 0);
  assert.notEqual(over.pick(1_000, [], ["x-user", other]), first);
  assert.equal(over.pick(1_000, [], ["x-user", mine]), first);
  assert.notEqual(over.pick(1_000, [], ["x-user", mine]), first, "by one request at a time");
});

test("the first part of the key that a request has decides: header, cookie, source", () => {
  const hashOn = [
    { kind: "header", name: "X-Tenant" },
    { kind: "cookie", name: "sid" },
    { kind: "source" },
  ] as const;
  const client = { id: "shop/front-1", zone: "" };
  const over = balancerOf(endpoints(50), balancing("consistent-hash", hashOn), { client });
  const of = (...fields: string[]): string => over.pick(0, [], fields)!.extra;
  assert.equal(of("x-tenant", "a", "cookie", "sid=1"), of("cookie", "sid=2", "X-TENANT", "a"));
  assert.equal(of("cookie", "theme=dark; sid=7"), of("Cookie", "theme=light", "cookie", "sid=7; x=y"));
  assert.equal(of(), of("x-other", "b"));
  assert.equal(over.pick(0, [])!.extra, of(), "a connection has its source");
  const parts = [of("x-tenant", "a"), of("cookie", "sid=b"), of("cookie", "sid=c"), of()];
  assert.equal(new Set(parts).size, parts.length);
});

test("without a key requests are balanced as by default", () => {
  const over = balancerOf(endpoints(2), HASHED);
  over.begin(over.members[0]!);
  for (let i = 0; i < 20; i++) assert.equal(over.pick(0, [], ["x-other", "a"]), over.members[1]);
});

test("no endpoint has more than its bounded share of what is under way, whatever the keys", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 30 }),
      fc.integer({ min: 100, max: 300 }),
      fc.boolean(),
      fc.array(fc.tuple(fc.nat(3), fc.boolean()), { maxLength: 400 }),
      (n, percent, isUneven, steps) => {
        const set = endpoints(n, (i) => ({ weight: isUneven ? 5_000 * (1 + (i % 5)) : 10_000 }));
        const over = balancerOf(set, balancing("consistent-hash", BY_USER, percent / 100));
        const weights = set.reduce((sum, { weight }) => sum + weight, 0);
        const under: Member<string>[] = [];
        for (const [key, ends] of steps) {
          const member = over.pick(0, [], ["x-user", `hot-${key}`])!;
          over.begin(member);
          under.push(member);
          const bound = Math.ceil((percent * under.length * member.endpoint.weight) / (100 * weights));
          assert.ok(member.pending <= bound, `${member.pending} of ${under.length}, bound ${bound}`);
          if (ends) over.end(under.shift()!, 0);
        }
      },
    ),
  );
});

test("one hot key fills its own endpoint to the bound, then the same next ones", () => {
  const orders = [3, 4].map((seed) => {
    const over = balancerOf(endpoints(4), balancing("consistent-hash", BY_USER, 1.25), { seed });
    return Array.from({ length: 8 }, () => {
      const member = over.pick(0, [], ["x-user", "hot"])!;
      over.begin(member);
      return member.extra;
    });
  });
  assert.deepEqual(orders[0], orders[1]);
  const [own, second] = [...new Set(orders[0])];
  // ⌈1.25 · 8 / 4⌉ = 3.
  for (const ip of [own, second]) assert.equal(orders[0]!.filter((each) => each === ip).length, 3);
});

test("bounds are shares of those in use, and what is full goes to whoever has room, however slow", () => {
  const over = balancerOf(endpoints(4), balancing("consistent-hash", BY_USER, 1.25));
  for (const member of over.members.slice(0, 2)) over.connectFailed(member, 0);
  for (let i = 0; i < 8; i++) over.begin(over.pick(0, [], ["x-user", "hot"])!);
  // ⌈1.25 · 8 / 2⌉ = 5.
  assert.deepEqual(over.members.map(({ pending }) => pending).toSorted(), [0, 0, 3, 5]);

  const many = balancerOf(endpoints(200), balancing("consistent-hash", BY_USER, 1));
  const [free, ...full] = many.members;
  for (const member of full) many.begin(member);
  many.observe(free!, 10_000, false, 0);
  for (let i = 0; i < 50; i++) assert.equal(many.pick(0, [], ["x-user", String(i)]), free);
});
