import assert from "node:assert/strict";
import { test } from "node:test";
import { seccompFilter } from "./seccomp.ts";

/** Runs the filter as the kernel would: seccomp_data in, verdict out. */
function verdict(arch: string, audit: number, number: number, arg0: number = 0): string {
  const program = seccompFilter(arch);
  assert.ok(program);
  const view = new DataView(program.buffer);
  const data: Record<number, number> = { 0: number, 4: audit, 16: arg0 };
  let accumulator = 0;
  for (let at = 0; at < program.length / 8; at++) {
    const [code, yes, no, value] = [
      view.getUint16(at * 8, true),
      view.getUint8(at * 8 + 2),
      view.getUint8(at * 8 + 3),
      view.getUint32(at * 8 + 4, true),
    ];
    if (code === 0x20) accumulator = data[value] ?? assert.fail("a load from elsewhere");
    else if (code === 0x15) at += accumulator === value ? yes : no;
    else if (code === 0x35) at += accumulator >= value ? yes : no;
    else if (code === 0x45) at += (accumulator & value) !== 0 ? yes : no;
    else if (code === 0x06) return value === 0x7fff_0000 ? "allow" : `errno ${value & 0xffff}`;
    else assert.fail(`unknown code ${code}`);
  }
  return assert.fail("ran off the end");
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
  assert.equal(seccompFilter("riscv64"), null);
});
