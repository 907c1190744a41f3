import type { AuthorizationPolicyObject, JwtPolicyObject } from "#/kube/access-objects.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { groupOf, namespaceOf } from "#/kube/objects.ts";
import type { LabelSelector, ServiceObject } from "#/kube/objects.ts";
import type {
  GrpcRouteMatch,
  GrpcRouteObject,
  HttpRouteMatch,
  HttpRouteObject,
} from "#/kube/policy-objects.ts";
import type { RequestCondition } from "#/model/access.ts";
import type { HttpMatch } from "#/model/route.ts";
import type { MeshView } from "../../services/mesh-view.ts";
import { isCore } from "../attach.ts";
import type { Finding } from "../conditions.ts";
import { grpcMatch, httpMatch } from "../routes.ts";
import { conditionOfMatch } from "./requests.ts";

/** The ports of pods that a policy's target is, and the requests there. */
export interface AccessPlace {
  /** Null: all pods of the namespace. */
  readonly selector: LabelSelector | null;
  /** Null: all. */
  readonly ports: ReadonlySet<number | string> | null;
  /** Null: everything, also what is no request. */
  readonly conditions: readonly RequestCondition[] | null;
  /** By kind of target: what is about less goes first. */
  readonly rank: number;
  /** Of the Service: ports at which no requests are seen. */
  readonly opaquePorts: readonly number[];
}

export const RANK = { route: 0, service: 1, pod: 2, namespace: 3 } as const;

export type Places =
  | { readonly kind: "places"; readonly places: readonly AccessPlace[] }
  | { readonly kind: "refused"; readonly refusal: Finding };

/** Where a policy's target is. Independent of which pods there are now. */
export function placesOf(
  policy: AuthorizationPolicyObject | JwtPolicyObject,
  index: number,
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
  view: MeshView,
): Places {
  const { kind, name = "", selector } = policy.spec.targetRefs[index]!;
  const namespace = namespaceOf(policy);
  const refuse = (message: string, reason = "TargetNotFound"): Places => ({
    kind: "refused",
    refusal: { reason, message, path: ["spec", "targetRefs", index, "name"] },
  });
  const all = { ports: null, conditions: null, opaquePorts: [] };
  if (kind === "Pod")
    return { kind: "places", places: [{ ...all, selector: selector ?? {}, rank: RANK.pod }] };
  if (kind === "Namespace")
    return { kind: "places", places: [{ ...all, selector: null, rank: RANK.namespace }] };
  if (kind === "Service") {
    const service = serviceNamed(`${namespace}/${name}`, byKind);
    if (service === null)
      return refuse(`Service ${namespace}/${name} does not exist; a policy and its target share a namespace`);
    if (!hasPods(service))
      return refuse(
        `Service ${namespace}/${name} has no selector, so there are no pods at whose side this could be kept`,
        "Invalid",
      );
    return { kind: "places", places: [placeAt(service, view, () => true, null, RANK.service)] };
  }
  const route = routeNamed(kind, "gateway.networking.k8s.io", `${namespace}/${name}`, byKind);
  if (route === null)
    return refuse(`${kind} ${namespace}/${name} does not exist; a policy and its target share a namespace`);
  const conditions = matchesOf(route).map(conditionOfMatch);
  const places = (route.spec.parentRefs ?? []).flatMap((ref): AccessPlace[] => {
    // Who may call a Service is said in its own namespace.
    if (!isCore(ref.group) || ref.kind !== "Service" || (ref.namespace ?? namespace) !== namespace) return [];
    const service = serviceNamed(`${namespace}/${ref.name}`, byKind);
    if (service === null || !hasPods(service)) return [];
    const isMeant = (port: { readonly port: number; readonly name?: string }): boolean =>
      (ref.port === undefined || port.port === ref.port) &&
      (ref.sectionName === undefined || port.name === ref.sectionName);
    return [placeAt(service, view, isMeant, conditions, RANK.route)];
  });
  return places.length > 0
    ? { kind: "places", places }
    : refuse(
        `${kind} ${namespace}/${name} is attached to no Service of this namespace, so there are no pods at whose side this could be kept`,
        "Invalid",
      );
}

function placeAt(
  service: ServiceObject,
  view: MeshView,
  isMeant: (port: { readonly port: number; readonly name?: string }) => boolean,
  conditions: readonly RequestCondition[] | null,
  rank: number,
): AccessPlace {
  const ports = (service.spec.ports ?? []).filter(
    (port) => (port.protocol ?? "TCP") === "TCP" && isMeant(port),
  );
  const known = view.servicesByName.get(`${namespaceOf(service)}/${service.metadata.name}`)?.ports ?? [];
  const numbers = new Set(ports.map(({ port }) => port));
  return {
    selector: { matchLabels: service.spec.selector! },
    ports: new Set(ports.map((port) => port.targetPort ?? port.port)),
    conditions,
    rank,
    opaquePorts: known
      .filter(({ port, protocol }) => numbers.has(port) && (protocol === "opaque" || protocol === "tls"))
      .map(({ port }) => port),
  };
}

function serviceNamed(
  key: string,
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
): ServiceObject | null {
  for (const { object } of byKind.get("Service") ?? [])
    if (object.kind === "Service" && `${namespaceOf(object)}/${object.metadata.name}` === key) return object;
  return null;
}

/** A Service without a selector, or one that stands for a name, has no pods of ours. */
function hasPods({ spec }: ServiceObject): boolean {
  return Object.keys(spec.selector ?? {}).length > 0 && spec.type !== "ExternalName";
}

export type RequestRoute = HttpRouteObject | GrpcRouteObject;

export function routeNamed(
  kind: "HTTPRoute" | "GRPCRoute",
  group: string,
  key: string,
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
): RequestRoute | null {
  for (const { object } of byKind.get(kind) ?? [])
    if (
      (object.kind === "HTTPRoute" || object.kind === "GRPCRoute") &&
      groupOf(object) === group &&
      `${namespaceOf(object)}/${object.metadata.name}` === key
    )
      return object;
  return null;
}

/** What any of a route's rules takes. A rule without matches takes everything. */
export function matchesOf(route: RequestRoute): HttpMatch[] {
  return (route.spec.rules ?? []).flatMap((rule): HttpMatch[] => {
    const matches = rule.matches ?? [];
    if (matches.length === 0) return [{ path: null, headers: [], query: [], method: null }];
    return route.kind === "HTTPRoute"
      ? matches.map((match) => httpMatch(match as HttpRouteMatch))
      : matches.map((match) => grpcMatch(match as GrpcRouteMatch));
  });
}
