import { outboundPolicyFor, inboundPolicyFor } from "#/control/policy/policy.ts";
import type { ViewPod } from "#/control/services/mesh-view.ts";
import { describeProblem } from "#/kube/folder.ts";
import type { InboundPolicy, OutboundPolicy } from "#/model/policy.ts";
import type { Backend, FieldMatch, HttpMatch, HttpFilter, RouteBackend } from "#/model/route.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { FolderTarget, FolderWorkload } from "#/sim/scenario/folder-mesh.ts";
import { CommandError } from "../exit.ts";
import type { InstancePaths } from "../instance-paths.ts";
import { ask } from "../operator.ts";
import { countOf } from "../up.ts";
import { modelOf, readModel } from "./folder-model.ts";
import type { FolderModel } from "./folder-model.ts";
import { changeLine, modelDiff } from "./model-diff.ts";
import type { ModelChange } from "./model-diff.ts";

export interface DiffOptions {
  readonly folder: string;
  /** Another folder to compare with; null: what the running mesh goes by. */
  readonly from: string | null;
  readonly json: boolean;
}

/** What a change does to some workloads: to what they send to one Service, to what they take in, or to their pods. */
export interface Difference {
  readonly kind: "outbound" | "inbound" | "workload" | "service";
  /** `deployment/shop/web`; of a Service: none. */
  readonly workloads: readonly string[];
  /** `web.shop:80` of an outbound one, `port 8080` of an inbound one, "" otherwise. */
  readonly target: string;
  readonly changes: readonly ModelChange[];
}

/** Says what a folder would alter. The exit code is diff's: 0 nothing, 1 something; a folder with problems is an error (2). */
export async function diff(
  paths: InstancePaths,
  { folder, from, json }: DiffOptions,
  print: (text: string) => void,
): Promise<number> {
  const before = from === null ? await acceptedModel(paths) : sound(readModel(from), from);
  const differences = differencesOf(before, sound(readModel(folder), folder));
  if (json) print(JSON.stringify({ differences }, null, 2));
  else print(differences.length === 0 ? "nothing would change" : differences.map(paragraph).join("\n"));
  return differences.length === 0 ? 0 : 1;
}

async function acceptedModel(paths: InstancePaths): Promise<FolderModel> {
  const { answer } = await ask(paths, { kind: "ask", question: { kind: "accepted" } }, "control").catch(
    (error: unknown) => {
      throw error instanceof CommandError
        ? new CommandError(`${error.message}; or compare with a folder: --from`, 2)
        : error;
    },
  );
  if (answer.kind !== "files")
    throw new CommandError("the control plane did not say what it goes by; see: pillion check", 2);
  return modelOf(answer.files);
}

/** Files with problems would be left as they were, so nothing sure can be said of a folder that has some. */
function sound(model: FolderModel, folder: string): FolderModel {
  const { problems } = model;
  if (problems.length === 0) return model;
  const lines = problems.map((problem) => `  ${describeProblem(problem)}`);
  throw new CommandError(`${folder} has ${countOf(lines.length, "problem")}:\n${lines.join("\n")}`, 2);
}

/** What differs between two states of a mesh, in the order: Services, workloads, what they send, what they take in. */
export function differencesOf(before: FolderModel, after: FolderModel): Difference[] {
  return [
    ...byName(before.mesh.targets, after.mesh.targets, targetName).flatMap(([name, a, b]) =>
      a === null || b === null ? [cameOrWent("service", [], name, a === null)] : [],
    ),
    ...workloadChanges(before, after),
    ...outboundChanges(before, after),
    ...inboundChanges(before, after),
  ];
}

function workloadChanges(before: FolderModel, after: FolderModel): Difference[] {
  return byName(before.mesh.workloads, after.mesh.workloads, workloadName).flatMap(([name, a, b]) => {
    if (a === null || b === null) return [cameOrWent("workload", [name], "", a === null)];
    const changes: ModelChange[] = [];
    if (a.pods.length !== b.pods.length)
      changes.push({ path: "replicas", before: a.pods.length, after: b.pods.length });
    const [one] = a.pods;
    const [other] = b.pods;
    if (one !== undefined && other !== undefined)
      changes.push(
        ...modelDiff({ ...one, uid: "" }, { ...other, uid: "" }).map((each) => ({
          ...each,
          path: `pods: ${each.path}`,
        })),
      );
    return changes.length === 0
      ? []
      : [{ kind: "workload" as const, workloads: [name], target: "", changes }];
  });
}

