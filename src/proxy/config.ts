import { parseIp, parseSocketAddress, type IpAddress, type SocketAddress } from "#/base/address.ts";
import { MeshError, type Blame } from "#/base/errors.ts";
import { limitsFrom, type Limits } from "#/model/limits.ts";
import type { AccessRule, AccessSource } from "#/model/access.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import { isLogLevel, type LogLevel } from "#/net/log.ts";
import { parseNetwork, type Network } from "#/stack/networks.ts";
import type { ControlAddress } from "./control/channel.ts";
import type { WorkloadApiSettings } from "./workload-api/serve.ts";

/** Everything a sidecar is told at its start, from the environment of facts §2 and our own `PILLION_*`. */
export interface SidecarConfig {
  readonly outboundListen: readonly SocketAddress[];
  readonly inboundListen: SocketAddress;
  readonly adminListen: SocketAddress;
  readonly inboundIps: readonly IpAddress[];
  readonly inboundPorts: readonly number[];
  /** Opaque until the control plane says otherwise. */
  readonly inboundOpaquePorts: readonly number[];
  readonly inboundDefaultPolicy: InboundPolicy;
  readonly localName: string;
  readonly anchorsPem: string;
  readonly identityService: ControlAddress;
  readonly destinationService: ControlAddress;
  readonly policyService: ControlAddress;
  readonly workload: string;
  readonly destinationContext: string;
  /** Where the workload runs, for zone preference; "" where that is not known. */
  readonly zone: string;
  readonly meshNetworks: readonly Network[];
  readonly token: { readonly fd: number } | { readonly file: string };
  readonly intercept: "ebpf" | "nftables" | "explicit";
  /** explicit: where to listen for each target, since nothing steers connections here. */
  readonly explicitTargets: readonly { readonly listen: SocketAddress; readonly target: SocketAddress }[];
  /** Source address of all our connections, where interception knows us by it. */
  readonly sourceIp: IpAddress | null;
  /** As which the machine's agent calls the admin port; null: not known. */
  readonly machineIp: IpAddress | null;
  readonly inboundConnectTimeoutMs: number;
  readonly outboundConnectTimeoutMs: number;
  readonly inboundDetectTimeoutMs: number;
  readonly outboundDetectTimeoutMs: number;
  readonly discoveryTimeoutMs: number;
  readonly inboundDiscoveryIdleMs: number;
  readonly outboundDiscoveryIdleMs: number;
  readonly limits: Limits;
  /** The limit of the sidecar's own container, to stay below; null = none that it should guard. */
  readonly memoryLimitBytes: number | null;
  /** Requests that ask for it (`x-pillion-debug`) get a trace of what happened to them. */
  readonly tracesRequests: boolean;
  /** Where the workload is given SVIDs of its own; null = it has not asked for any. */
  readonly workloadApi: WorkloadApiSettings | null;
  readonly metricsIdleMs: number;
  readonly shutdownGraceMs: number;
  readonly logLevel: LogLevel;
}

/** A setting that cannot be used. The sidecar does not start. */
export class ConfigError extends MeshError {
  override readonly name = "ConfigError";
  readonly code = "CONFIG_INVALID";
  readonly blame: Blame = "operator";
}

const PREFIX = "LINKERD2_PROXY_";

