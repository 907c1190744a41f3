import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { InterceptionError } from "../errors.ts";
import { HOOKS, objectFile } from "./hooks.ts";
import { checkLayout, SIZE } from "./layout.ts";
import { readSpec, type ObjectSpec } from "./spec.ts";

const bytesOf = (hook: (typeof HOOKS)[number]): Buffer => readFileSync(objectFile(hook));
const specs = new Map<string, ObjectSpec>(HOOKS.map((hook) => [hook.name, readSpec(bytesOf(hook))]));

test("every committed object is a hook, and every hook has its object", () => {
  const folder = join(import.meta.dirname, "../../../bpf/out");
  const expected = HOOKS.map((hook) => `${hook.name}.bpf.o`);
  assert.deepEqual(new Set(readdirSync(folder)), new Set(expected));
});

test("each object holds one program, named for its hook and placed for it", () => {
  for (const [name, spec] of specs) {
    assert.deepEqual(
      spec.programs.map((program) => program.name),
      [`mesh_${name}`],
    );
    const section = spec.programs[0]?.section ?? "";
    const expected =
      name === "sk_lookup" ? "sk_lookup" : name.startsWith("sockops") ? "sockops" : `cgroup/${name}`;
    assert.equal(section, expected);
    assert.equal(spec.license, "Apache-2.0");
  }
});

test("all objects agree on every map, so that one pin serves them all", () => {
  const first = specs.get("connect4");
  assert.ok(first !== undefined && first.maps.size === 13);
  for (const [name, spec] of specs) assert.deepEqual(spec.maps, first.maps, name);
});

test("every object was built from the layout that layout.ts speaks", () => {
  for (const spec of specs.values()) checkLayout(spec);
});

test("another layout is refused", () => {
  const spec = specs.get("connect4");
  assert.ok(spec !== undefined);
  const structs = new Map(spec.structs).set("mesh_settings", {
    bytes: SIZE.mesh_settings + 4,
    members: new Map(),
  });
  assert.throws(() => checkLayout({ ...spec, structs }), /of another version .*mesh_settings/);
});

test("members are where layout.ts writes and reads them", () => {
  const offsets: Record<string, Record<string, number>> = {
    mesh_settings: {
      abi: 0,
      mode: 4,
      inbound_port: 6,
      outbound_port: 8,
      admin_port: 10,
      source4: 12,
      source6: 28,
    },
    mesh_port_set: { word: 0 },
    mesh_cidr_key: { prefix_bits: 0, direction: 4, port: 6, ip: 8 },
    mesh_endpoint: { ip: 0, port: 16 },
    mesh_service_key: { ip: 0, port: 16, protocol: 18 },
    mesh_service: { id: 0, backends: 4 },
    mesh_backend_key: { id: 0, slot: 4 },
    mesh_traffic_key: { target: 0, direction: 20, path: 22 },
    mesh_traffic: { connections: 0, failures: 8, bytes_in: 16, bytes_out: 24, retransmits: 32, rtt_us: 40 },
  };
  // A struct has BTF in the objects whose program uses it.
  const structs = new Map([...specs.values()].flatMap((spec) => [...spec.structs]));
  for (const [name, members] of Object.entries(offsets))
    for (const [member, offset] of Object.entries(members))
      assert.equal(structs.get(name)?.members.get(member), offset, `${name}.${member}`);
});

test("cut or damaged objects are refused, and nothing else happens", () => {
  const whole = bytesOf(HOOKS[0]);
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.boolean(), (at, value, cut) => {
      const damaged = cut ? whole.subarray(0, at) : Buffer.from(whole).fill(value, at, at + 1);
      try {
        readSpec(damaged);
      } catch (error) {
        assert.ok(error instanceof InterceptionError, String(error));
      }
    }),
    { numRuns: 300 },
  );
});
