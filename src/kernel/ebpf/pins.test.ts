import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { encodeName, Pins } from "./pins.ts";

test("names are encoded one to one, without dots and slashes", () => {
  assert.equal(encodeName("shop/web-0.v1"), "shop~2fweb-0~2ev1");
  const name = fc.string({ minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(name, name, (a, b) => {
      assert.match(encodeName(a), /^[A-Za-z0-9_~-]+$/);
      const same = Buffer.from(a).equals(Buffer.from(b));
      assert.equal(encodeName(a) === encodeName(b), same);
    }),
  );
});

test("no pod's folder is the machine's", () => {
  const pins = new Pins("demo");
  assert.notEqual(pins.podDir("~machine"), pins.machineDir);
});

test("a name that fits no folder is refused", () => {
  assert.throws(() => encodeName(""), /cannot name a pin/);
  assert.throws(() => encodeName("a".repeat(256)), /cannot name a pin/);
});

test("Services are pinned once per machine, everything else once per pod", () => {
  const pathOf = new Pins("demo").mapOf("shop/web");
  assert.equal(pathOf("mesh_services"), "/sys/fs/bpf/pillion/demo/~machine/mesh_services");
  assert.equal(pathOf("mesh_origins"), "/sys/fs/bpf/pillion/demo/shop~2fweb/mesh_origins");
});
