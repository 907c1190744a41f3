import assert from "node:assert/strict";
import { test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import { AddressPool, SlotPool } from "./addresses.ts";

test("addresses skip the network's, the gateway's and the broadcast", () => {
  const pool = new AddressPool("10.9.0.0/29");
  assert.deepEqual(
    Array.from({ length: 5 }, () => pool.take()),
    ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"],
  );
  assert.throws(() => pool.take(), /all 5 pod addresses are taken/);
});

test("an address comes back into use as late as possible", () => {
  const pool = new AddressPool("10.9.0.0/29");
  const first = pool.take();
  pool.release(first);
  assert.deepEqual([pool.take(), pool.take(), pool.take(), pool.take(), pool.take()].at(-1), first);
});

test("an earlier agent's addresses are not given again", () => {
  const pool = new AddressPool("10.9.0.0/29");
  pool.reserve("10.9.0.4" as IpAddress);
  assert.equal(pool.take(), "10.9.0.5");
});

test("slots are the lowest that are free", () => {
  const pool = new SlotPool();
  pool.reserve(1);
  assert.deepEqual([pool.take(), pool.take()], [0, 2]);
  pool.release(0);
  assert.equal(pool.take(), 0);
});
