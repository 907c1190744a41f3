import { parseIp } from "#/base/address.ts";
import { LIMIT_SETTINGS } from "#/model/limits.ts";
import { INBOUND_DEFAULT_ANNOTATION, INBOUND_DEFAULTS, isInboundDefault } from "./inbound-default.ts";
import { byteCount, cpuMillis } from "./quantity.ts";

/**
 * Settings of a workload's place in the mesh, read from annotations: Linkerd's own where one exists. A pod's annotation
 * wins over its namespace's, and that over the mesh's (ConfigMap `pillion/mesh-config`, whose keys are the same names).
 */
export interface MeshSettings {
  /** Every pod is meshed unless `linkerd.io/inject: disabled`. */
  readonly meshed: boolean;
  readonly skipInboundPorts: readonly number[];
  readonly skipOutboundPorts: readonly number[];
  readonly letThroughCidrs: readonly string[];
  readonly opaquePorts: readonly PortRange[];
  readonly cpuLimitMillis: number | null;
  readonly memoryLimitBytes: number | null;
  /** Whether the sidecar refuses and ends connections to stay below that limit. */
  readonly memoryGuard: boolean;
  /** Whether the containers are given SVIDs of their own (SPIFFE Workload API). */
  readonly workloadApi: boolean;
  /** Added to the sidecar's environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** Both ends included. A name stands for the container or service port of that name. */
export type PortRange = { readonly from: number; readonly to: number } | { readonly name: string };

export const MESH_CONFIG_NAMESPACE = "pillion";
export const MESH_CONFIG_NAME = "mesh-config";

/** Whether requests that ask for a trace of their way get one from this workload's sidecar; not, if nothing is said. */
const DEBUG_REQUESTS = "config.pillion.dev/debug-requests";

/** Whether the pod's programs may have keys of its identity; not, if nothing is said. */
const WORKLOAD_API = "pillion.dev/workload-api";

type Raw = Readonly<Record<string, string>>;

/** `layers` from the widest to the narrowest: mesh, namespace, pod. */
export function meshSettings(...layers: readonly (Raw | undefined)[]): MeshSettings {
  const raw: Record<string, string> = {};
  for (const layer of layers)
    for (const [key, value] of Object.entries(layer ?? {})) if (isMeshAnnotation(key)) raw[key] = value;
  const env: Record<string, string> = {};
  for (const [annotation, variable] of Object.entries(ENVIRONMENT)) {
    const value = raw[annotation];
    if (value !== undefined) env[variable] = value;
  }
  const level = raw["config.linkerd.io/proxy-log-level"];
  if (level !== undefined) env["PILLION_LOG"] = level;
  const debug = raw[DEBUG_REQUESTS];
  if (debug !== undefined) env["PILLION_DEBUG_REQUESTS"] = debug;
  const access = raw[INBOUND_DEFAULT_ANNOTATION];
  // It decides until the control plane has answered for a port.
  if (isInboundDefault(access)) env["LINKERD2_PROXY_INBOUND_DEFAULT_POLICY"] = access;
  const cpu = raw["config.linkerd.io/proxy-cpu-limit"];
  const memory = raw["config.linkerd.io/proxy-memory-limit"];
  return {
    meshed: raw["linkerd.io/inject"] !== "disabled",
    skipInboundPorts: expandPorts(raw["config.linkerd.io/skip-inbound-ports"]),
    skipOutboundPorts: expandPorts(raw["config.linkerd.io/skip-outbound-ports"]),
    letThroughCidrs: words(raw["pillion.dev/let-through"]),
    opaquePorts: parsePortRanges(raw["config.linkerd.io/opaque-ports"] ?? "") ?? [],
    cpuLimitMillis: cpu === undefined ? null : cpuMillis(cpu),
    memoryLimitBytes: memory === undefined ? null : byteCount(memory),
    memoryGuard: raw["config.pillion.dev/proxy-memory-guard"] !== "disabled",
    workloadApi: raw[WORKLOAD_API] === "enabled",
    env,
  };
}

/** Only what a pod is made with, so that other annotations do not roll pods: who may use it is for its sidecar to hear. In a fixed order, for hashing. */
export function meshRelevant(...layers: readonly (Raw | undefined)[]): Raw {
  const raw: Record<string, string> = {};
  for (const layer of layers)
    for (const [key, value] of Object.entries(layer ?? {}))
      if (isMeshAnnotation(key) && Object.hasOwn(HONOURED, key) && key !== INBOUND_DEFAULT_ANNOTATION)
        raw[key] = value;
  return Object.fromEntries(Object.entries(raw).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** What is wrong with an annotation that concerns the mesh; null when nothing is, or when it is nobody's of ours. */
export function checkMeshAnnotation(key: string, value: string): string | null {
  if (!isMeshAnnotation(key)) return null;
  if (HARMLESS.has(key)) return null;
  const check = Object.hasOwn(HONOURED, key) ? HONOURED[key] : undefined;
  if (check === undefined)
    return `is not honoured: it would have no effect; remove it (honoured here: ${Object.keys(HONOURED).join(", ")})`;
  return check(value);
}

export function portInRanges(ranges: readonly PortRange[], port: number, name: string | undefined): boolean {
  return ranges.some((range) =>
    "name" in range ? range.name === name : range.from <= port && port <= range.to,
  );
}

/** "25,3306,4444-4450,smtp"; null when it is no such list. */
export function parsePortRanges(value: string): PortRange[] | null {
  const out: PortRange[] = [];
  for (const word of words(value)) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(word);
    if (match === null) {
      if (!/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(word) || !/[a-z]/.test(word)) return null;
      out.push({ name: word });
      continue;
    }
    const from = Number(match[1]);
    const to = Number(match[2] ?? match[1]);
    if (from < 1 || to > 65535 || from > to) return null;
    out.push({ from, to });
  }
  return out;
}

/** A skip list becomes one kernel map entry per port: this bounds the map. */
const SKIP_PORTS_MAX = 1024;

const PORTS = (value: string): string | null =>
  parsePortRanges(value) === null ? "must be ports, ranges or port names, separated by commas" : null;
const SKIP_PORTS = (value: string): string | null => {
  const ranges = parsePortRanges(value);
  if (ranges === null || ranges.some((range) => "name" in range))
    return "must be ports or ranges, separated by commas";
  return expandPorts(value).length > SKIP_PORTS_MAX
    ? `lists more than ${SKIP_PORTS_MAX} ports; skip fewer, or leave the pod out of the mesh with linkerd.io/inject: disabled`
    : null;
};
/**
 * Without a connection a sidecar takes 21 MiB at its start, and 26 to 33 once it has seen a crowd; above three quarters of its limit
 * it may let nobody in.
 */
const SIDECAR_MEMORY_LEAST_BYTES = 48 << 20;
const MEMORY = (value: string): string | null => {
  const bytes = byteCount(value);
  if (bytes === null) return "must be a quantity such as 64Mi";
  return bytes < SIDECAR_MEMORY_LEAST_BYTES
    ? "is too little for a sidecar, which takes half of 48Mi without a connection and would let nobody in; write 48Mi or more"
    : null;
};
const DURATION = (value: string): string | null =>
  /^\d+(ms|s|m|h|d)$/.test(value) ? null : "must be a duration such as 500ms or 10s";
const COUNT = (value: string): string | null =>
  /^[1-9]\d{0,8}$/.test(value) ? null : "must be a number above 0";
const ENABLED = (value: string): string | null =>
  value === "enabled" || value === "disabled"
    ? null
    : `${JSON.stringify(value)} is not honoured: write enabled or disabled`;
const LEVEL = (value: string): string | null =>
  /^(error|warn|info|debug)$/.test(value) ? null : "must be error, warn, info or debug";

const ENVIRONMENT: Readonly<Record<string, string>> = {
  "config.linkerd.io/proxy-outbound-connect-timeout": "LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT",
  "config.linkerd.io/proxy-inbound-connect-timeout": "LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT",
  "config.linkerd.io/proxy-outbound-discovery-cache-unused-timeout":
    "LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT",
  "config.linkerd.io/proxy-inbound-discovery-cache-unused-timeout":
    "LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT",
  "config.linkerd.io/shutdown-grace-period": "LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD",
  ...Object.fromEntries(
    Object.values(LIMIT_SETTINGS).map(({ annotation, variable }) => [annotation, variable]),
  ),
};

const HONOURED: Readonly<Record<string, (value: string) => string | null>> = {
  "linkerd.io/inject": ENABLED,
  "config.linkerd.io/skip-inbound-ports": SKIP_PORTS,
  "config.linkerd.io/skip-outbound-ports": SKIP_PORTS,
  "config.linkerd.io/opaque-ports": PORTS,
  "config.linkerd.io/proxy-cpu-limit": (value) =>
    cpuMillis(value) === null ? "must be a quantity such as 500m or 1" : null,
  "config.linkerd.io/proxy-memory-limit": MEMORY,
  "config.pillion.dev/proxy-memory-guard": ENABLED,
  "config.linkerd.io/proxy-log-level": LEVEL,
  [DEBUG_REQUESTS]: ENABLED,
  [WORKLOAD_API]: ENABLED,
  [INBOUND_DEFAULT_ANNOTATION]: (value) =>
    isInboundDefault(value)
      ? null
      : `${JSON.stringify(value)} is not honoured: write one of ${INBOUND_DEFAULTS.join(", ")}`,
  ...Object.fromEntries(Object.keys(ENVIRONMENT).map((key) => [key, DURATION])),
  ...Object.fromEntries(
    Object.values(LIMIT_SETTINGS)
      .filter(({ unit }) => unit === "count")
      .map(({ annotation }) => [annotation, COUNT]),
  ),
  "pillion.dev/let-through": (value) =>
    words(value).every(isCidr)
      ? null
      : "must be networks such as 10.0.0.0/8 or 10.0.0.0/8:443, separated by commas",
};

/** Notes by tools, and requests for resources that need no reserving on one machine. */
const HARMLESS = new Set([
  "linkerd.io/created-by",
  "linkerd.io/proxy-version",
  "linkerd.io/trust-root-sha256",
  "config.linkerd.io/proxy-cpu-request",
  "config.linkerd.io/proxy-memory-request",
  "viz.linkerd.io/tap-enabled",
]);

/** Whether an annotation is a setting of a workload's place in the mesh, or would be. */
export function isMeshAnnotation(key: string): boolean {
  return (
    key.startsWith("config.linkerd.io/") ||
    key.startsWith("linkerd.io/") ||
    key.startsWith("config.alpha.linkerd.io/") ||
    key.startsWith("pillion.dev/") ||
    key.startsWith("config.pillion.dev/")
  );
}

function words(value: string | undefined): string[] {
  return (value ?? "")
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");
}

function expandPorts(value: string | undefined): number[] {
  const out = new Set<number>();
  for (const range of parsePortRanges(value ?? "") ?? []) {
    if ("name" in range) continue;
    for (let port = range.from; port <= range.to && out.size <= SKIP_PORTS_MAX; port++) out.add(port);
  }
  return [...out].toSorted((a, b) => a - b);
}

function isCidr(value: string): boolean {
  const match = /^(.+)\/(\d{1,3})(?::(\d{1,5}))?$/.exec(value);
  if (match === null) return false;
  const ip = parseIp(match[1]!);
  return (
    ip !== null &&
    Number(match[2]) <= (ip.includes(":") ? 128 : 32) &&
    (match[3] === undefined || (Number(match[3]) >= 1 && Number(match[3]) <= 65535))
  );
}
