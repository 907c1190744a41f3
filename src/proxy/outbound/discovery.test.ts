import assert from "node:assert/strict";
import { test } from "node:test";
import type { IpAddress } from "#/base/address.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import { SILENT } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import type { EndpointSource } from "#/stack/discovery.ts";
import { parseNetwork, type Network } from "#/stack/networks.ts";
import type { ControlApi, EndpointsSink, OutboundSink, Profile } from "../control/control-api.ts";
import { Discovery, type Lookup, type Target } from "./discovery.ts";

/** A control plane that says what the test tells it to. */
class Control implements ControlApi {
  isConnected = true;
  outbound = new Set<OutboundSink>();
  profiles = new Set<(profile: Profile | null) => void>();
  endpoints = new Map<string, EndpointsSink>();
  watchOutbound(_address: unknown, sink: OutboundSink): { cancel(): void } {
    this.outbound.add(sink);
    return { cancel: () => void this.outbound.delete(sink) };
  }
  watchProfile(_address: unknown, profile: (profile: Profile | null) => void): { cancel(): void } {
    this.profiles.add(profile);
    return { cancel: () => void this.profiles.delete(profile) };
  }
  refreshKeys(): { cancel(): void } {
    throw new Error("not asked for here");
  }
  leaseQuota(): { cancel(): void } {
    return { cancel: () => undefined };
  }
  watchEndpoints(path: string, sink: EndpointsSink): { cancel(): void } {
    this.endpoints.set(path, sink);
    return { cancel: () => void this.endpoints.delete(path) };
  }
  watchPort(): { cancel(): void } {
    return { cancel: () => undefined };
  }
  say(policy: OutboundPolicy | "unknown", profile: Profile | null = null): void {
    for (const sink of this.outbound) {
      if (policy === "unknown") sink.unknown();
      else sink.policy(policy);
    }
    for (const tell of this.profiles) tell(profile);
  }
}

const SOURCE = { group: "", kind: "default", namespace: "", name: "t", section: "", port: 0 };
const balancer = (path: string): OutboundPolicy =>
  policyTo(
    { kind: "balancer", source: SOURCE, path, defaultRttMs: 30, decayMs: 1, traffic: null },
    SOURCE,
    "detect",
  );
const WEB = { ip: "10.0.0.1" as IpAddress, port: 80 };
const endpoint = (ip: string, labels = {}): Endpoint => ({
  address: { ip: ip as IpAddress, port: 80 },
  weight: 1,
  identity: null,
  protocolHint: "unknown",
  tunnelPort: null,
  authorityOverride: null,
  labels,
});

/** Of a policy without routes of its own. */
const backendOf = (target: Target): Backend => target.policy.http[0]!.rules[0]!.backends[0]!.backend;
const sourceOf = (target: Target): EndpointSource | null => target.sourceOf(backendOf(target));

const isPending = (lookup: { found: Lookup | null }): boolean => lookup.found === null;

function rig(targetsMax = 4): {
  clock: ManualClock;
  control: Control;
  discovery: Discovery;
  lookup: (ip?: string) => { found: Lookup | null };
} {
  const clock = new ManualClock();
  const control = new Control();
  const settings = {
    answerTimeoutMs: 3000,
    idleMs: 60_000,
    targetsMax,
    meshNetworks: [parseNetwork("10.0.0.0/8") as Network],
  };
  const discovery = new Discovery({ control, clock, log: SILENT, settings });
  const lookup = (ip: string = WEB.ip): { found: Lookup | null } => {
    const result: { found: Lookup | null } = { found: null };
    discovery.lookup({ ip: ip as IpAddress, port: 80 }, (found) => (result.found = found));
    clock.advance(0);
    return result;
  };
  return { clock, control, discovery, lookup };
}

test("waits for policy and profile, then gives one object for all connections", () => {
  const { clock, control, lookup } = rig();
  const first = lookup();
  assert.equal(isPending(first), true);
  for (const sink of control.outbound) sink.policy(balancer("web:80"));
  clock.advance(0);
  assert.equal(isPending(first), true, "the profile is missing");
  control.say(balancer("web:80"));
  clock.advance(0);
  assert(first.found?.kind === "found");
  const second = lookup();
  assert(second.found?.kind === "found");
  assert.equal(second.found.target, first.found.target);
  assert.equal(first.found.target.authority, "web:80");
});

test("two targets with the same path share one source, which follows updates", () => {
  const { clock, control, lookup } = rig();
  const a = lookup("10.0.0.1");
  const b = lookup("10.0.0.2");
  control.say(balancer("web:80"));
  clock.advance(0);
  assert(a.found?.kind === "found" && b.found?.kind === "found");
  const source = sourceOf(a.found.target);
  assert.equal(source, sourceOf(b.found.target));
  let changes = 0;
  source?.subscribe(() => changes++);
  control.endpoints.get("web:80")?.("known", [endpoint("10.1.0.1")]);
  control.endpoints.get("web:80")?.("known", [endpoint("10.1.0.1"), endpoint("10.1.0.2")]);
  clock.advance(0);
  assert.equal(source?.endpoints.length, 2);
  assert.equal(changes, 1, "changes of one turn are told once");
});

