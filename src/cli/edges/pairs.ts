import type { PodPage } from "../stat/traffic.ts";
import type { Sample } from "../stat/prometheus.ts";

/** One workload that has talked to another in one way, all pods of both together. */
export interface Edge {
  /** NAMESPACE/WORKLOAD; "unmeshed" for whoever came without a certificate; an identity where the pod is none that runs here. */
  readonly client: string;
  /** NAMESPACE/WORKLOAD, or the address where it is no pod of this mesh. */
  readonly server: string;
  /** As proven; "" where nothing was. */
  readonly clientIdentity: string;
  readonly serverIdentity: string;
  readonly isMutualTls: boolean;
  /** Why there is no mutual TLS, in words; "" where there is. */
  readonly whyNot: string;
  /** As the client's side knows them; a server's side is not told the group. */
  readonly ciphers: readonly string[];
  readonly groups: readonly string[];
  /** Since the sidecars started. */
  readonly connections: number;
  readonly open: number;
  readonly requests: number;
}

/**
 * Joins what sidecars counted. The client's side tells of all that a meshed pod has dialled; the server's adds those without a certificate,
 * and proven clients of whom no page was read.
 */
export function edgesOf(pages: readonly PodPage[]): Edge[] {
  const workloads = new Map(
    pages.map(({ pod }) => [pod.ip, `${pod.namespace}/${nameOf(pod.owner, pod.name)}`]),
  );
  const identities = new Set(pages.map(identityOf));
  const found = new Map<string, Building>();
  for (const page of pages) {
    const own = workloads.get(page.pod.ip) ?? page.pod.name;
    const ownIdentity = identityOf(page);
    for (const sample of page.samples) {
      const label = (name: string): string => sample.labels.get(name) ?? "";
      if (!COUNTED.has(sample.name) || sample.value === 0) continue;
      const tls = label("tls");
      if (label("direction") === "outbound") {
        // To the application beside it, which is not the network.
        if (label("no_tls_reason") === "loopback") continue;
        const target = label("target_addr");
        add(found, sample, {
          client: own,
          server: workloads.get(hostOf(target)) ?? target,
          clientIdentity: tls === "true" ? ownIdentity : "",
          serverIdentity: label("server_id"),
          isMutualTls: tls === "true",
          whyNot: whyNot(tls, label("no_tls_reason")),
        });
      } else if (label("direction") === "inbound" && label("peer") !== "dst") {
        const client = label("client_id");
        if (tls === "true" && identities.has(client)) continue;
        add(found, sample, {
          client: tls === "true" ? client : "unmeshed",
          server: own,
          clientIdentity: client,
          serverIdentity: tls === "true" ? ownIdentity : "",
          isMutualTls: tls === "true",
          whyNot: whyNot(tls, label("no_tls_reason")),
        });
      }
    }
  }
  return [...found.values()]
    .map(({ ciphers, groups, ...edge }) => ({
      ...edge,
      ciphers: [...ciphers].toSorted(),
      groups: [...groups].toSorted(),
    }))
    .toSorted((a, b) => keyOf(a).localeCompare(keyOf(b)));
}

const COUNTED: ReadonlySet<string> = new Set(["tcp_open_total", "tcp_open_connections", "request_total"]);

type Ends = Omit<Edge, "ciphers" | "groups" | "connections" | "open" | "requests">;
type Building = Ends & {
  readonly ciphers: Set<string>;
  readonly groups: Set<string>;
  connections: number;
  open: number;
  requests: number;
};

function add(found: Map<string, Building>, { name, labels, value }: Sample, ends: Ends): void {
  const key = keyOf(ends);
  let edge = found.get(key);
  if (edge === undefined) {
    edge = { ...ends, ciphers: new Set(), groups: new Set(), connections: 0, open: 0, requests: 0 };
    found.set(key, edge);
  }
  const cipher = labels.get("tls_cipher") ?? "";
  const group = labels.get("tls_group") ?? "";
  if (cipher !== "") edge.ciphers.add(cipher);
  if (group !== "") edge.groups.add(group);
  if (name === "tcp_open_total") edge.connections += value;
  else if (name === "tcp_open_connections") edge.open += value;
  else edge.requests += value;
}

function keyOf({ client, server, clientIdentity, serverIdentity, whyNot: why }: Ends): string {
  return [client, server, clientIdentity, serverIdentity, why].join(" ");
}

/** `no_tls_reason` of the metrics, for people. */
function whyNot(tls: string, reason: string): string {
  if (tls === "true") return "";
  if (tls === "originated") return "TLS to a server outside the mesh";
  return WHY_NOT[reason] ?? (reason === "" ? "unknown" : reason);
}

const WHY_NOT: Readonly<Record<string, string>> = {
  not_provided_by_service_discovery: "the server has no sidecar",
  no_tls_from_remote: "the client has no sidecar",
  port_skipped: "the port is opaque, and the client has no sidecar",
};

function identityOf({ samples }: PodPage): string {
  return samples.find(({ name }) => name === "pillion_identity_info")?.labels.get("identity") ?? "";
}

function nameOf(owner: string, pod: string): string {
  return owner === "" ? pod : (owner.split("/").at(-1) ?? pod);
}

function hostOf(address: string): string {
  const host = address.slice(0, address.lastIndexOf(":"));
  return host.startsWith("[") ? host.slice(1, -1) : host;
}
