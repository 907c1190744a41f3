import { addressKey } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { Log } from "#/net/log.ts";
import type { Accepted, Listener, Transport } from "#/net/transport.ts";
import type { AccessObserver } from "#/stack/access/observer.ts";
import type { BackendLimit } from "#/stack/balance/backend-bounds.ts";
import type { InboundHttp } from "#/stack/discovery.ts";
import { Guard, keepAlive } from "#/stack/http/guard.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import { RetryCounters } from "#/stack/metrics/retry-series.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { RouteMetrics } from "#/stack/metrics/route-series.ts";
import { RetryPressure } from "#/stack/retry/retry-pressure.ts";
import { TransportMetrics } from "#/stack/metrics/transport.ts";
import { workloadName, type SidecarConfig } from "./config.ts";
import type { ControlApi } from "./control/control-api.ts";
import { AccessRecord } from "./inbound/access-record.ts";
import { dialApplication } from "./inbound/application.ts";
import { Inbound } from "./inbound/inbound.ts";
import { InboundHttpProxy } from "./inbound/http.ts";
import { WorkloadLimits } from "./inbound/limits.ts";
import { Ports } from "./inbound/ports.ts";
import { Proofs } from "./identity/proofs.ts";
import { WorkloadTokens } from "./inbound/tokens.ts";
import { Dialler } from "./outbound/dial.ts";
import { Discovery } from "./outbound/discovery.ts";
import { Egress } from "./outbound/egress.ts";
import { OutboundHttpProxy } from "./outbound/http.ts";
import { OpaqueDialler } from "./outbound/opaque.ts";
import { Outbound } from "./outbound/outbound.ts";
import { MemoryGuard, type ProcessMemory } from "./memory-guard.ts";
import { SeriesCache } from "./series.ts";

export interface SidecarParts {
  readonly config: SidecarConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly transport: Transport;
  /** Whether chains that end in this root (`Proof.root`) prove anything at the moment. */
  trusts(root: string): boolean;
  readonly control: ControlApi;
  readonly registry: Registry;
  /** null: without a limit. */
  readonly memory: ProcessMemory | null;
  /** Told of what is decided at the workload's ports; absent: nobody is. */
  readonly accessObserver?: AccessObserver;
}

const HANDSHAKE_TIMEOUT_MS = 5000;
const KEEP_ALIVE_MS = 10_000;
/** Metrics that nobody holds are looked through so often. */
const EXPIRE_EVERY_MS = 60_000;
const TARGETS_MAX = 10_000;
const UNDECLARED_PORTS_MAX = 128;
/** How long a connection to an undeclared port waits for its policy. */
const PORT_ANSWER_TIMEOUT_MS = 500;

/**
 * The data path of one workload, put together: both directions, with everything that they share. Knows neither
 * processes nor signals, so that whole meshes of it run in one process on virtual time.
 */
export class Sidecar {
  readonly inbound: Inbound;
  readonly outbound: Outbound;
  readonly ports: Ports;
  /** How endpoints of a Service look to this workload (`OutboundHttpProxy.explainPick`). */
  readonly explainPick: OutboundHttpProxy["explainPick"];
  readonly #parts: SidecarParts;
  readonly #inboundProofs: Proofs<null>;
  readonly #outboundProofs: Proofs<Endpoint>;
  readonly #listeners: Listener[] = [];