/** Reads the environment; throws `ConfigError` at the first value that makes no sense. */
export function readConfig(env: Readonly<Record<string, string | undefined>>): SidecarConfig {
  const read = new Reader(env);
  const clusterNetworks = read.list(`${PREFIX}POLICY_CLUSTER_NETWORKS`, "");
  const intercept = read.text("PILLION_INTERCEPT", "ebpf");
  if (intercept !== "ebpf" && intercept !== "nftables" && intercept !== "explicit")
    throw new ConfigError(`PILLION_INTERCEPT: ${intercept} is none of ebpf, nftables, explicit`);
  const logLevel = read.text("PILLION_LOG", "info");
  if (!isLogLevel(logLevel))
    throw new ConfigError(`PILLION_LOG: ${logLevel} is none of error, warn, info, debug`);
  const fd = read.text("PILLION_TOKEN_FD", "");
  return {
    outboundListen: read.addresses(
      `${PREFIX}OUTBOUND_LISTEN_ADDRS`,
      read.text(`${PREFIX}OUTBOUND_LISTEN_ADDR`, "127.0.0.1:4140"),
    ),
    inboundListen: read.address(`${PREFIX}INBOUND_LISTEN_ADDR`, "0.0.0.0:4143"),
    adminListen: read.address(`${PREFIX}ADMIN_LISTEN_ADDR`, "127.0.0.1:4191"),
    inboundIps: read
      .list(`${PREFIX}INBOUND_IPS`, "")
      .map((text) => parseIp(text) ?? read.fail(`${PREFIX}INBOUND_IPS`, text)),
    inboundPorts: read
      .list(`${PREFIX}INBOUND_PORTS`, "")
      .map((text) => read.portNumber(`${PREFIX}INBOUND_PORTS`, text)),
    inboundOpaquePorts: read
      .list(`${PREFIX}INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION`, "")
      .map((text) => read.portNumber(`${PREFIX}INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION`, text)),
    inboundDefaultPolicy: defaultPolicy(
      read.text(`${PREFIX}INBOUND_DEFAULT_POLICY`, "all-unauthenticated"),
      clusterNetworks,
    ),
    localName: read.required(`${PREFIX}IDENTITY_LOCAL_NAME`),
    anchorsPem: read.required(`${PREFIX}IDENTITY_TRUST_ANCHORS`),
    identityService: read.service("IDENTITY"),
    destinationService: read.service("DESTINATION"),
    policyService: read.service("POLICY"),
    workload: read.required(`${PREFIX}POLICY_WORKLOAD`),
    destinationContext: read.text(`${PREFIX}DESTINATION_CONTEXT`, ""),
    zone: read.text("PILLION_ZONE", ""),
    meshNetworks: read
      .list(`${PREFIX}DESTINATION_PROFILE_NETWORKS`, clusterNetworks.join(","))
      .map((text) => parseNetwork(text) ?? read.fail(`${PREFIX}DESTINATION_PROFILE_NETWORKS`, text)),
    token:
      fd === ""
        ? { file: read.required(`${PREFIX}IDENTITY_TOKEN_FILE`) }
        : { fd: read.number("PILLION_TOKEN_FD", 0) },
    intercept,
    explicitTargets: read.list("PILLION_EXPLICIT_TARGETS", "").map((text) => {
      const [listen, target] = text.split("=");
      return {
        listen: read.parse("PILLION_EXPLICIT_TARGETS", listen ?? ""),
        target: read.parse("PILLION_EXPLICIT_TARGETS", target ?? ""),
      };
    }),
    sourceIp: parseIp(read.text("PILLION_SOURCE_IP", "")),
    machineIp: parseIp(read.text("PILLION_MACHINE_IP", "")),
    inboundConnectTimeoutMs: read.duration(`${PREFIX}INBOUND_CONNECT_TIMEOUT`, 300),
    outboundConnectTimeoutMs: read.duration(`${PREFIX}OUTBOUND_CONNECT_TIMEOUT`, 1000),
    inboundDetectTimeoutMs: read.duration(`${PREFIX}INBOUND_DETECT_TIMEOUT`, 10_000),
    outboundDetectTimeoutMs: read.duration(`${PREFIX}OUTBOUND_DETECT_TIMEOUT`, 10_000),
    discoveryTimeoutMs: read.duration("PILLION_DISCOVERY_TIMEOUT", 3000),
    inboundDiscoveryIdleMs: read.duration(`${PREFIX}INBOUND_DISCOVERY_IDLE_TIMEOUT`, 90_000),
    outboundDiscoveryIdleMs: read.duration(`${PREFIX}OUTBOUND_DISCOVERY_IDLE_TIMEOUT`, 60_000),
    limits: limitsFrom(({ variable, unit, standard }) =>
      unit === "duration" ? read.duration(variable, standard) : read.count(variable, standard),
    ),
    memoryLimitBytes: read.number("PILLION_MEMORY_LIMIT_BYTES", 0) || null,
    tracesRequests: read.text("PILLION_DEBUG_REQUESTS", "disabled") === "enabled",
    workloadApi: workloadApi(read),
    metricsIdleMs: read.duration(`${PREFIX}METRICS_RETAIN_IDLE`, 600_000),
    shutdownGraceMs: read.duration(`${PREFIX}SHUTDOWN_GRACE_PERIOD`, 120_000),
    logLevel,
  };
}

function workloadApi(read: Reader): WorkloadApiSettings | null {
  const socketPath = read.text("PILLION_WORKLOAD_API_SOCKET", "");
  if (socketPath === "") return null;
  const uids = read.list("PILLION_WORKLOAD_API_UIDS", "");
  return {
    socketPath,
    uids: uids.map((text) =>
      /^\d{1,10}$/.test(text) ? Number(text) : read.fail("PILLION_WORKLOAD_API_UIDS", text),
    ),
  };
}

