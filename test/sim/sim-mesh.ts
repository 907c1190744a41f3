import { addressKey, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { InboundPolicy, OutboundPolicy, Protocol } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import { SILENT } from "#/net/log.ts";
import { readConfig } from "#/proxy/config.ts";
import { QuotaPools } from "#/control/quota/quota-pools.ts";
import type {
  ControlApi,
  EndpointsSink,
  OutboundSink,
  Profile,
  QuotaAnswer,
  QuotaReport,
} from "#/proxy/control/control-api.ts";
import { limitIds } from "#/stack/limits/rate-limiter.ts";
import { Sidecar } from "#/proxy/sidecar.ts";
import type { AccessObserver } from "#/stack/access/observer.ts";
import { ACCESS_OF_ALL } from "#/stack/access/testing.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import type { SecureRefusal } from "#/net/transport.ts";
import { MemoryNet, SimTransport, type Host } from "./memory-net.ts";
import { VirtualClock } from "#/base/virtual-clock.ts";

const SOURCE = { group: "", kind: "default", namespace: "", name: "sim", section: "", port: 0 };

export function identityOf(name: string): string {
  return `${name}.sim.serviceaccount.identity.pillion.cluster.local`;
}

/** A pod of the simulation. */
export interface SimPod {
  readonly name: string;
  readonly host: Host;
  readonly registry: Registry;
  /** Null for an unmeshed pod. */
  readonly sidecar: Sidecar | null;
}

/** A whole mesh in one process on virtual time: real sidecars, a played network, a control plane that is a table. */
export class SimMesh {
  readonly clock: VirtualClock = new VirtualClock();
  readonly random: Random;
  readonly net: MemoryNet;
  readonly control: SimControl;

  constructor(random: Random) {
    this.random = random;
    this.net = new MemoryNet(this.clock, this.random);
    this.control = new SimControl(this.clock, this.random);
  }

  pod(
    name: string,
    ip: string,
    options: {
      isMeshed: boolean;
      flaw?: SecureRefusal | null;
      tracesRequests?: boolean;
      accessObserver?: AccessObserver;
      leafEndsAtMs?: () => number;
      environment?: Readonly<Record<string, string>>;
    },
  ): SimPod {
    const host = this.net.host(ip);
    const registry = new Registry();
    if (!options.isMeshed) return { name, host, registry, sidecar: null };
    const config = readConfig({
      LINKERD2_PROXY_IDENTITY_LOCAL_NAME: identityOf(name),
      LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: "-",
      LINKERD2_PROXY_IDENTITY_TOKEN_FILE: "-",
      LINKERD2_PROXY_IDENTITY_SVC_ADDR: "localhost.:1",
      LINKERD2_PROXY_DESTINATION_SVC_ADDR: "localhost.:1",
      LINKERD2_PROXY_POLICY_SVC_ADDR: "localhost.:1",
      LINKERD2_PROXY_POLICY_WORKLOAD: name,
      LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS: "10.0.0.0/8",
      LINKERD2_PROXY_INBOUND_IPS: ip,
      LINKERD2_PROXY_METRICS_RETAIN_IDLE: "100d",
      PILLION_DEBUG_REQUESTS: options.tracesRequests === true ? "enabled" : "disabled",
      ...options.environment,
    });
    const transport = new SimTransport(this.net, host, {
      name: identityOf(name),
      flaw: options.flaw ?? null,
      ...(options.leafEndsAtMs === undefined ? {} : { endsAtMs: options.leafEndsAtMs }),
    });
    const sidecar = new Sidecar({
      config,
      clock: this.clock,
      random: this.random,
      log: SILENT,
      transport,
      trusts: () => true,
      control: new SimMember(this.control, name),
      registry,
      memory: null,
      ...(options.accessObserver === undefined ? {} : { accessObserver: options.accessObserver }),
    });
    host.intercept(sidecar.outbound.accept, sidecar.inbound.accept);
    return { name, host, registry, sidecar };
  }

  endpoint(pod: SimPod, port: number): Endpoint {
    const identity =
      pod.sidecar === null ? null : { name: identityOf(pod.name), serverName: identityOf(pod.name) };
    return {
      address: { ip: pod.host.ip, port },
      weight: 10_000,
      identity,
      protocolHint: identity === null ? "unknown" : "http2",
      tunnelPort: identity === null ? null : 4143,
      authorityOverride: null,
      labels: { pod: pod.name },
    };
  }
}

/** The control plane as a table. `isAway`: it answers nothing, and changes are heard when it is back. */
export class SimControl implements Omit<ControlApi, "leaseQuota"> {
  readonly #clock: VirtualClock;
  readonly #random: Random;
  readonly #policies = new Map<string, OutboundPolicy>();
  readonly #endpoints = new Map<string, readonly Endpoint[]>();
  readonly #ports = new Map<number, InboundPolicy>();
  readonly #watches = new Set<() => void>();
  #isAway = false;
  #quota = new QuotaPools();
  /** That share limits for all pods. */
  replicas = 1;

  constructor(clock: VirtualClock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  get isConnected(): boolean {
    return !this.#isAway;
  }

  service(address: SocketAddress, path: string, protocol: Protocol): void {
    const backend: Backend = {
      kind: "balancer",
      source: SOURCE,
      path,
      defaultRttMs: 30,
      decayMs: 10_000,
      traffic: null,
    };
    this.policy(address, policyTo(backend, SOURCE, protocol));
  }

  policy(address: SocketAddress, policy: OutboundPolicy): void {
    this.#policies.set(addressKey(address), policy);
    this.#changed();
  }

  endpoints(path: string, endpoints: readonly Endpoint[]): void {
    this.#endpoints.set(path, endpoints);
    this.#changed();
  }

  port(port: number, policy: InboundPolicy): void {
    this.#ports.set(port, policy);
    this.#changed();
  }

  setAway(isAway: boolean): void {
    this.#isAway = isAway;
    this.#quota = new QuotaPools();
    if (!isAway) this.#changed();
  }

  watchOutbound(address: SocketAddress, sink: OutboundSink): Cancel {
    return this.#watch(() => {
      const policy = this.#policies.get(addressKey(address));
      if (policy === undefined) sink.unknown();
      else sink.policy(policy);
    });
  }

  watchProfile(_address: SocketAddress, profile: (profile: Profile | null) => void): Cancel {
    return this.#watch(() => profile(null));
  }

  watchEndpoints(path: string, sink: EndpointsSink): Cancel {
    return this.#watch(() => {
      const endpoints = this.#endpoints.get(path);
      sink(endpoints === undefined ? "absent" : "known", endpoints ?? []);
    });
  }

  watchPort(port: number, policy: (policy: InboundPolicy) => void): Cancel {
    return this.#watch(() => policy(this.#ports.get(port) ?? ALLOW_ALL));
  }

  /** It has no tokens. */
  refreshKeys(_port: number, _issuer: string, done: (jwks: string | null) => void): Cancel {
    return this.#clock.after(1, () => done(null));
  }

  /** A control plane that was away has forgotten what it gave. */
  leaseQuota(
    member: string,
    reports: readonly QuotaReport[],
    done: (answer: QuotaAnswer | null) => void,
  ): Cancel {
    let isCancelled = false;
    const later = (then: () => void): void => {
      this.#clock.after(0.1 + 2 * this.#random.next(), () => {
        if (!isCancelled && !this.#isAway) then();
      });
    };
    later(() => {
      const nowMs = this.#clock.nowMs();
      const grants = reports.map(({ port, limitId, key, report }) => {
        const rates = this.#ports.get(port)?.limits?.rates ?? [];
        const limit = rates[limitIds(rates).indexOf(limitId)];
        if (limit === undefined) return null;
        const lease = this.#quota.lease("web", `${port} ${limitId}`, limit, member, key, report, nowMs);
        return lease === null ? null : { ...lease, replicas: this.replicas };
      });
      later(() => done({ intervalMs: this.#quota.intervalMs, grants }));
    });
    return { cancel: () => void (isCancelled = true) };
  }

  #watch(tell: () => void): Cancel {
    let isCancelled = false;
    const watch = (): void => {
      this.#clock.after(0.1 + 2 * this.#random.next(), () => {
        if (!isCancelled && !this.#isAway) tell();
      });
    };
    this.#watches.add(watch);
    watch();
    return {
      cancel: () => {
        isCancelled = true;
        this.#watches.delete(watch);
      },
    };
  }

  #changed(): void {
    for (const watch of this.#watches) watch();
  }
}

