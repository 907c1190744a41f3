import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { IpAddress } from "#/base/address.ts";
import type { PodInterception, ServiceVip } from "../pod.ts";
import { renderRules } from "./rules.ts";

const POD: PodInterception = {
  instance: "demo",
  pod: "shop/web",
  netnsPath: "/run/netns/web",
  appCgroup: "/sys/fs/cgroup/web/app",
  sidecarCgroup: "/sys/fs/cgroup/web/sidecar",
  podIps: ["10.0.0.2" as IpAddress],
  mode: "meshed",
  sidecarUid: 2102,
  skipInboundPorts: [],
  skipOutboundPorts: [],
  letThroughCidrs: [],
};
const VIP: ServiceVip = {
  ip: "10.96.0.10" as IpAddress,
  port: 53,
  protocol: "udp",
  backends: [
    { ip: "10.0.0.3" as IpAddress, port: 5353 },
    { ip: "10.0.0.4" as IpAddress, port: 5353 },
  ],
};

function chain(rules: string, name: string): string[] {
  const lines = rules.split("\n");
  const from = lines.indexOf(`chain ${name} {`);
  assert.notEqual(from, -1, `${name} in:\n${rules}`);
  return lines.slice(from + 2, lines.indexOf("}", from));
}

test("a meshed pod's own traffic goes its own way, all other TCP to the sidecar, last", () => {
  const rules = chain(renderRules(POD, []), "pillion_output");
  assert.deepEqual(rules, [
    "meta skuid 2102 return",
    "ip daddr @pillion_own4 return",
    "ip6 daddr @pillion_own6 return",
    "meta l4proto udp goto pillion_services",
    "meta l4proto != tcp return",
    "meta l4proto tcp redirect to :4140",
  ]);
});

test("inbound: the admin port always, then what is listed, then the sidecar", () => {
  const rules = chain(
    renderRules({ ...POD, skipInboundPorts: [22, 22, 9100], skipInboundCidrs: ["10.9.0.0/16"] }, []),
    "pillion_prerouting",
  );
  assert.deepEqual(rules, [
    'iifname "lo" return',
    "meta l4proto != tcp return",
    "tcp dport { 4191, 22, 9100 } return",
    "ip saddr 10.9.0.0/16 return",
    "meta l4proto tcp redirect to :4143",
  ]);
});

test("what is let through still finds Services, and the guard knows it", () => {
  const rules = renderRules(
    { ...POD, skipOutboundPorts: [25], letThroughCidrs: ["10.8.0.0/16:443", "0.0.0.0/0:9"] },
    [VIP],
  );
  const expected = [
    "tcp dport { 25 }",
    "ip daddr 10.8.0.0/16 tcp dport 443",
    "meta nfproto ipv4 tcp dport 9",
  ];
  for (const match of expected) {
    assert.ok(chain(rules, "pillion_output").includes(`${match} goto pillion_services`), match);
    assert.ok(chain(rules, "pillion_guard").includes(`${match} return`), match);
  }
});

test("a virtual IP is one map lookup and a random backend", () => {
  const rules = renderRules(POD, [VIP]);
  assert.match(rules, /elements = \{ 10\.96\.0\.10 \. udp \. 53 : goto pillion_vip0 \}/);
  assert.match(
    rules,
    /meta l4proto udp dnat ip to numgen random mod 2 map \{ 0 : 10\.0\.0\.3 \. 5353, 1 : 10\.0\.0\.4 \. 5353 \}/,
  );
});

test("of two Services with one address the last counts", () => {
  const rules = renderRules(POD, [VIP, { ...VIP, backends: VIP.backends.slice(0, 1) }]);
  assert.equal(rules.match(/10\.96\.0\.10 \. udp \. 53/g)?.length, 1);
  assert.match(rules, /numgen random mod 1 map/);
});

test("a Service with nobody ready is refused, not forgotten", () => {
  const rules = renderRules(POD, [{ ...VIP, backends: [] }]);
  assert.match(rules, /set pillion_dead4 \{ [^}]*10\.96\.0\.10 \. udp \. 53/);
});

test("a pod that is not meshed is not steered, and has no guard against itself", () => {
  const rules = renderRules({ ...POD, mode: "service-only" }, [VIP]);
  assert.doesNotMatch(rules, /redirect|skuid|prerouting/);
  assert.deepEqual(chain(rules, "pillion_output").at(-1), "goto pillion_services");
});

test("where one uid is mapped, the sidecar is known by its source address", () => {
  const rules = renderRules({ ...POD, exempt: { sourceAddress: "10.0.0.200" as IpAddress } }, []);
  assert.doesNotMatch(rules, /skuid/);
  assert.equal(chain(rules, "pillion_output")[0], "ip saddr 10.0.0.200 return");
});

test("nothing but addresses, numbers and our own words gets into the rules", () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1 }), (text) => {
      const poisoned = [
        { podIps: [text as IpAddress] },
        { letThroughCidrs: [text] },
        { skipInboundCidrs: [text] },
        { exempt: { sourceAddress: text as IpAddress } },
      ];
      for (const change of poisoned) {
        try {
          assert.match(renderRules({ ...POD, ...change }, []), /^[a-z0-9_ .:;,{}@!=/"\n><-]+$/i);
        } catch (error) {
          assert.equal((error as { code?: string }).code, "BAD_INPUT");
        }
      }
    }),
  );
});