/** "pod.namespace" of `POLICY_WORKLOAD`, which is JSON here and in Linkerd, or "namespace:pod". */
export function workloadName(workload: string): string {
  const match =
    /^\{"ns":"([^"\\]+)","pod":"([^"\\]+)"\}$/.exec(workload) ?? /^([^:{]+):([^:]+)$/.exec(workload);
  return match === null ? "" : `${match[2]}.${match[1]}`;
}

class Reader {
  readonly #env: Readonly<Record<string, string | undefined>>;
  constructor(env: Readonly<Record<string, string | undefined>>) {
    this.#env = env;
  }

  text(name: string, fallback: string): string {
    const text = this.#env[name]?.trim() ?? "";
    return text === "" ? fallback : text;
  }

  required(name: string): string {
    const text = this.text(name, "");
    if (text === "") throw new ConfigError(`${name} is not set`);
    return text;
  }

  fail(name: string, text: string): never {
    throw new ConfigError(`${name}: ${JSON.stringify(text)} cannot be used`);
  }

  list(name: string, fallback: string): string[] {
    return this.text(name, fallback)
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== "");
  }

  number(name: string, fallback: number): number {
    const text = this.text(name, String(fallback));
    return /^\d+$/.test(text) ? Number(text) : this.fail(name, text);
  }

  count(name: string, fallback: number): number {
    const count = this.number(name, fallback);
    return count > 0 ? count : this.fail(name, "0");
  }

  portNumber(name: string, text: string): number {
    const port = Number(text);
    return Number.isInteger(port) && port > 0 && port < 65536 ? port : this.fail(name, text);
  }

  parse(name: string, text: string): SocketAddress {
    return parseSocketAddress(text) ?? this.fail(name, text);
  }

  address(name: string, fallback: string): SocketAddress {
    return this.parse(name, this.text(name, fallback));
  }

  addresses(name: string, fallback: string): SocketAddress[] {
    return this.list(name, fallback).map((text) => this.parse(name, text));
  }

  /** `100ms`, `3s`, `5m`, `1h`, `1d`, or a bare 0. */
  duration(name: string, fallbackMs: number): number {
    const text = this.text(name, "");
    if (text === "") return fallbackMs;
    const match = /^(\d+)(ms|s|m|h|d)$/.exec(text);
    if (match === null) return text === "0" ? 0 : this.fail(name, text);
    return Number(match[1]) * (UNIT_MS[match[2] as string] as number);
  }

  service(which: "IDENTITY" | "DESTINATION" | "POLICY"): ControlAddress {
    const name = `${PREFIX}${which}_SVC_ADDR`;
    const text = this.required(name);
    const colon = text.lastIndexOf(":");
    const host = text
      .slice(0, colon)
      .replace(/^\[|\]$/g, "")
      .replace(/\.$/, "");
    const port = this.portNumber(name, text.slice(colon + 1));
    const identity = this.text(`${PREFIX}${which}_SVC_NAME`, "");
    // Facts §2.1: `localhost` short-circuits to loopback, which is spoken to in plaintext.
    return { host: host === "localhost" ? "127.0.0.1" : host, port, name: identity === "" ? null : identity };
  }
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** What holds until the control plane has answered for a port (facts §2.2 INBOUND_DEFAULT_POLICY). */
function defaultPolicy(name: string, clusterNetworks: readonly string[]): InboundPolicy {
  const from = (kind: "anyone" | "authenticated", nets: readonly string[] | null): AccessSource[] => [
    { peer: { kind }, networks: nets?.map((net) => ({ net, except: [] })) ?? null },
  ];
  const who: Readonly<Record<string, readonly AccessSource[]>> = {
    deny: [],
    "all-unauthenticated": from("anyone", null),
    "all-authenticated": from("authenticated", null),
    "cluster-unauthenticated": from("anyone", clusterNetworks),
    "cluster-authenticated": from("authenticated", clusterNetworks),
    audit: from("anyone", null),
  };
  const sources = who[name];
  if (sources === undefined)
    throw new ConfigError(
      `${PREFIX}INBOUND_DEFAULT_POLICY: ${name} is none of ${Object.keys(who).join(", ")}`,
    );
  const rule: AccessRule = {
    action: "default",
    // What `audit` lets in, `deny` would not.
    stage: name === "audit" ? "enforced" : "both",
    source: { group: "", kind: "default", namespace: "", name, section: "", port: 0 },
    sources,
    requests: null,
    route: null,
    layer: "both",
  };
  return {
    protocol: "detect",
    labels: { group: "", kind: "default", name },
    limits: null,
    access: { routes: [], rules: [rule] },
    jwt: null,
  };
}
