import { lookup } from "node:dns/promises";
import { closeSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { getHeapStatistics } from "node:v8";
import type { SocketAddress } from "#/base/address.ts";
import { describeError } from "#/base/errors.ts";
import { boundFreeMemory, originalDestination, peek, returnFreeMemory } from "#/kernel/libc.ts";
import { SystemClock } from "#/net/clock.ts";
import { isLogLevel, JsonLog } from "#/net/log.ts";
import { NodeTransport } from "#/net/node-transport.ts";
import type { LocalEnd } from "#/net/tcp.ts";
import { Tls, type TrustAnchors } from "#/net/tls.ts";
import { withCapabilities } from "#/model/capabilities.ts";
import { parseIdentity } from "#/model/identity.ts";
import { FlowRecorder } from "#/stack/access/flows.ts";
import { Guard } from "#/stack/http/guard.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { Admin } from "./admin/admin.ts";
import { collectGarbage } from "./collect-garbage.ts";
import { ConfigError, readConfig, workloadName, type SidecarConfig } from "./config.ts";
import { Channel, type ChannelParts } from "./control/channel.ts";
import { ControlClient } from "./control/client.ts";
import { IdentityClient } from "./identity/identity-client.ts";
import { TrustExpiry } from "./identity/trust-expiry.ts";
import { TrustClient } from "./identity/trust-client.ts";
import { MemoryReturn } from "./memory-return.ts";
import { processMemory } from "./process-memory.ts";
import { addProcessMetrics } from "./process-metrics.ts";
import { Sidecar } from "./sidecar.ts";
import type { ServedWorkload, WorkloadApiSettings } from "./workload-api/serve.ts";

const BACKLOG = 4096;
/** Accepted past the bound on connections, to be refused with a reason; past this the listener drops them without one. */
const CONNECTIONS_BEYOND = 100;
/** On the admin port; longer than Prometheus waits between two scrapes. */
const ADMIN_IDLE_MS = 300_000;
/**
 * Of the C allocator: glibc's own first threshold, held; and a free end that a turn's buffers fit in, so that it is not given back
 * only to be asked for again (docs/decisions/0028-free-memory.md).
 */
const FREE_MEMORY = { mmapFromBytes: 131_072, trimAboveBytes: 524_288 };
/** Facts §2.3: a bad environment ends the process with 64, a failed start with 1. */
const EXIT_CONFIG = 64;
const EXIT_START = 1;
const EXIT_BUG = 70;
/** Whoever started us has to attest the workload again and start us with a new token. */
const EXIT_ATTEST = 75;
/** Inbound ports' policies should be known before traffic comes; a control plane that is slow with them delays us so long. */
const PORTS_TIMEOUT_MS = 2000;

/**
 * The sidecar's process, which `confine` has locked in: reads its environment, obtains its certificate, then serves until SIGTERM.
 * SIGTERM drains and exits; SIGUSR2 asks inbound clients to go elsewhere and goes on serving who comes.
 */
export async function runSidecar(env: Readonly<Record<string, string | undefined>>): Promise<void> {
  boundFreeMemory(FREE_MEMORY);
  const clock = new SystemClock();
  const log = new JsonLog("info", () => clock.wallMs());
  process.on("uncaughtException", (error) => {
    log.error("a bug ended the sidecar", { error: describeError(error), stack: error.stack });
    process.exit(EXIT_BUG);
  });
  process.on("SIGPIPE", () => undefined);

  let config: SidecarConfig;
  try {
    config = readConfig(env);
  } catch (error) {
    log.error("the sidecar's settings cannot be used", { error });
    process.exit(EXIT_CONFIG);
  }
  log.level = config.logLevel;

  const registry = new Registry();
  const flows = new FlowRecorder(() => clock.wallMs());
  addProcessMetrics(registry, env["PILLION_VERSION"] ?? "0");
  const tls = new Tls(clock);
  const trustDomain = parseIdentity(config.localName)?.trustDomain ?? "";
  let anchors: TrustAnchors = new Map([[trustDomain, config.anchorsPem]]);
  tls.setAnchors(anchors);
  let served: ServedWorkload | null = null;
  const random = { next: Math.random };
  const transport = new NodeTransport(clock, tls, {
    backlog: BACKLOG,
    connectionsMax: config.limits.connectionsMax + CONNECTIONS_BEYOND,
    acceptKeepAliveMs: 10_000,
    localIp: config.sourceIp,
    originalDestination: (fd, accepted) => originalOf(config, fd, accepted),
    peek,
  });
  const channelParts: ChannelParts = { transport, clock, random, log, resolve: resolveHost };
  const identity = new IdentityClient({
    clock,
    random,
    log,
    registry,
    tls,
    localName: config.localName,
    get anchorsPem() {
      return trust.anchorsPem;
    },
    channel: (isAnonymous) => new Channel(channelParts, config.identityService, { isAnonymous }),
    token: tokenReader(config),
    tokenRefused: (reason) => {
      if ("file" in config.token) return;
      log.error("the token was refused and there is no other; the workload must be attested again", {
        reason,
      });
      process.exit(EXIT_ATTEST);
    },
    leafChanged: () => trust.leafChanged(),
  });
  const destination = new Channel(channelParts, config.destinationService, { isAnonymous: false });
  const policy = sameService(config)
    ? destination
    : new Channel(channelParts, config.policyService, { isAnonymous: false });
  const trust = new TrustClient({
    clock,
    random,
    log,
    registry,
    channel: policy,
    workload: config.workload,
    trustDomain,
    anchorsPem: config.anchorsPem,
    apply: (next) => {
      anchors = next;
      tls.setAnchors(next);
      sidecar?.trustChanged();
      served?.anchorsChanged();
    },
    leafIssuer: (wanted) => {
      const workloads = served?.issuer ?? "";
      return workloads === "" || workloads === wanted ? identity.issuer : workloads;
    },
    renewWithin: (ms) => {
      identity.renewWithin(ms);
      served?.renewWithin(ms);
    },
  });
  const expiry = new TrustExpiry({
    clock,
    log,
    chain: () => identity.chain,
    roots: () => trust.anchors,
  });
  const control = new ControlClient({
    clock,
    random,
    log,
    registry,
    destination,
    policy,
    workload: withCapabilities(config.workload),
    contextToken: withCapabilities(config.destinationContext),
  });

  /** Few workloads ask for it, so that no other loads it. */
  const serveWorkload = async (settings: WorkloadApiSettings): Promise<void> => {
    const own = parseIdentity(config.localName);
    if (own === null) throw new ConfigError(`${config.localName} is no identity of a workload`);
    const { serveWorkloadApi } = await import("./workload-api/serve.ts");
    served = await serveWorkloadApi({
      settings,
      clock,
      random,
      log,
      registry,
      identity: own,
      workload: workloadName(config.workload),
      anchors: () => anchors,
      leafChanged: () => trust.leafChanged(),
      identityChannel: () => new Channel(channelParts, config.identityService, { isAnonymous: false }),
      control: policy,
    });
  };

  let sidecar: Sidecar | null = null;
  let isListening = false;
  let isShuttingDown = false;
  const shutdown = (why: string): void => {
    if (isShuttingDown) return;
    isShuttingDown = true;
    log.info("shutting down", { why, graceMs: config.shutdownGraceMs });
    const drained = sidecar === null ? Promise.resolve() : sidecar.drain(config.shutdownGraceMs);
    // Writes of the last turn still have to leave.
    drained.then(
      () => clock.after(50, () => process.exit(0)),
      () => process.exit(1),
    );
  };
  process.on("SIGTERM", () => shutdown("SIGTERM"));
  process.on("SIGINT", () => shutdown("SIGINT"));
  process.on("SIGUSR2", () => {
    log.info("draining inbound");
    sidecar?.inbound.connections.drain();
  });

  const admin = new Admin(
    {
      get isReady() {
        return isListening && !isShuttingDown && identity.hasCertificate;
      },
      metrics: () => registry.render(),
      drainState: () => {
        const connections = sidecar?.inbound.connections;
        return {
          draining: connections?.isDraining ?? false,
          inboundRequests: connections?.activeRequests ?? 0,
          inboundConnections: connections?.count ?? 0,
          inboundAccepted: connections?.accepted ?? 0,
        };
      },
      endpoints: (backend, fields) => {
        const pick = sidecar?.explainPick(backend, fields) ?? null;
        return pick === null ? null : JSON.stringify(pick);
      },
      flows: () => flows.page(),
      get logLevel() {
        return log.level;
      },
      set logLevel(level: string) {
        if (isLogLevel(level)) log.level = level;
      },
      shutdown: () => shutdown("admin"),
    },
    clock,
    new Guard({ ...config.limits, idleMs: ADMIN_IDLE_MS }, "admin", clock, registry),
    config.machineIp,
  );

  try {
    await transport.listen(config.adminListen, ({ conn }) => admin.accept(conn));
    await new Promise<void>((certified) => identity.start(certified));
    // The first connection of the workload must not wait for this one.
    destination.keepOpen();
    policy.keepOpen();
    trust.start();
    if (config.workloadApi !== null) await serveWorkload(config.workloadApi);
    expiry.start();
    sidecar = new Sidecar({
      config,
      clock,
      random,
      log,
      transport,
      trusts: (root) => tls.trusts(root),
      control,
      registry,
      memory: config.memoryLimitBytes === null ? null : processMemory(config.memoryLimitBytes),
      accessObserver: flows,
    });
    await portsKnown(sidecar, clock);
    await sidecar.listen();
  } catch (error) {
    log.error("the sidecar cannot start", { error });
    process.exit(EXIT_START);
  }
  isListening = true;
  log.info("ready", { identity: config.localName, intercept: config.intercept });
  new MemoryReturn({
    clock,
    cpuMs: () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1_000;
    },
    heapBytes: () => getHeapStatistics().used_heap_size,
    collect: collectGarbage,
    giveBack: returnFreeMemory,
  }).start();
}

