import { isRoute, LINKERD_POLICY, namespaceOf } from "#/kube/objects.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import type { ParentRef, RouteObject } from "#/kube/policy-objects.ts";
import type { MeshView, ViewService, ViewServicePort } from "../services/mesh-view.ts";
import type { Finding } from "./conditions.ts";

/** A route at one of its parents. */
export interface Attachment {
  readonly loaded: LoadedObject;
  readonly route: RouteObject;
  /** In `spec.parentRefs`. */
  readonly index: number;
  readonly ref: ParentRef;
  readonly service: ViewService | null;
  /** Ports of the Service that it is for; those that a more specific kind of route has are taken out. */
  readonly ports: ViewServicePort[];
  /** Null: accepted. */
  refusal: Finding | null;
}

/** GEP-1294: one kind of route counts for a port of a Service, the first of these. */
const KINDS = ["GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"] as const;

/** Routes in the order of precedence (Gateway API: older first, then by name), with each of their parents. */
export function attachments(objects: Iterable<LoadedObject>, view: MeshView): Attachment[] {
  const routes = [...objects].filter((loaded) => isRoute(loaded.object)).toSorted(byAge);
  const all = routes.flatMap((loaded) => {
    const route = loaded.object as RouteObject;
    return (route.spec.parentRefs ?? []).flatMap((ref, index) =>
      // Which requests a Server means is said to its pods, not to clients.
      isServerRef(ref) ? [] : [attach(loaded, route, ref, index, view)],
    );
  });
  for (const together of groups(all).values()) settleKinds(together);
  return all;
}

/** Gateway API: of two objects the older one goes first; without times, or with the same, the one first by name. */
export function byAge(a: LoadedObject, b: LoadedObject): number {
  return compare(ageKey(a), ageKey(b));
}

/** Sorts as `byAge` does. */
export function ageKey({ object }: LoadedObject): string {
  const createdMs = Date.parse(object.metadata.creationTimestamp ?? "");
  const age = Number.isNaN(createdMs) ? "9".repeat(15) : String(Math.max(0, createdMs)).padStart(15, "0");
  return `${age} ${namespaceOf(object)}/${object.metadata.name}`;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function attach(
  loaded: LoadedObject,
  route: RouteObject,
  ref: ParentRef,
  index: number,
  view: MeshView,
): Attachment {
  const path = ["spec", "parentRefs", index];
  const refuse = (at: string, message: string, reason = "NoMatchingParent"): Attachment => ({
    loaded,
    route,
    index,
    ref,
    service: null,
    ports: [],
    refusal: { reason, message, path: [...path, at] },
  });
  if (!isCore(ref.group) || ref.kind !== "Service")
    return refuse(
      "kind",
      `a ${ref.kind} is no parent here; routes attach to Services: write group: "" and kind: Service`,
    );
  const namespace = ref.namespace ?? namespaceOf(route);
  const name = `${namespace}/${ref.name}`;
  const service = view.servicesByName.get(name);
  if (service === undefined)
    return refuse("name", `Service ${name} does not exist; check the name and the namespace`);
  if (service.externalName !== null || service.isHeadless)
    return refuse(
      "name",
      `Service ${name} has no address of its own (${service.isHeadless ? "it is headless" : "type ExternalName"}), so nothing could be routed; give it a ClusterIP`,
      "UnsupportedValue",
    );
  const named = service.ports.filter(
    (port) =>
      (ref.port === undefined || port.port === ref.port) &&
      (ref.sectionName === undefined || port.name === ref.sectionName),
  );
  if (named.length === 0)
    return refuse(
      ref.port === undefined ? "sectionName" : "port",
      `Service ${name} has no such TCP port; it has ${service.ports.map((port) => (port.name === "" ? port.port : `${port.port} (${port.name})`)).join(", ") || "none"}`,
    );
  // Requests are not seen where bytes are not parsed.
  const isForRequests = route.kind === "HTTPRoute" || route.kind === "GRPCRoute";
  const ports = isForRequests
    ? named.filter((port) => port.protocol !== "opaque" && port.protocol !== "tls")
    : named;
  if (ports.length === 0)
    return refuse(
      "name",
      `port ${named.map((port) => port.port).join(", ")} of Service ${name} is opaque, so requests are not seen; give it appProtocol: http, or write a TCPRoute`,
      "UnsupportedProtocol",
    );
  return { loaded, route, index, ref, service, ports, refusal: null };
}

/** A parent at the pods' side. */
export function isServerRef(ref: { readonly group: string; readonly kind: string }): boolean {
  return ref.kind === "Server" && ref.group === LINKERD_POLICY;
}

/** Linkerd's manifests write the core group by name. */
export function isCore(group: string): boolean {
  return group === "" || group === "core";
}

/** Routes of producers count together, and those of the consumers of each namespace (GEP-1294). */
function groups(all: readonly Attachment[]): Map<string, Attachment[]> {
  const attached = all.filter((each) => each.service !== null);
  return Map.groupBy(attached, (each) => `${serviceKey(each.service!)} ${consumerNamespace(each) ?? ""}`);
}

export function serviceKey(service: { readonly namespace: string; readonly name: string }): string {
  return `${service.namespace}/${service.name}`;
}

/** The only namespace whose clients a consumer's route is for; null for a producer's. */
export function consumerNamespace(attachment: Attachment): string | null {
  const namespace = namespaceOf(attachment.route);
  return namespace === attachment.service?.namespace ? null : namespace;
}

function settleKinds(together: readonly Attachment[]): void {
  const winner = new Map<ViewServicePort, string>();
  for (const kind of KINDS) {
    for (const { route, ports } of together) {
      if (route.kind !== kind) continue;
      for (const port of ports) if (!winner.has(port)) winner.set(port, kind);
    }
  }
  for (const each of together) {
    const kept = each.ports.filter((port) => winner.get(port) === each.route.kind);
    if (kept.length === 0) {
      const other = winner.get(each.ports[0]!)!;
      each.refusal = {
        reason: "Conflicted",
        message: `a ${other} is attached to the same port, and only the more specific kind of route counts; remove one of them`,
        path: ["spec", "parentRefs", each.index],
      };
    }
    each.ports.splice(0, each.ports.length, ...kept);
  }
}
