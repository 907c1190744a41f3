import assert from "node:assert/strict";
import { test } from "node:test";
import { verdict as verdictOf } from "#/kernel/seccomp/testing.ts";
import { seccompFilter } from "./seccomp.ts";

function verdict(arch: string, audit: number, number: number, arg0: number = 0): string {
  return verdictOf(seccompFilter({ hasRings: true }, arch) ?? assert.fail(), audit, number, arg0);
}

test("user namespaces are refused by either call, other namespaces and threads are left to the kernel", () => {
  for (const [arch, audit, clone, unshare] of [
    ["x64", 0xc000_003e, 56, 272],
    ["x64", 0x4000_0003, 120, 310],
    ["arm64", 0xc000_00b7, 220, 97],
  ] as const) {
    for (const call of [clone, unshare]) {
      assert.equal(verdict(arch, audit, call, 0x1000_0000), "errno 1");
      assert.equal(verdict(arch, audit, call, 0x1002_0000), "errno 1");
      assert.equal(verdict(arch, audit, call, 0x0002_0000), "allow");
      assert.equal(verdict(arch, audit, call, 0x003d_0f00), "allow");
    }
    assert.equal(verdict(arch, audit, 435), "errno 38", "clone3");
  }
});

test("keyrings, bpf and their like are refused, ordinary calls are not", () => {
  for (const number of [248, 249, 250, 321, 298, 323, 304])
    assert.equal(verdict("x64", 0xc000_003e, number), "errno 1", String(number));
  for (const number of [0, 1, 59, 101, 231, 257, 425])
    assert.equal(verdict("x64", 0xc000_003e, number), "allow", String(number));
});

test("there is no way around by another architecture's numbers", () => {
  assert.equal(verdict("x64", 0xc000_003e, 0x4000_0000 + 272, 0x1000_0000), "errno 38");
  assert.equal(verdict("x64", 0xc000_00b7, 0), "errno 38");
  assert.equal(seccompFilter({ hasRings: true }, "riscv64"), null);
});

test("the mesh's own processes start without rings for system calls, which go past filters", () => {
  const filter = seccompFilter({ hasRings: false }, "x64") ?? assert.fail();
  assert.equal(verdictOf(filter, 0xc000_003e, 425), "errno 38");
  assert.equal(verdictOf(filter, 0xc000_003e, 1), "allow");
});
