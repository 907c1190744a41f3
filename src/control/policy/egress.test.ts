import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIp } from "#/base/address.ts";
import { egressVerdictOf } from "#/model/policy.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { RouteTable } from "#/stack/route/table.ts";
import { findTcpRoute } from "#/stack/route/tcp.ts";
import { targetOfAddress } from "../answers/target.ts";
import { outboundPolicyFor } from "./policy.ts";
import { PolicyWorld } from "./testing.ts";

function egress(name: string, spec: string, namespace = "shop"): string {
  return `---\napiVersion: pillion.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec: ${spec}\n`;
}

interface Asked {
  readonly namespace?: string;
  /** Null: a pod that is not known. */
  readonly labels?: Readonly<Record<string, string>> | null;
}

function ask(
  world: PolicyWorld,
  address: string,
  { namespace = "shop", labels = {} }: Asked = {},
): OutboundPolicy {
  const [host, port] = address.split("|") as [string, string];
  const client = { namespace, serviceAccount: "default", ...(labels === null ? {} : { labels }) };
  return outboundPolicyFor(world.view, targetOfAddress(world.view, parseIp(host)!, Number(port)), client);
}

/** What becomes of a request to a host, and of a connection by a server name. */
function verdicts(policy: OutboundPolicy, host: string): readonly [http: string, tcp: string] {
  const head = { method: "GET", scheme: "http", authority: host, path: "/", fields: [], version: "1.1" };
  const rule = new RouteTable(policy.http).find(head as never);
  assert.ok(rule);
  const fail = rule.rule.filters.find((filter) => filter.kind === "fail");
  const tcp = findTcpRoute(policy.tcp, host === "" ? null : host)!;
  // The section is told, the rest is done: they must agree.
  assert.equal(egressVerdictOf(rule.route.source) === "deny", fail?.status === 403);
  assert.equal(egressVerdictOf(tcp.source) === "deny", tcp.refusal !== null);
  assert.equal(rule.rule.backends.length === 0, fail !== undefined);
  return [egressVerdictOf(rule.route.source) ?? "plain", egressVerdictOf(tcp.source) ?? "plain"];
}

const plain = ["plain", "plain"];
const allow = ["allow", "allow"];
const denied = ["deny", "deny"];
const wouldDeny = ["would-deny", "would-deny"];

test("without an EgressPolicy, or with mode Allow, what leaves is forwarded", () => {
  for (const text of ["", egress("e", "{mode: Allow}"), egress("e", "{mode: Deny}", "other")])
    assert.deepEqual(verdicts(ask(new PolicyWorld(text), "192.0.2.1|80"), "a.example"), plain, text);
});

test("an allow-list passes addresses and ports as without a policy, and refuses the rest with the policy's name", () => {
  const world = new PolicyWorld(
    egress(
      "e",
      "{mode: Deny, allow: [{cidrs: [192.0.2.0/24, '2001:db8::/32'], ports: [443]}, {ports: [123]}]}",
    ),
  );
  for (const [address, expected] of [
    ["192.0.2.200|443", plain],
    ["2001:db8::1|443", plain],
    ["198.51.100.1|123", plain],
    ["192.0.2.200|80", denied],
    ["192.0.3.1|443", denied],
    ["2001:db9::1|443", denied],
  ] as const)
    assert.deepEqual(verdicts(ask(world, address), "a.example"), expected, address);
  const { http, tcp, backend } = ask(world, "192.0.3.1|443");
  const { kind, namespace, name } = http[0]!.source;
  assert.deepEqual([kind, namespace, name], ["EgressPolicy", "shop", "e"]);
  assert.match(tcp[0]!.refusal ?? "", /^egress to 192\.0\.3\.1:443 is denied: no entry of the allow-list/);
  assert.equal(backend.kind, "forbidden");
  assert.deepEqual(world.conditions("EgressPolicy", "shop/e"), [""]);
});

