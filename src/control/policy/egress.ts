import type { IpAddress } from "#/base/address.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { groupOf, namespaceOf, selectorMatches } from "#/kube/objects.ts";
import type { LabelSelector } from "#/kube/objects.ts";
import type { EgressPolicyObject } from "#/kube/policy-objects.ts";
import type { EgressVerdict, OutboundPolicy, PolicySource } from "#/model/policy.ts";
import { defaultBackendOf, EGRESS_POLICY } from "#/model/policy.ts";
import type { Backend, HostMatch, HttpRoute, RouteBackend, TcpRoute } from "#/model/route.ts";
import type { Network } from "#/stack/networks.ts";
import { networkContains, parseNetwork } from "#/stack/networks.ts";
import { byAge } from "./attach.ts";
import { sourceOf } from "./backends.ts";
import type { PolicyClient } from "./client.ts";

/** What one EgressPolicy says, and of which pods of its namespace. */
export interface EgressEntry {
  readonly source: PolicySource;
  /** Null: of all pods. */
  readonly selector: LabelSelector | null;
  readonly mode: EgressPolicyObject["spec"]["mode"];
  readonly allow: readonly EgressAllowance[];
}

/** All parts must hold. Null: holds for everything. */
interface EgressAllowance {
  readonly hosts: readonly HostMatch[] | null;
  readonly networks: readonly Network[] | null;
  readonly ports: ReadonlySet<number> | null;
}

/** By namespace of the clients, older policies first. */
export type EgressIndex = ReadonlyMap<string, readonly EgressEntry[]>;

export function egressIndex(policies: readonly LoadedObject[]): EgressIndex {
  const out = new Map<string, EgressEntry[]>();
  for (const { object } of policies.toSorted(byAge)) {
    if (object.kind !== EGRESS_POLICY) continue;
    const namespace = namespaceOf(object);
    const { mode, selector = null, allow = [] } = object.spec;
    const source = sourceOf(groupOf(object), EGRESS_POLICY, namespace, object.metadata.name);
    const entry: EgressEntry = { source, selector, mode, allow: allow.map(allowanceOf) };
    const some = out.get(namespace);
    if (some === undefined) out.set(namespace, [entry]);
    else some.push(entry);
  }
  return out;
}

/** The schema has checked networks and hosts. */
function allowanceOf({
  hosts,
  cidrs,
  ports,
}: NonNullable<EgressPolicyObject["spec"]["allow"]>[number]): EgressAllowance {
  return {
    hosts:
      hosts?.map((text) =>
        text.startsWith("*.") ? { kind: "suffix", host: text.slice(2) } : { kind: "exact", host: text },
      ) ?? null,
    networks: cidrs?.map(parseNetwork).filter((network) => network !== null) ?? null,
    ports: ports === undefined ? null : new Set(ports),
  };
}

/**
 * The policy of an address outside the mesh for a client: `plain` where no EgressPolicy is about it. The strictest mode of
 * those that are counts, with the allow-lists of all. What the address alone allows passes as without a policy; what a host
 * allows becomes routes by host and by server name, and one more takes the rest.
 */
export function withEgress(
  index: EgressIndex,
  plain: OutboundPolicy,
  { ip, port }: { readonly ip: IpAddress; readonly port: number },
  client: PolicyClient | null,
): OutboundPolicy {
  const entries = client === null ? [] : entriesFor(index.get(client.namespace), client);
  const deciding =
    entries.find(({ mode }) => mode === "Deny") ?? entries.find(({ mode }) => mode === "Audit") ?? null;
  if (deciding === null) return plain;
  const allowances = entries
    .flatMap(({ allow }) => allow)
    .filter(
      ({ networks, ports }) =>
        (ports === null || ports.has(port)) &&
        (networks === null || networks.some((network) => networkContains(network, ip))),
    );
  if (allowances.some(({ hosts }) => hosts === null)) return plain;
  const hosts = allowances.flatMap((each) => each.hosts ?? []);
  const source = { ...deciding.source, port };
  const what = hosts.length === 0 ? "this address and port" : "this host at this address and port";
  const refusal = `egress to ${ip}:${port} is denied: no entry of the allow-list has ${what}`;
  const rest =
    deciding.mode === "Deny" ? deny(source, refusal) : pass(source, "would-deny", [], plain.backend);
  const allowed = hosts.length === 0 ? null : pass(source, "allow", hosts, plain.backend);
  const http = allowed === null ? [rest.http] : [allowed.http, rest.http];
  const tcp = allowed === null ? [rest.tcp] : [allowed.tcp, rest.tcp];
  const routes = { source, protocol: plain.protocol, http, tcp };
  return { ...routes, backend: defaultBackendOf(routes) };
}

/** Of a pod that is not known, policies by its labels might be: they restrict, and allow nothing. */
function entriesFor(entries: readonly EgressEntry[] | undefined, { labels }: PolicyClient): EgressEntry[] {
  return (entries ?? []).flatMap((entry) => {
    if (entry.selector === null) return [entry];
    if (labels === undefined) return [{ ...entry, allow: [] }];
    return selectorMatches(entry.selector, labels) ? [entry] : [];
  });
}

interface Routes {
  readonly http: HttpRoute;
  readonly tcp: TcpRoute;
}

const RULE = {
  name: "",
  matches: [],
  choice: "first",
  timeouts: { requestMs: null, responseMs: null, attemptMs: null, idleMs: null },
  retry: null,
  allowsRequestHeaders: false,
} as const;

function pass(
  policy: PolicySource,
  section: EgressVerdict,
  hosts: readonly HostMatch[],
  backend: Backend,
): Routes {
  const source = { ...policy, section };
  const backends: RouteBackend[] = [{ weight: 1, backend, filters: [], attemptTimeoutMs: null }];
  return {
    http: { source, hosts, rules: [{ ...RULE, filters: [], backends }] },
    tcp: { source, serverNames: hosts, refusal: null, choice: "first", backends },
  };
}

/** PERMISSION_DENIED for gRPC callers. */
function deny(policy: PolicySource, refusal: string): Routes {
  const source = { ...policy, section: "deny" satisfies EgressVerdict };
  const failure = {
    kind: "fail",
    status: 403,
    grpcStatus: 7,
    message: refusal,
    ratio: { numerator: 1, denominator: 1 },
  } as const;
  return {
    http: { source, hosts: [], rules: [{ ...RULE, filters: [failure], backends: [] }] },
    tcp: { source, serverNames: [], refusal, choice: "first", backends: [] },
  };
}
