import type { Flow } from "#/model/flow.ts";
import { parseIdentity } from "#/model/identity.ts";
import type { FlowsFile, FlowServer, PodSelector } from "./flows-file.ts";
import { isAmbiguous, requestsOf } from "./suggest-paths.ts";
import type { SuggestedRequest } from "./suggest-paths.ts";

export interface SuggestSettings {
  /** Null: all. */
  readonly namespace: string | null;
  /** `network`: who may use which port. `requests`: and for what. */
  readonly level: "network" | "requests";
}

/** What would allow what one workload was asked, and nothing else. */
export interface SuggestedPolicy {
  readonly namespace: string;
  readonly name: string;
  readonly workload: string;
  readonly target:
    | { readonly kind: "Pod"; readonly selector: PodSelector }
    | { readonly kind: "Service"; readonly name: string };
  readonly rules: readonly SuggestedRule[];
  /** What was refused, and is not allowed here either. */
  readonly refused: readonly Flow[];
  /** What is known to be unknown. */
  readonly doubts: readonly string[];
}

export interface SuggestedRule {
  readonly name: string;
  readonly sources: readonly SuggestedSource[];
  readonly ports: readonly number[];
  /** Null: whatever. */
  readonly requests: readonly SuggestedRequest[] | null;
  /** Of which it was learned. */
  readonly evidence: readonly Flow[];
  readonly doubts: readonly string[];
}

export type SuggestedSource =
  | {
      readonly type: "ServiceAccount";
      readonly serviceAccount: { readonly namespace?: string; readonly name: string };
    }
  | { readonly type: "SPIFFE"; readonly spiffe: string }
  | { readonly type: "Unauthenticated"; readonly cidrs: readonly [string] };

export interface Suggestions {
  readonly policies: readonly SuggestedPolicy[];
  /** Workloads that nobody asked anything, and such that no policy could be about. */
  readonly left: readonly { readonly server: FlowServer; readonly why: string }[];
}

/** Learned from what works: what was let through, whatever a policy in audit mode says of it. Probes of the machine need no rule. */
export function suggest(file: FlowsFile, { namespace, level }: SuggestSettings): Suggestions {
  const policies: SuggestedPolicy[] = [];
  const left: { server: FlowServer; why: string }[] = [];
  const servers = file.servers.filter((server) => namespace === null || server.namespace === namespace);
  const names = new Map<string, number>();
  for (const { namespace: at, workload } of servers) {
    const key = `${at}/${shortName(workload)}`;
    names.set(key, (names.get(key) ?? 0) + 1);
  }
  for (const server of servers) {
    const learned = server.flows.filter(isLearned);
    const target = targetOf(server);
    if (learned.length === 0) left.push({ server, why: "nobody was let in" });
    else if (target === null)
      left.push({ server, why: "its pods have no labels and no Service: give them one" });
    else {
      const short = shortName(server.workload);
      const isUnique = names.get(`${server.namespace}/${short}`) === 1;
      const name = isUnique ? short : server.workload.replace("/", "-");
      const rules = rulesOf(server, learned, file.mesh.trustDomain, level);
      for (const [i, piece] of pieces(rules, RULES_MAX).entries())
        policies.push({
          namespace: server.namespace,
          name: i === 0 ? name : `${name}-${i + 1}`,
          workload: server.workload,
          target,
          rules: piece,
          refused: i === 0 ? server.flows.filter(({ verdict }) => verdict !== "allowed") : [],
          doubts: i === 0 ? doubtsOf(server) : [],
        });
    }
  }
  return { policies, left };
}

/** The schema's bounds on one policy, and on one rule. */
const RULES_MAX = 128;
const SOURCES_MAX = 128;
const PORTS_MAX = 64;

function pieces<T>(list: readonly T[], lengthMax: number): T[][] {
  const out: T[][] = [];
  for (let i = 0; i < list.length; i += lengthMax) out.push(list.slice(i, i + lengthMax));
  return out;
}

/** The machine's probes pass whatever policies say. */
const PROBES = "default/probe";

function isLearned({ verdict, rule }: Flow): boolean {
  return verdict === "allowed" && rule !== PROBES;
}

function shortName(workload: string): string {
  return workload.slice(workload.indexOf("/") + 1);
}

/** All ports of the pods, where pods can be told; a Service's otherwise. */
function targetOf({ selector, services }: FlowServer): SuggestedPolicy["target"] | null {
  const isTelling =
    selector !== null &&
    (Object.keys(selector.matchLabels ?? {}).length > 0 || (selector.matchExpressions ?? []).length > 0);
  if (isTelling) return { kind: "Pod", selector };
  const [service] = services;
  return service === undefined ? null : { kind: "Service", name: service.name };
}

function doubtsOf({ beyond, podCount, heardCount }: FlowServer): string[] {
  return [
    ...(heardCount < podCount
      ? [`only ${heardCount} of ${podCount} pods told what they had seen: look again when all are ready`]
      : []),
    ...(beyond.count > 0
      ? [
          `${beyond.count} requests and connections were more than are kept apart: nobody knows whose, and they may be refused`,
        ]
      : []),
  ];
}