/** The control plane as one pod sees it. */
export class SimMember implements ControlApi {
  readonly #control: SimControl;
  readonly #name: string;

  constructor(control: SimControl, name: string) {
    this.#control = control;
    this.#name = name;
  }

  get isConnected(): boolean {
    return this.#control.isConnected;
  }
  watchOutbound(address: SocketAddress, sink: OutboundSink): Cancel {
    return this.#control.watchOutbound(address, sink);
  }
  watchProfile(address: SocketAddress, profile: (profile: Profile | null) => void): Cancel {
    return this.#control.watchProfile(address, profile);
  }
  watchEndpoints(path: string, sink: EndpointsSink): Cancel {
    return this.#control.watchEndpoints(path, sink);
  }
  watchPort(port: number, policy: (policy: InboundPolicy) => void): Cancel {
    return this.#control.watchPort(port, policy);
  }
  leaseQuota(reports: readonly QuotaReport[], done: (answer: QuotaAnswer | null) => void): Cancel {
    return this.#control.leaseQuota(this.#name, reports, done);
  }
  refreshKeys(port: number, issuer: string, done: (jwks: string | null) => void): Cancel {
    return this.#control.refreshKeys(port, issuer, done);
  }
}

export const ALLOW_ALL: InboundPolicy = {
  protocol: "detect",
  labels: { name: "all" },
  limits: null,
  access: ACCESS_OF_ALL,
  jwt: null,
};

export function at(ip: string, port: number): SocketAddress {
  return { ip: ip as IpAddress, port };
}
