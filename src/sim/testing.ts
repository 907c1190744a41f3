import type { IpAddress } from "#/base/address.ts";
import type { OutboundPolicy, PolicySource } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { BackendTraffic, InboundLimits } from "#/model/traffic.ts";
import type { Behaviour, CallPlan, ReplicaPlan, ServicePlan, WorkloadPlan, WorldPlan } from "./plan.ts";

/** Parts of worlds for tests, each with defaults that a test changes where it matters. */

export const SOURCE: PolicySource = {
  group: "",
  kind: "default",
  namespace: "",
  name: "http",
  section: "",
  port: 0,
};

export const STEADY: Behaviour = {
  latency: { kind: "constant", ms: 5 },
  errorRate: 0,
  workersMax: 1_000,
  waitingMax: 1_000,
  noticesAbort: false,
  calls: [],
};

/** `number` tells the workloads of one world apart, for their addresses. */
export function workload(
  name: string,
  number: number,
  pods: number,
  behaviour: Partial<Behaviour> = {},
  zones: readonly string[] = [""],
  inbound: InboundLimits | null = null,
): WorkloadPlan {
  const replica = (_: unknown, i: number): ReplicaPlan => ({
    name: `${name}-${i}`,
    zone: zones[i % zones.length]!,
    endpoint: {
      address: { ip: `10.${number}.${i >> 8}.${i & 255}` as IpAddress, port: 80 },
      weight: 10_000,
      identity: { name: `${name}.identity`, serverName: `${name}.identity` },
      protocolHint: "http2",
      tunnelPort: null,
      authorityOverride: null,
      labels: { pod: `${name}-${i}`, zone: zones[i % zones.length]! },
    },
  });
  return {
    name,
    inbound,
    pods: Array.from({ length: pods }, replica),
    behaviour: { ...STEADY, ...behaviour },
  };
}

/** A service in front of the workload of the same name; `policy` may differ from all to its balancer. */
export function service(
  name: string,
  options: { traffic?: BackendTraffic; policy?: OutboundPolicy } = {},
): ServicePlan {
  const path = pathOf(name);
  const policy =
    options.policy ??
    policyTo(
      {
        kind: "balancer",
        source: SOURCE,
        path,
        defaultRttMs: 30,
        decayMs: 10_000,
        traffic: options.traffic ?? null,
      },
      SOURCE,
      "http2",
    );
  return { path, workloads: [name], policyFor: () => policy };
}

export function pathOf(name: string): string {
  return `${name}.test.svc.cluster.local:80`;
}

export function call(to: string, over: Partial<CallPlan> = {}): CallPlan {
  return {
    to: pathOf(to),
    head: {
      method: "GET",
      scheme: "http",
      authority: to,
      path: "/",
      version: "2",
      absoluteForm: false,
      upgrade: null,
      fields: [],
    },
    bodyBytes: 0,
    timeoutMs: 0,
    isOptional: false,
    boundMs: 0,
    isNumbered: false,
    ...over,
  };
}

/** A world of `workloads` with a service each, and one load of `perSecond` requests from the first to the second. */
export function world(
  workloads: readonly WorkloadPlan[],
  over: Partial<WorldPlan> = {},
  perSecond = 100,
): WorldPlan {
  return {
    seed: 1,
    workloads,
    services: workloads.map(({ name }) => service(name)),
    loads: [
      {
        kind: "open",
        from: workloads[0]!.name,
        call: call(workloads[1]!.name),
        keys: null,
        retriesMax: 0,
        steps: [{ atMs: 0, perSecond }],
      },
    ],
    failures: [],
    network: { latencyMs: 0.5, zoneLatencyMs: 2, discoveryMs: 1_000 },
    durationMs: 10_000,
    ...over,
  };
}