/** Of every client that there is before and after, to every Service that there is before and after. */
function outboundChanges(before: FolderModel, after: FolderModel): Difference[] {
  const clients = Map.groupBy(
    byName(before.mesh.workloads, after.mesh.workloads, workloadName).flatMap(([name, a, b]) => {
      const pod = b?.pods[0];
      return a === null || pod === undefined || pod.sidecar === null ? [] : [{ name, pod }];
    }),
    // What a client is told depends on who it is and on nothing else.
    ({ pod }) => `${pod.namespace}/${pod.serviceAccount}`,
  );
  const out: Difference[] = [];
  for (const [target, a, b] of byName(before.mesh.targets, after.mesh.targets, targetName)) {
    if (a === null || b === null) continue;
    const same = new Map<string, { workloads: string[]; changes: ModelChange[] }>();
    for (const group of clients.values()) {
      const { namespace, serviceAccount } = group[0]!.pod;
      const policyOf = (model: FolderModel, { service, port }: FolderTarget): OutboundPolicy =>
        outboundPolicyFor(model.mesh.view, { kind: "service", service, port }, { namespace, serviceAccount });
      const changes = modelDiff(plain(policyOf(before, a)), plain(policyOf(after, b)));
      if (changes.length === 0) continue;
      const key = JSON.stringify(changes);
      const names = group.map(({ name }) => name);
      const known = same.get(key);
      if (known === undefined) same.set(key, { workloads: names, changes });
      else known.workloads.push(...names);
    }
    for (const { workloads, changes } of same.values())
      out.push({ kind: "outbound", workloads: workloads.toSorted(), target, changes });
  }
  return out;
}

function inboundChanges(before: FolderModel, after: FolderModel): Difference[] {
  return byName(before.mesh.workloads, after.mesh.workloads, workloadName).flatMap(([name, a, b]) => {
    const one = podOf(before, a);
    const other = podOf(after, b);
    if (one === null || other === null) return [];
    const ports = new Set([...one.ports, ...other.ports].map(({ port }) => port));
    return [...ports].flatMap((port): Difference[] => {
      const policyOf = (model: FolderModel, pod: ViewPod): InboundPolicy =>
        inboundPolicyFor(model.mesh.view, pod, port);
      const changes = modelDiff(policyOf(before, one), policyOf(after, other));
      return changes.length === 0
        ? []
        : [{ kind: "inbound", workloads: [name], target: `port ${port}`, changes }];
    });
  });
}

function podOf({ mesh }: FolderModel, workload: FolderWorkload | null): ViewPod | null {
  const pod = workload?.pods[0];
  return (pod?.sidecar ?? null) === null
    ? null
    : (mesh.view.podsByName.get(`${pod!.namespace}/${pod!.name}`) ?? null);
}

/** The policy with what says nothing taken out: defaults that are written down, the order of headers in a match. */
function plain(policy: OutboundPolicy): unknown {
  return {
    protocol: policy.protocol,
    backend: plainBackend(policy.backend),
    http: policy.http.map((route) => ({
      ...route,
      rules: route.rules.map((rule) => ({
        ...rule,
        matches: rule.matches.map(plainMatch),
        filters: rule.filters.map(plainFilter),
        backends: rule.backends.map(plainRouteBackend),
      })),
    })),
    tcp: policy.tcp.map((route) => ({ ...route, backends: route.backends.map(plainRouteBackend) })),
  };
}

function plainRouteBackend(each: RouteBackend): RouteBackend {
  return { ...each, backend: plainBackend(each.backend), filters: each.filters.map(plainFilter) };
}

function plainBackend(backend: Backend): Backend {
  return backend.kind === "forbidden"
    ? backend
    : { ...backend, traffic: backend.traffic ?? BACKEND_TRAFFIC_DEFAULTS };
}

function plainFilter(filter: HttpFilter): HttpFilter {
  return filter.kind === "mirror" ? { ...filter, backend: plainBackend(filter.backend) } : filter;
}

function plainMatch(match: HttpMatch): HttpMatch {
  const sorted = (fields: readonly FieldMatch[]): FieldMatch[] =>
    fields.toSorted((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  return { ...match, headers: sorted(match.headers), query: sorted(match.query) };
}

/** Pairs of the same name, by name; null where one side has none. */
function byName<T>(
  before: readonly T[],
  after: readonly T[],
  nameOf: (each: T) => string,
): [name: string, before: T | null, after: T | null][] {
  const a = new Map(before.map((each) => [nameOf(each), each]));
  const b = new Map(after.map((each) => [nameOf(each), each]));
  return [...new Set([...a.keys(), ...b.keys()])]
    .toSorted()
    .map((name) => [name, a.get(name) ?? null, b.get(name) ?? null]);
}

function workloadName({ name, pods }: FolderWorkload): string {
  const [kind] = pods[0]?.owner.split("/") ?? [];
  return kind === undefined ? name : `${kind.toLowerCase()}/${name}`;
}

function targetName({ service, port }: FolderTarget): string {
  return `${service.name}.${service.namespace}:${port.port}`;
}

function cameOrWent(
  kind: "workload" | "service",
  workloads: readonly string[],
  target: string,
  isNew: boolean,
): Difference {
  const path = isNew ? "is new" : "goes away";
  return {
    kind,
    workloads,
    target,
    changes: [{ path, before: isNew ? null : true, after: isNew ? true : null }],
  };
}

function paragraph({ kind, workloads, target, changes }: Difference): string {
  const who = workloads.length === 0 ? target : workloads.join(", ");
  const [first] = changes;
  if (first !== undefined && (first.path === "is new" || first.path === "goes away"))
    return `${kind === "service" ? "Service " : ""}${who}: ${first.path}`;
  const head =
    kind === "outbound" ? `${who} -> ${target}` : kind === "inbound" ? `${who} takes in on ${target}` : who;
  return [head, ...changes.map((each) => `    ${changeLine(each)}`)].join("\n");
}
