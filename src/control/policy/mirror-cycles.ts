import { namespaceOf } from "#/kube/objects.ts";
import type { MirrorFilter, RouteFilter, RouteObject } from "#/kube/policy-objects.ts";
import type { Attachment } from "./attach.ts";
import { serviceKey } from "./attach.ts";

/** Which Services mirror to which, by routes at them, and which of them lie on a circle together. */
export interface MirrorGraph {
  readonly edges: ReadonlyMap<string, ReadonlySet<string>>;
  /** By Service: the same for two that lead to each other. */
  readonly circleOf: ReadonlyMap<string, number>;
}

export function mirrorGraph(all: readonly Attachment[]): MirrorGraph {
  const edges = new Map<string, Set<string>>();
  for (const { route, service, refusal } of all) {
    if (service === null || refusal !== null) continue;
    for (const mirror of mirrorsOf(route)) {
      const from = serviceKey(service);
      const some = edges.get(from) ?? new Set();
      some.add(mirrorKey(route, mirror));
      edges.set(from, some);
    }
  }
  return { edges, circleOf: circles(edges) };
}

/**
 * The way from a mirror's service back to the one that it mirrors: a program that, asked, asks the other service would be sent
 * copies of what its copies asked for, without end. Null when there is none. A long way is told in part ("…").
 */
export function mirrorCycle(
  { edges, circleOf }: MirrorGraph,
  from: string,
  route: RouteObject,
  mirror: MirrorFilter,
): readonly string[] | null {
  const first = mirrorKey(route, mirror);
  if (first === from) return [from, from];
  if (!circleOf.has(first) || circleOf.get(first) !== circleOf.get(from)) return null;
  const cameFrom = new Map<string, string>([[first, from]]);
  for (const at of cameFrom.keys()) {
    if (at === from) return wayTo(from, cameFrom);
    if (cameFrom.size > SERVICES_SHOWN_MAX) break;
    for (const next of edges.get(at) ?? [])
      if (!cameFrom.has(next) && circleOf.get(next) === circleOf.get(from)) cameFrom.set(next, at);
  }
  return [from, first, "…", from];
}

const SERVICES_SHOWN_MAX = 16;

function wayTo(from: string, cameFrom: ReadonlyMap<string, string>): string[] {
  const way = [from];
  for (let back = cameFrom.get(from)!; ; back = cameFrom.get(back)!) {
    way.unshift(back);
    if (back === from) return way;
  }
}

/** Strongly connected components (Tarjan 1972), without recursion: a folder may hold thousands of Services. */
function circles(edges: ReadonlyMap<string, ReadonlySet<string>>): Map<string, number> {
  const circleOf = new Map<string, number>();
  const numberOf = new Map<string, number>();
  const lowest = new Map<string, number>();
  const open: string[] = [];
  for (const root of edges.keys()) {
    if (numberOf.has(root)) continue;
    const path: { readonly at: string; readonly rest: Iterator<string> }[] = [];
    const enter = (at: string): void => {
      numberOf.set(at, numberOf.size);
      lowest.set(at, numberOf.get(at)!);
      open.push(at);
      path.push({ at, rest: (edges.get(at) ?? []).values() });
    };
    enter(root);
    for (let step = path.at(-1); step !== undefined; step = path.at(-1)) {
      const { at, rest } = step;
      const next = rest.next();
      if (next.done !== true) {
        if (!numberOf.has(next.value)) enter(next.value);
        else if (!circleOf.has(next.value))
          lowest.set(at, Math.min(lowest.get(at)!, numberOf.get(next.value)!));
        continue;
      }
      path.pop();
      const above = path.at(-1)?.at;
      if (above !== undefined) lowest.set(above, Math.min(lowest.get(above)!, lowest.get(at)!));
      if (lowest.get(at) !== numberOf.get(at)) continue;
      for (let member = open.pop(); member !== undefined; member = open.pop()) {
        circleOf.set(member, numberOf.get(at)!);
        if (member === at) break;
      }
    }
  }
  return circleOf;
}

function mirrorKey(route: RouteObject, { backendRef }: MirrorFilter): string {
  return `${backendRef.namespace ?? namespaceOf(route)}/${backendRef.name}`;
}

function mirrorsOf(route: RouteObject): readonly MirrorFilter[] {
  if (route.kind !== "HTTPRoute" && route.kind !== "GRPCRoute") return [];
  const filters: readonly RouteFilter[] = (route.spec.rules ?? []).flatMap((rule) => [
    ...(rule.filters ?? []),
    ...(rule.backendRefs ?? []).flatMap((ref) => ref.filters ?? []),
  ]);
  return filters.flatMap((filter) => (filter.requestMirror === undefined ? [] : [filter.requestMirror]));
}
