import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { VirtualClock } from "#/base/virtual-clock.ts";
import { SILENT } from "#/net/log.ts";
import { OutsideNames } from "./outside-names.ts";

class World {
  readonly clock = new VirtualClock();
  /** What is answered: addresses, or null for an error. */
  readonly records = new Map<string, readonly string[] | null>();
  ttl = 60;
  asked = 0;
  changes = 0;
  readonly names = new OutsideNames({
    clock: this.clock,
    log: SILENT,
    resolve: async (host) => {
      this.asked++;
      const found = this.records.get(host) ?? null;
      if (found === null) throw new Error("no such name");
      return await Promise.resolve(found.map((address) => ({ address, ttl: this.ttl })));
    },
    changed: () => void this.changes++,
  });

  async after(ms: number): Promise<void> {
    this.clock.run(ms);
    await turn();
  }

  of(host: string): readonly string[] | undefined {
    return this.names.addresses.get(host);
  }
}

test("a name is asked for again when its record's time is over, and a change is told", async () => {
  const world = new World();
  world.records.set("a.example", ["192.0.2.2", "192.0.2.1"]);
  world.names.want(["a.example"]);
  await world.after(0);
  assert.deepEqual([world.of("a.example"), world.asked, world.changes], [["192.0.2.1", "192.0.2.2"], 1, 1]);
  await world.after(59_000);
  assert.equal(world.asked, 1);
  world.records.set("a.example", ["192.0.2.1", "192.0.2.2"]);
  await world.after(1_000);
  assert.deepEqual([world.asked, world.changes], [2, 1], "another order is no change");
  world.records.set("a.example", ["192.0.2.9"]);
  await world.after(60_000);
  assert.deepEqual([world.of("a.example"), world.changes], [["192.0.2.9"], 2]);
});

test("records that live too short or too long are asked for again within bounds", async () => {
  for (const [ttl, againMs] of [
    [0, 5_000],
    [86_400, 300_000],
  ] as const) {
    const world = new World();
    world.ttl = ttl;
    world.records.set("a.example", ["192.0.2.1"]);
    world.names.want(["a.example"]);
    await world.after(0);
    await world.after(againMs - 1);
    assert.equal(world.asked, 1, String(ttl));
    await world.after(1);
    assert.equal(world.asked, 2, String(ttl));
  }
});

test("what was good last stays while a name cannot be resolved, and it is tried again", async () => {
  const world = new World();
  world.records.set("a.example", ["192.0.2.1"]);
  world.names.want(["a.example"]);
  await world.after(0);
  for (const bad of [null, [], ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1"]]) {
    world.records.set("a.example", bad);
    await world.after(300_000);
    assert.deepEqual(world.of("a.example"), ["192.0.2.1"]);
  }
  world.records.set("a.example", ["127.0.0.1", "192.0.2.3"]);
  await world.after(5_000);
  assert.deepEqual(world.of("a.example"), ["192.0.2.3"]);
});

test("names are bounded, and forgotten with their timers when nobody wants them", async () => {
  const world = new World();
  const hosts = Array.from({ length: 300 }, (_, i) => `h${i}.example`);
  for (const host of hosts) world.records.set(host, ["192.0.2.1"]);
  world.names.want(hosts);
  await world.after(0);
  assert.deepEqual([world.names.addresses.size, world.clock.timers], [256, 256]);
  world.names.want(["h299.example"]);
  await world.after(0);
  assert.deepEqual([[...world.names.addresses.keys()], world.clock.timers], [["h299.example"], 1]);
  world.names.close();
  assert.equal(world.clock.timers, 0);
});
