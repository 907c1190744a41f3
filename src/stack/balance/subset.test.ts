import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { balancerOf, endpoints } from "./testing.ts";
import { subsetOf } from "./subset.ts";

test("a client's subset is always the same, and changes by one where one endpoint comes or goes", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 80 }),
      fc.integer({ min: 1, max: 20 }),
      fc.string(),
      fc.nat(),
      (count, size, client, at) => {
        const set = endpoints(count);
        const subset = subsetOf(set, size, client);
        assert.equal(subset.length, Math.min(size, count));
        assert.deepEqual(new Set(subsetOf([...set].reverse(), size, client)), new Set(subset));
        const less = set.filter((_, i) => i !== at % count);
        const kept = subsetOf(less, size, client).filter((each) => subset.includes(each));
        const lost = subset.includes(set[at % count]!) ? 1 : 0;
        assert.equal(kept.length, subset.length - lost);
      },
    ),
  );
});

test("over many clients each endpoint is used by as many, but for chance", () => {
  const set = endpoints(100);
  const users = new Map<string, number>();
  for (let client = 0; client < 2_000; client++) {
    for (const { address } of subsetOf(set, 10, `front-${client}.shop`))
      users.set(address.ip, (users.get(address.ip) ?? 0) + 1);
  }
  // 200 each, and five deviations of a draw by chance.
  for (const [ip, count] of users) assert.ok(Math.abs(count - 200) < 68, `${ip}: ${count}`);
  assert.equal(users.size, 100);
});

test("a balancer makes members of its client's subset alone; with a zone preference so many here and elsewhere", () => {
  const client = { id: "front-1.shop", zone: "a" };
  const plain = balancerOf(endpoints(50), { subsetSize: 5 }, { client });
  assert.equal(plain.members.length, 5);
  const set = endpoints(50, (i) => ({ labels: { zone: i < 8 ? "a" : "b" } }));
  const zone = { spillAtPending: 10, healthyShareMin: 0.5 };
  const zoned = balancerOf(set, { subsetSize: 5, zone }, { client });
  const local = zoned.members.filter(({ endpoint }) => endpoint.labels["zone"] === "a");
  assert.deepEqual([zoned.members.length, local.length], [10, 5]);
});

test("a change of the subset's size keeps those that stay", () => {
  const client = { id: "front-1.shop", zone: "" };
  const over = balancerOf(endpoints(50), { subsetSize: 5 }, { client });
  const before = [...over.members];
  over.configure({ ...over.traffic, subsetSize: 8 }, 1);
  assert.equal(over.members.length, 8);
  for (const member of before) assert.ok(over.members.includes(member));
});