test("without an answer, the mesh's own addresses fail and others pass through, within the bound", () => {
  const { clock, lookup } = rig();
  const inside = lookup("10.0.0.9");
  const outside = lookup("93.184.216.34");
  clock.advance(2999);
  assert.equal(isPending(inside), true);
  clock.advance(2);
  assert(inside.found?.kind === "failed");
  assert.equal(inside.found.reason, "no_answer");
  assert(outside.found?.kind === "found");
  const { protocol } = outside.found.target.policy;
  const backend = backendOf(outside.found.target);
  assert(backend.kind === "forward");
  assert.equal(backend.endpoint.identity, null);
  assert.equal(protocol, "detect");
});

test("an address that the control plane knows nothing of goes where its profile says, else straight on", () => {
  const { clock, control, lookup } = rig();
  const pod = lookup();
  control.say("unknown", {
    name: "",
    isOpaque: false,
    endpoint: { ...endpoint("10.0.0.1"), protocolHint: "opaque", tunnelPort: 4143 },
  });
  clock.advance(0);
  assert(pod.found?.kind === "found");
  assert.equal(pod.found.target.policy.protocol, "opaque");
  assert.equal(sourceOf(pod.found.target)?.endpoints[0]?.tunnelPort, 4143);
});

test("an answer is not taken back by a lost stream, a shrug or an empty profile", () => {
  const { clock, control, lookup } = rig();
  const first = lookup();
  control.say(balancer("web:80"), { name: "web", isOpaque: true, endpoint: null });
  clock.advance(0);
  control.say("unknown", null);
  clock.advance(0);
  assert(first.found?.kind === "found");
  assert.equal(first.found.target.policy.protocol, "opaque");
  assert.equal(backendOf(first.found.target).kind, "balancer");
});

test("an idle target goes, unless the control plane is away and could not be asked again", () => {
  const { clock, control, discovery, lookup } = rig();
  const first = lookup();
  control.say(balancer("web:80"));
  clock.advance(0);
  assert(first.found?.kind === "found");
  clock.advance(120_000);
  assert.equal(discovery.targetCount, 1, "it is in use");
  control.isConnected = false;
  first.found.target.release();
  clock.advance(3_600_000);
  assert.equal(discovery.targetCount, 1, "the control plane is away");
  control.isConnected = true;
  clock.advance(60_000);
  assert.equal(discovery.targetCount, 0);
  assert.equal(control.outbound.size, 0, "its streams are closed");
  clock.advance(60_000);
  assert.equal(control.endpoints.size, 0, "and its endpoints' stream later");
});

test("at the bound the longest idle target goes, and with none idle a lookup is refused", () => {
  const { clock, control, discovery, lookup } = rig(2);
  const one = lookup("10.0.0.1");
  const two = lookup("10.0.0.2");
  control.say(balancer("web:80"));
  clock.advance(0);
  const refused = lookup("10.0.0.3");
  assert(refused.found?.kind === "failed");
  assert.equal(refused.found.reason, "too_many_targets");
  assert(one.found?.kind === "found" && two.found?.kind === "found");
  one.found.target.release();
  lookup("10.0.0.3");
  assert.equal(discovery.targetCount, 2);
});

test("a refusal by the control plane fails connections, and a later policy is taken", () => {
  const { clock, control, lookup } = rig();
  const first = lookup();
  for (const sink of control.outbound) sink.refused("not yours");
  clock.advance(0);
  assert(first.found?.kind === "failed");
  assert.match(first.found.message, /not yours/);
  control.say(balancer("web:80"));
  clock.advance(0);
  assert.equal(lookup().found?.kind, "found");
});

test("a source that was let go and made again is not taken for the old one, which nobody updates", () => {
  const { clock, control, lookup } = rig();
  const held = lookup();
  control.say(balancer("web:80"));
  clock.advance(0);
  assert(held.found?.kind === "found");
  const { target } = held.found;
  const before = sourceOf(target);
  control.say(balancer("canary:80"));
  clock.advance(60_000);
  control.say(balancer("web:80"));
  clock.advance(0);
  assert.notEqual(sourceOf(target), before);
  assert.notEqual(sourceOf(target)?.key, before?.key, "what is kept by key is made anew");
});

test("endpoints are followed for as long as somebody subscribes, whatever leads there", () => {
  const { clock, control, lookup } = rig();
  const { found } = lookup();
  assert.equal(found, null);
  control.say(balancer("web:80"));
  const again = lookup().found;
  assert(again?.kind === "found");
  const subscription = sourceOf(again.target)!.subscribe(() => undefined);
  control.say(balancer("canary:80"));
  clock.advance(300_000);
  assert(control.endpoints.has("web:80"));
  subscription.cancel();
  subscription.cancel();
  clock.advance(300_000);
  assert.deepEqual([...control.endpoints.keys()], ["canary:80"]);
});
