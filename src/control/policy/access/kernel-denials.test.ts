import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { IpAddress } from "#/base/address.ts";
import type { AccessPolicy, AccessRule, AccessSource, PeerMatch } from "#/model/access.ts";
import { networkContains, parseNetwork } from "#/stack/networks.ts";
import { kernelDenialsOf } from "./kernel-denials.ts";

const MACHINE = "10.201.0.1";
const source = { kind: "AuthorizationPolicy", namespace: "shop", name: "p", section: "0" };
const rule = (changes: Partial<AccessRule>): AccessRule =>
  ({
    action: "deny",
    stage: "both",
    source,
    sources: null,
    requests: null,
    route: null,
    layer: "both",
    ...changes,
  }) as AccessRule;
const policy = (...rules: AccessRule[]): AccessPolicy => ({ routes: [], rules });
const from = (net: string, except: string[] = [], peer: PeerMatch = { kind: "anyone" }): AccessSource => ({
  peer,
  networks: [{ net, except }],
});
const denied = (...rules: AccessRule[]): readonly string[] => kernelDenialsOf(policy(...rules), MACHINE);
const holds = (list: readonly string[], ip: string): boolean =>
  list.some((net) => networkContains(parseNetwork(net)!, ip as IpAddress));

test("a DENY rule by address alone is the kernel's; one that looks at more, or does not decide, the sidecar's", () => {
  assert.deepEqual(denied(rule({ sources: [from("192.0.2.0/24")] })), ["192.0.2.0/24"]);
  assert.deepEqual(
    denied(rule({ sources: [from("192.0.2.7"), from("10.9.0.0/16", [], { kind: "authenticated" })] })),
    ["192.0.2.7/32"],
  );
  for (const changes of [
    { action: "allow" },
    { action: "restrict" },
    { action: "audit" },
    { stage: "proposed" },
    { requests: [] },
    { route: 0 },
    { layer: "connections" },
    { sources: [] },
    { sources: [from("192.0.2.0/24", [], { kind: "unauthenticated" })] },
    { sources: [{ peer: { kind: "authenticated" }, networks: null }] },
    { sources: [from("nonsense")] },
    { sources: [from("192.0.2.0/24", ["nonsense"])] },
  ] as Partial<AccessRule>[])
    assert.deepEqual(
      denied(rule({ sources: [from("192.0.2.0/24")], ...changes })),
      [],
      JSON.stringify(changes),
    );
});

test("exceptions, loopback and the machine's own address are never among them", () => {
  const some = denied(rule({ sources: [from("192.0.2.0/24", ["192.0.2.64/26", "192.0.2.1"])] }));
  for (const ip of ["192.0.2.64", "192.0.2.127", "192.0.2.1", "192.0.3.0"])
    assert.equal(holds(some, ip), false, ip);
  for (const ip of ["192.0.2.0", "192.0.2.2", "192.0.2.63", "192.0.2.128", "192.0.2.255"])
    assert.ok(holds(some, ip), ip);
  const all = denied(rule({}));
  for (const ip of ["127.0.0.1", "127.255.0.1", "::1", MACHINE]) assert.equal(holds(all, ip), false, ip);
  for (const ip of ["10.201.0.2", "8.8.8.8", "128.0.0.1", "fd00::1", "::2"]) assert.ok(holds(all, ip), ip);
});

test("what one rule excepts another may refuse", () => {
  const list = denied(
    rule({ sources: [from("10.0.0.0/8", ["10.1.0.0/16"])] }),
    rule({ sources: [from("10.1.2.0/24")] }),
  );
  assert.deepEqual(
    ["10.1.1.1", "10.1.2.1", "10.2.0.1"].map((ip) => holds(list, ip)),
    [false, true, true],
  );
});

test("more networks than fit leave their rule to the sidecar, and others in the kernel", () => {
  const many = Array.from({ length: 300 }, (_, at) =>
    from(`198.51.${Math.floor(at / 100)}.${(at % 100) * 2}/32`),
  );
  assert.deepEqual(denied(rule({ sources: many }), rule({ sources: [from("192.0.2.0/24")] })), [
    "192.0.2.0/24",
  ]);
});

test("an address is refused by the kernel exactly when a network holds it and no exception does", () => {
  const net = fc
    .tuple(fc.nat(3), fc.nat(255), fc.integer({ min: 20, max: 32 }))
    .map(([a, b, bits]) => `192.0.${a}.${b}/${bits}`);
  fc.assert(
    fc.property(net, fc.array(net, { maxLength: 4 }), fc.nat(3), fc.nat(255), (outer, except, a, b) => {
      const ip = `192.0.${a}.${b}`;
      const expected = holds([outer], ip) && !holds(except, ip);
      assert.equal(holds(denied(rule({ sources: [from(outer, except)] })), ip), expected);
    }),
    { numRuns: 500 },
  );
});
