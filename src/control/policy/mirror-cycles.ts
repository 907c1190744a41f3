import { namespaceOf } from "#/kube/objects.ts";
import type { MirrorFilter, RouteFilter, RouteObject } from "#/kube/policy-objects.ts";
import type { Attachment } from "./attach.ts";
import { serviceKey } from "./attach.ts";

/** Services by those that routes at them mirror to. */
export type MirrorGraph = ReadonlyMap<string, ReadonlySet<string>>;

export function mirrorGraph(all: readonly Attachment[]): MirrorGraph {
  const graph = new Map<string, Set<string>>();
  for (const { route, service, refusal } of all) {
    if (service === null || refusal !== null) continue;
    for (const mirror of mirrorsOf(route)) {
      const from = serviceKey(service);
      const some = graph.get(from) ?? new Set();
      some.add(mirrorKey(route, mirror));
      graph.set(from, some);
    }
  }
  return graph;
}

/**
 * The way from a mirror's service back to the one that it mirrors: a program that, asked, asks the other service would be sent
 * copies of what its copies asked for, without end. Null when there is none.
 */
export function mirrorCycle(
  graph: MirrorGraph,
  from: string,
  route: RouteObject,
  mirror: MirrorFilter,
): readonly string[] | null {
  const first = mirrorKey(route, mirror);
  const cameFrom = new Map<string, string>([[first, from]]);
  const queue = [first];
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
    if (at === from) {
      const way = [from];
      for (let back = cameFrom.get(at)!; ; back = cameFrom.get(back)!) {
        way.unshift(back);
        if (back === from) return way;
      }
    }
    for (const next of graph.get(at) ?? []) {
      if (cameFrom.has(next)) continue;
      cameFrom.set(next, at);
      queue.push(next);
    }
  }
  return null;
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
