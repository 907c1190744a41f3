import type { InboundDefault } from "#/kube/inbound-default.ts";
import { selectorMatches } from "#/kube/objects.ts";
import type { LabelSelector } from "#/kube/objects.ts";
import type { AccessPolicy, AccessRoute, AccessRule } from "#/model/access.ts";
import type { Identity, Labels } from "#/model/identity.ts";
import { spiffeUri } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { MeshView, ViewPod } from "../../services/mesh-view.ts";
import { sourceOf } from "../backends.ts";
import { defaultRules } from "./defaults.ts";
import { probeRules } from "./probes.ts";

/** What one policy says at one of its targets. */
export interface AccessEntry {
  /** Null: all pods of the namespace. */
  readonly selector: LabelSelector | null;
  /** Numbers and names of container ports; null: all. */
  readonly ports: ReadonlySet<number | string> | null;
  /** By kind of target, and within a kind `ageKey`: the order in which rules are tried. */
  readonly rank: number;
  readonly age: string;
  readonly rules: readonly EntryRule[];
}

/** A rule, and the ports of the pod that it is about; null: all of the target. */
export interface EntryRule {
  readonly ports: ReadonlySet<number> | null;
  readonly rule: AccessRule;
}

/** A Server of Linkerd's: it has its ports to itself as far as Linkerd's objects go. */
export interface ServerEntry {
  readonly source: PolicySource;
  readonly selector: LabelSelector;
  readonly port: number | string;
  readonly access: InboundDefault;
  readonly routes: readonly AccessRoute[];
  readonly rules: readonly RankedRules[];
}

/** As in `AccessEntry`. */
export interface RankedRules {
  readonly rank: number;
  readonly age: string;
  readonly rules: readonly AccessRule[];
}

/** What all objects say of who may, ready to be asked for a port of a pod. */
export interface AccessIndex {
  /** By namespace. */
  readonly entries: ReadonlyMap<string, readonly AccessEntry[]>;
  /** By namespace; of several for one port the first counts. */
  readonly servers: ReadonlyMap<string, readonly ServerEntry[]>;
  /** By namespace, where its annotation says one. */
  readonly namespaceDefaults: ReadonlyMap<string, InboundDefault>;
  /** Null: `pillion/mesh-config` says nothing. */
  readonly meshDefault: InboundDefault | null;
  /** Policies as they were asked for, so that pods of one workload share one. */
  readonly known: Map<string, AccessPolicy>;
}

export function noAccess(): AccessIndex {
  return {
    entries: new Map(),
    servers: new Map(),
    namespaceDefaults: new Map(),
    meshDefault: null,
    known: new Map(),
  };
}

/** As many as there are ports of workloads, not of pods; at the bound all are made anew when they are asked for again. */
const KNOWN_MAX = 10_000;

/** Who may use a port of a pod, and for what. */
export function inboundAccessFor(view: MeshView, pod: ViewPod, port: number): AccessPolicy {
  const index = view.policy.access;
  const entries = (index.entries.get(pod.namespace) ?? []).filter(
    (entry) =>
      (entry.selector === null || selectorMatches(entry.selector, pod.labels)) &&
      (entry.ports === null || isOneOf(entry.ports, pod, port)),
  );
  const server = serverAt(index, pod, port);
  const fallback = defaultOf(index, pod);
  const probes = probeRules(view, pod, port);
  const revoked = view.revoked ?? NOBODY;
  const key = [
    `${view.node.gatewayIp} ${view.node.podCidr}`,
    pod.namespace,
    port,
    fallback,
    server === null ? "" : index.servers.get(pod.namespace)!.indexOf(server),
    entries.map((entry) => index.entries.get(pod.namespace)!.indexOf(entry)).join(","),
    JSON.stringify(probes),
    revocationsKey(revoked),
  ].join("\n");
  const known = index.known.get(key);
  if (known !== undefined) return known;
  const made: AccessPolicy = {
    routes: server?.routes ?? [],
    rules: [
      ...revoked.map(revocation),
      ...probes,
      ...inOrder([
        ...entries.map(({ rank, age, rules }) => ({
          rank,
          age,
          rules: rules.flatMap(({ ports, rule }) => (ports === null || ports.has(port) ? [rule] : [])),
        })),
        ...(server?.rules ?? []),
      ]),
      ...(server === null
        ? defaultRules(fallback, null, view.node)
        : defaultRules(server.access, server.source, view.node)),
    ],
  };
  if (index.known.size >= KNOWN_MAX) index.known.clear();
  index.known.set(key, made);
  return made;
}

/** As what a port's traffic is counted: its Server, or the default. */
export function inboundLabelsFor(view: MeshView, pod: ViewPod, port: number): Labels {
  const server = serverAt(view.policy.access, pod, port);
  return server === null
    ? { group: "", kind: "default", name: defaultOf(view.policy.access, pod) }
    : { group: server.source.group, kind: "server", name: server.source.name };
}

function inOrder(all: readonly RankedRules[]): AccessRule[] {
  return all
    .toSorted((a, b) => a.rank - b.rank || (a.age < b.age ? -1 : a.age > b.age ? 1 : 0))
    .flatMap(({ rules }) => rules);
}

/** The Server that a port of a pod belongs to. */
export function serverAt(index: AccessIndex, pod: ViewPod, port: number): ServerEntry | null {
  return (
    index.servers
      .get(pod.namespace)
      ?.find((server) => isPort(server.port, pod, port) && selectorMatches(server.selector, pod.labels)) ??
    null
  );
}

function defaultOf(index: AccessIndex, pod: ViewPod): InboundDefault {
  return (
    pod.inboundDefault ??
    index.namespaceDefaults.get(pod.namespace) ??
    index.meshDefault ??
    "all-unauthenticated"
  );
}

/** Whether a port of a pod is among those, by number or name. */
export function isOneOf(ports: ReadonlySet<number | string>, pod: ViewPod, port: number): boolean {
  if (ports.has(port)) return true;
  return pod.ports.some((each) => each.port === port && each.name !== "" && ports.has(each.name));
}

function isPort(wanted: number | string, pod: ViewPod, port: number): boolean {
  return (
    wanted === port ||
    pod.ports.some((each) => each.port === port && each.name !== "" && each.name === wanted)
  );
}

const NOBODY: readonly Identity[] = [];

/** There is another list after each change. */
const REVOCATION_KEYS = new WeakMap<readonly Identity[], string>();

function revocationsKey(revoked: readonly Identity[]): string {
  let key = REVOCATION_KEYS.get(revoked);
  if (key === undefined) REVOCATION_KEYS.set(revoked, (key = revoked.map(spiffeUri).join(",")));
  return key;
}

/** An identity that was taken back is refused everywhere, before anything else is looked at. */
function revocation(identity: Identity): AccessRule {
  const { namespace, serviceAccount } = identity;
  return {
    action: "deny",
    stage: "both",
    source: sourceOf("pillion.dev", "Revocation", namespace, serviceAccount),
    sources: [{ peer: { kind: "identity", ...identity }, networks: null }],
    requests: null,
    route: null,
    layer: "both",
  };
}