test("hosts are matched exactly or below a wildcard, only where the entry's addresses and ports hold too", () => {
  const world = new PolicyWorld(
    egress(
      "e",
      "{mode: Deny, allow: [{hosts: [api.example, '*.good.example']}, {hosts: [near.example], cidrs: [192.0.2.0/24]}, {hosts: [p.example], ports: [8080]}]}",
    ),
  );
  for (const [address, host, expected] of [
    ["203.0.113.1|80", "api.example", allow],
    ["203.0.113.1|80", "API.example", allow],
    ["203.0.113.1|80", "x.api.example", denied],
    ["203.0.113.1|80", "x.y.good.example", allow],
    ["203.0.113.1|80", "good.example", denied],
    ["203.0.113.1|80", "notgood.example", denied],
    ["203.0.113.1|80", "near.example", denied],
    ["192.0.2.7|80", "near.example", allow],
    ["203.0.113.1|80", "p.example", denied],
    ["203.0.113.1|8080", "p.example", allow],
    ["203.0.113.1|80", "", denied],
  ] as const)
    assert.deepEqual(verdicts(ask(world, address), host), expected, `${address} ${host}`);
});

test("audit lets everything through and says what a deny would refuse", () => {
  const world = new PolicyWorld(egress("e", "{mode: Audit, allow: [{hosts: [api.example]}]}"));
  const policy = ask(world, "203.0.113.1|443");
  assert.deepEqual(verdicts(policy, "api.example"), allow);
  assert.deepEqual(verdicts(policy, "bad.example"), wouldDeny);
  assert.equal(policy.backend.kind, "forward");
});

test("of several policies the strictest mode counts with the allow-lists of all, by the pod's labels", () => {
  const world = new PolicyWorld(
    egress("all", "{mode: Audit, allow: [{cidrs: [192.0.2.0/24]}]}") +
      egress("db", "{mode: Deny, selector: {matchLabels: {app: db}}, allow: [{cidrs: [198.51.100.0/24]}]}"),
  );
  const db = { labels: { app: "db" } };
  assert.deepEqual(verdicts(ask(world, "203.0.113.1|80"), "h"), wouldDeny);
  assert.deepEqual(verdicts(ask(world, "198.51.100.1|80"), "h"), wouldDeny);
  assert.deepEqual(verdicts(ask(world, "203.0.113.1|80", db), "h"), denied);
  assert.deepEqual(verdicts(ask(world, "192.0.2.1|80", db), "h"), plain);
  assert.deepEqual(verdicts(ask(world, "198.51.100.1|80", db), "h"), plain);
  assert.equal(ask(world, "203.0.113.1|80", db).http.at(-1)?.source.name, "db");
  // Nobody knows whether it is one of them.
  const unknown = { labels: null };
  assert.deepEqual(verdicts(ask(world, "198.51.100.1|80", unknown), "h"), denied);
  assert.deepEqual(verdicts(ask(world, "192.0.2.1|80", unknown), "h"), plain);
});

test("the mesh's own DNS is not outside", () => {
  const world = new PolicyWorld(egress("e", "{mode: Deny}"));
  const { gatewayIp } = world.view.node;
  assert.deepEqual(verdicts(ask(world, `${gatewayIp}|53`), "h"), plain);
  assert.deepEqual(verdicts(ask(world, `${gatewayIp}|80`), "h"), denied);
});

test("the status says what hosts without addresses are worth", () => {
  const world = new PolicyWorld(
    egress("a", "{mode: Deny, allow: [{hosts: [a.example]}]}") +
      egress("b", "{mode: Deny, allow: [{hosts: [a.example], cidrs: [192.0.2.0/24]}]}"),
  );
  const message = (name: string): string | undefined =>
    world.view.policy.statuses.get(`EgressPolicy/shop/${name}`)?.[0]?.conditions[0]?.message;
  assert.match(message("a") ?? "", /stop nobody who lies/);
  assert.equal(message("b"), "");
});