/** The address that a connection was meant for: told by the kernel, or without interception where it arrived. */
function originalOf(config: SidecarConfig, fd: number, accepted: LocalEnd): SocketAddress | null {
  const original = originalDestination(fd);
  if (original !== null) return original;
  const { local } = accepted;
  if (config.intercept === "ebpf") {
    // sk_lookup does not rewrite: on the inbound side the accepted socket's own address is the original one.
    return config.outboundListen.some(({ port }) => port === local.port) ? null : local;
  }
  const isDirect = local.port === config.inboundListen.port;
  return isDirect || config.intercept === "explicit" ? local : null;
}

function sameService({ destinationService: a, policyService: b }: SidecarConfig): boolean {
  return a.host === b.host && a.port === b.port && a.name === b.name;
}

async function resolveHost(host: string): Promise<readonly string[]> {
  const addresses = await lookup(host, { all: true });
  return addresses.map(({ address }) => address);
}

/** A token from a descriptor is read once, at the start; one in a file again each time, because it is renewed there. */
function tokenReader({ token }: SidecarConfig): () => Promise<Uint8Array> {
  if ("file" in token) return async () => new Uint8Array(await readFile(token.file));
  const bytes = Buffer.from(readFileSync(token.fd, "latin1").trim(), "latin1");
  closeSync(token.fd);
  return () => Promise.resolve(new Uint8Array(bytes));
}

function portsKnown(sidecar: Sidecar, clock: SystemClock): Promise<void> {
  const startedAtMs = clock.nowMs();
  return new Promise((resolve) => {
    const look = (): void => {
      if (sidecar.ports.isReady || clock.nowMs() - startedAtMs > PORTS_TIMEOUT_MS) resolve();
      else clock.after(5, look);
    };
    look();
  });
}