  constructor(parts: SidecarParts) {
    const { clock, config, control, log, memory, random, registry, transport } = parts;
    this.#parts = parts;
    const memoryGuard = new MemoryGuard({ clock, log, registry, memory });
    const workload = workloadName(config.workload);
    const metrics = new TransportMetrics(registry);
    const series = new SeriesCache(registry);
    const dialler = new Dialler({
      transport,
      clock,
      log,
      registry,
      metrics,
      connectTimeoutMs: config.outboundConnectTimeoutMs,
      handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      keepAliveMs: KEEP_ALIVE_MS,
      localIps: config.inboundIps,
      random,
      carrierMachine: keepAlive(config.limits),
      trusts: (root) => parts.trusts(root),
    });
    this.#outboundProofs = dialler.proofs;
    this.#inboundProofs = new Proofs<null>({
      clock,
      random,
      trusts: (root) => parts.trusts(root),
      prove: null,
    });
    const discovery = new Discovery({
      control,
      clock,
      log,
      settings: {
        answerTimeoutMs: config.discoveryTimeoutMs,
        idleMs: config.outboundDiscoveryIdleMs,
        targetsMax: TARGETS_MAX,
        meshNetworks: config.meshNetworks,
      },
    });
    const outboundGuard = new Guard(config.limits, "outbound", clock, registry);
    const inboundGuard = new Guard(config.limits, "inbound", clock, registry);
    const client = { id: workload, zone: config.zone };
    const limitReached = (service: string, limit: BackendLimit): void =>
      registry.count(FAMILIES.backendLimitReached, { service, limit });
    const egress = new Egress(registry, log);
    const retryPressure = new RetryPressure();
    const outboundHttp = new OutboundHttpProxy({
      clock,
      random,
      dial: dialler.dial,
      answerer: { side: "client", workload },
      series: series.outbound,
      metrics: new RouteMetrics(registry),
      retryPressure,
      retrySeries: (parent, route) => new RetryCounters(registry, parent, route),
      guard: outboundGuard,
      tracesRequests: config.tracesRequests,
      localIps: config.inboundIps,
      client,
      egress,
      limitReached,
      mirrorDropped: () => registry.count(FAMILIES.mirrorDropped, {}),
      injected: ({ group, kind, name }, fault) =>
        registry.count(FAMILIES.faultsInjected, {
          policy_group: group,
          policy_kind: kind,
          policy_name: name,
          fault,
        }),
    });
    this.explainPick = (path, fields) => outboundHttp.explainPick(path, fields);
    const connectTimeoutMs = config.inboundConnectTimeoutMs;
    const access = new AccessRecord(registry, log, this.#parts.accessObserver ?? null);
    const tokens = new WorkloadTokens({ clock, log, registry, control });
    const inboundHttp: InboundHttp = new InboundHttpProxy({
      clock,
      random,
      dial: (target, done) => dialApplication({ transport, metrics, connectTimeoutMs }, target, done),
      answerer: { side: "server", workload },
      limits: new WorkloadLimits({ clock, log, registry, control }).of,
      series: series.inbound,
      retryPressure,
      guard: inboundGuard,
      access,
      tokens: { tokensOf: tokens.of, refused: tokens.refused },
      tracesRequests: config.tracesRequests,
    });
    const opaque = new OpaqueDialler({
      clock,
      random,
      dial: dialler.dial,
      waitTimeoutMs: config.discoveryTimeoutMs,
      client,
      limitReached,
    });
    this.outbound = new Outbound({
      clock,
      random,
      log,
      registry,
      metrics,
      discovery,
      http: outboundHttp,
      opaque,
      egress,
      memoryGuard,
      detectTimeoutMs: config.outboundDetectTimeoutMs,
      guard: outboundGuard,
    });
    this.ports = new Ports(control, clock, {
      defaultPolicy: config.inboundDefaultPolicy,
      declaredPorts: config.inboundPorts,
      opaquePorts: config.inboundOpaquePorts,
      answerTimeoutMs: PORT_ANSWER_TIMEOUT_MS,
      idleMs: config.inboundDiscoveryIdleMs,
      undeclaredMax: UNDECLARED_PORTS_MAX,
    });
    this.inbound = new Inbound({
      clock,
      log,
      registry,
      metrics,
      transport,
      ports: this.ports,
      http: inboundHttp,
      memoryGuard,
      proofs: this.#inboundProofs,
      localName: config.localName.toLowerCase(),
      localIps: config.inboundIps,
      inboundPort: config.inboundListen.port,
      connectTimeoutMs,
      handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      detectTimeoutMs: config.inboundDetectTimeoutMs,
      guard: inboundGuard,
      access,
    });
    memoryGuard.watch(this.inbound.connections, this.outbound.connections);
    const targets = registry.gauge(FAMILIES.discoveryTargets, {});
    const connected = registry.gauge(FAMILIES.controlConnected, {});
    registry.beforeReading(() => {
      targets.set(discovery.targetCount);
      connected.set(control.isConnected ? 1 : 0);
    });
    this.#expireMetrics();
  }

  /** Opens the listeners of both directions. */
  async listen(): Promise<void> {
    const { config, log, transport } = this.#parts;
    this.#listeners.push(
      await transport.listen(config.inboundListen, this.inbound.accept, { takesTls: true }),
    );
    for (const at of config.outboundListen) {
      try {
        this.#listeners.push(await transport.listen(at, this.outbound.accept));
      } catch (error) {
        // A machine without IPv6 has no ::1, and no connections that would come there.
        if (at === config.outboundListen[0] || !at.ip.includes(":")) throw error;
        log.info("no IPv6 here", { reason: error });
      }
    }
    for (const { listen, target } of config.explicitTargets) {
      try {
        const accept = ({ conn }: Accepted): void =>
          this.outbound.accept({ conn, originalDestination: target });
        this.#listeners.push(await transport.listen(listen, accept));
      } catch (error) {
        // One Service that cannot be had must not take the others with it.
        log.error("a Service is not reachable from this workload", { target: addressKey(target), error });
      }
    }
  }

  /** Other roots are trusted: what rests on those that are gone has to prove itself anew. */
  trustChanged(): void {
    this.#inboundProofs.trustChanged();
    this.#outboundProofs.trustChanged();
  }

  /** Stops accepting, lets requests finish for `graceMs`, then cuts what is left. Resolves when nothing is left. */
  async drain(graceMs: number): Promise<void> {
    const { clock } = this.#parts;
    for (const listener of this.#listeners.splice(0)) listener.close();
    this.inbound.connections.close();
    this.outbound.connections.close();
    const timer = clock.after(graceMs, () => {
      this.inbound.connections.cutAll();
      this.outbound.connections.cutAll();
    });
    await Promise.all([this.inbound.connections.idle(), this.outbound.connections.idle()]);
    timer.cancel();
  }

  #expireMetrics(): void {
    const { clock, config, registry } = this.#parts;
    clock.after(EXPIRE_EVERY_MS, () => {
      registry.expire(clock.nowMs(), config.metricsIdleMs);
      this.#expireMetrics();
    });
  }
}
