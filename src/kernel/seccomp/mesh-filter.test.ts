import assert from "node:assert/strict";
import { test } from "node:test";
import { meshFilter } from "./mesh-filter.ts";
import { verdict } from "./testing.ts";

const X64 = 0xc000_003e;
const reads = meshFilter("nothing", "x64") ?? assert.fail();
const writes = meshFilter("files", "x64") ?? assert.fail();
const arm = meshFilter("nothing", "arm64") ?? assert.fail();

test("what a proxy does all day is allowed, what only an attacker does ends it, all else fails", () => {
  for (const number of [0, 1, 20, 9, 10, 202, 232, 281, 288, 42, 45, 262, 318])
    assert.equal(verdict(reads, X64, number), "allow", String(number));
  // execve, execveat, fork, ptrace, process_vm_readv, bpf, mount, init_module, keyctl, userfaultfd, setns, setuid, io_uring_enter
  for (const number of [59, 322, 57, 101, 310, 321, 165, 175, 250, 323, 308, 105, 426])
    assert.equal(verdict(writes, X64, number), "kill", String(number));
  // kill, sendfile, memfd_create, and a number that is none yet
  for (const number of [62, 40, 319, 9999])
    assert.equal(verdict(writes, X64, number), "errno 1", String(number));
  for (const number of [435, 437, 425]) assert.equal(verdict(reads, X64, number), "errno 38", String(number));
});

test("files are opened to read alone, but by who may write", () => {
  assert.equal(verdict(reads, X64, 257, 0, 0, 0o2_000_000), "allow");
  for (const flags of [1, 2, 0o100, 0o1000, 0o2000, 0o20_200_000])
    assert.equal(verdict(reads, X64, 257, 0, 0, flags), "errno 13", flags.toString(8));
  assert.equal(verdict(writes, X64, 257, 0, 0, 0o101), "allow");
  for (const number of [82, 87, 83, 77]) {
    assert.equal(verdict(reads, X64, number), "errno 1", String(number));
    assert.equal(verdict(writes, X64, number), "allow", String(number));
  }
  const sockets = meshFilter("sockets", "x64") ?? assert.fail();
  assert.equal(verdict(sockets, X64, 87), "allow", "another's socket goes");
  assert.equal(verdict(sockets, X64, 82), "errno 1");
  assert.equal(verdict(sockets, X64, 257, 0, 0, 0o101), "errno 13");
});

test("threads are made, processes and namespaces are not", () => {
  assert.equal(verdict(reads, X64, 56, 0x3d_0f00), "allow");
  assert.equal(verdict(reads, X64, 56, 0x4111), "kill", "posix_spawn(3)");
  assert.equal(verdict(reads, X64, 56, 0x1000_0000 | 0x1_0000), "kill", "a user namespace");
  assert.equal(verdict(arm, 0xc000_00b7, 220, 0x3d_0f00), "allow");
  assert.equal(verdict(arm, 0xc000_00b7, 220, 17), "kill");
});

test("sockets are streams and datagrams of IP and Unix, and the netlink that resolvers ask", () => {
  const socket = (domain: number, type: number, protocol: number): string =>
    verdict(reads, X64, 41, domain, type, protocol);
  for (const domain of [1, 2, 10])
    for (const type of [1, 2]) assert.equal(socket(domain, type | 0o2_004_000, 0), "allow");
  assert.equal(socket(16, 3 | 0o2_000_000, 0), "allow");
  for (const [domain, type, protocol] of [
    [2, 3, 1], // raw
    [10, 3, 58],
    [17, 3, 3], // packets
    [16, 3, 12], // netlink: the firewall's
    [38, 5, 0], // the kernel's cryptography
    [40, 1, 0], // virtual machines
  ] as const)
    assert.equal(socket(domain, type, protocol), "errno 1", `${domain} ${type} ${protocol}`);
});

test("nobody makes it dumpable again, and of devices only flags are asked", () => {
  assert.equal(verdict(reads, X64, 157, 15), "allow");
  for (const option of [4, 38, 23, 24]) assert.equal(verdict(reads, X64, 157, option), "errno 1");
  assert.equal(verdict(reads, X64, 16, 0, 0x5421), "allow");
  assert.equal(verdict(reads, X64, 16, 0, 0x5412), "errno 1", "TIOCSTI");
});

test("another architecture's numbers are no way around", () => {
  assert.equal(verdict(reads, 0x4000_0003, 1), "kill");
  assert.equal(verdict(reads, X64, 0x4000_0000 + 59), "kill");
  assert.equal(meshFilter("nothing", "riscv64"), null);
});