/** What one client does on one port. */
interface Use {
  readonly source: SuggestedSource;
  readonly port: number;
  readonly requests: readonly SuggestedRequest[] | null;
  readonly flows: readonly Flow[];
  readonly doubts: readonly string[];
}

function rulesOf(
  server: FlowServer,
  learned: readonly Flow[],
  trustDomain: string,
  level: SuggestSettings["level"],
): SuggestedRule[] {
  const uses = [
    ...Map.groupBy(learned, (flow) => JSON.stringify([sourceOf(flow, server, trustDomain), flow.port])),
  ]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([, flows]) => useOf(flows, server, trustDomain, level));
  // Ports that a client uses alike are one rule, and so are clients that use the same ports alike.
  const byClient = Map.groupBy(uses, ({ source, requests }) => JSON.stringify([source, requests]));
  const rules = [...byClient.values()].flatMap((all) =>
    pieces(
      all.toSorted((a, b) => a.port - b.port),
      PORTS_MAX,
    ).map((same) => ({
      source: same[0]!.source,
      ports: same.map(({ port }) => port),
      requests: same[0]!.requests,
      evidence: same.flatMap(({ flows }) => flows),
      doubts: same.flatMap(({ doubts }) => doubts),
    })),
  );
  const alike = Map.groupBy(rules, ({ ports, requests }) => JSON.stringify([ports, requests]));
  const joined = [...alike.values()].flatMap((same) => pieces(same, SOURCES_MAX));
  const known = new Set<string>();
  return joined.map((same): SuggestedRule => {
    const sources = same.map(({ source }) => source);
    return {
      name: uniqueName(sources, known),
      sources,
      ports: same[0]!.ports,
      requests: same[0]!.requests,
      evidence: same.flatMap(({ evidence }) => evidence),
      doubts: [...new Set(same.flatMap(({ doubts }) => doubts))],
    };
  });
}

function useOf(
  flows: readonly Flow[],
  server: FlowServer,
  trustDomain: string,
  level: SuggestSettings["level"],
): Use {
  const source = sourceOf(flows[0]!, server, trustDomain);
  const { port } = flows[0]!;
  const requests = level === "network" ? null : requestsOf(flows);
  const doubts = [
    ...(source.type === "Unauthenticated"
      ? [
          `${source.cidrs[0]} shows no identity: whoever has the address may. Give that client a sidecar and name its account, or drop it here`,
        ]
      : []),
    ...(level === "requests"
      ? flows
          .filter(isAmbiguous)
          .map(
            ({ method, path }) =>
              `${method} ${path} has several readings, and is refused wherever a rule looks at paths: have it changed, or stay with --level network`,
          )
      : []),
    ...(level === "requests" && requests === null && !flows.every(({ protocol }) => protocol === "opaque")
      ? [
          `port ${port}: what is asked is too manifold, or not always HTTP, to be listed: everything is allowed`,
        ]
      : []),
  ];
  return { source, port, requests, flows, doubts };
}

function sourceOf({ client }: Flow, { namespace }: FlowServer, trustDomain: string): SuggestedSource {
  const { identity, address } = client;
  if (identity === "") return { type: "Unauthenticated", cidrs: [cidrOf(address)] };
  const known = parseIdentity(identity);
  if (known === null || known.trustDomain !== trustDomain) {
    const { trustDomain: domain, namespace: ns, serviceAccount } = known ?? { trustDomain: "" };
    return {
      type: "SPIFFE",
      spiffe: domain === "" ? identity : `spiffe://${domain}/ns/${ns}/sa/${serviceAccount}`,
    };
  }
  const own = known.namespace === namespace ? {} : { namespace: known.namespace };
  return { type: "ServiceAccount", serviceAccount: { ...own, name: known.serviceAccount } };
}

function cidrOf(address: string): string {
  if (address.includes("/")) return address;
  return address.includes(":") ? `${address}/128` : `${address}/32`;
}

/** Of the clients' names, as long as that is short. */
function uniqueName(sources: readonly SuggestedSource[], known: Set<string>): string {
  const names = sources.map(nameOf);
  const joined = names.join("-and-");
  const short =
    joined.length <= NAME_CHARS_MAX ? joined : `${names[0]!.slice(0, 40)}-and-${names.length - 1}-more`;
  let name = short;
  for (let i = 2; known.has(name); i++) name = `${short}-${i}`;
  known.add(name);
  return name;
}

const NAME_CHARS_MAX = 60;

function nameOf(source: SuggestedSource): string {
  switch (source.type) {
    case "ServiceAccount": {
      const { namespace, name } = source.serviceAccount;
      return (namespace === undefined ? name : `${namespace}-${name}`).toLowerCase();
    }
    case "SPIFFE":
      return dashed(source.spiffe.replace(/^spiffe:\/\//, ""));
    case "Unauthenticated":
      return dashed(`from-${source.cidrs[0]}`);
  }
}

/** Fit for the name of a rule. */
function dashed(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "")
    .slice(0, NAME_CHARS_MAX);
}
