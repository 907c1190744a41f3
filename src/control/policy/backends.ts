import type { LoadedObject } from "#/kube/folder.ts";
import { groupOf, namespaceOf } from "#/kube/objects.ts";
import type { ObjectRef, RouteObject } from "#/kube/policy-objects.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { serviceFqdn } from "../services/mesh-view.ts";
import { isCore } from "./attach.ts";
import type { Finding } from "./conditions.ts";
import type { ExternalIndex } from "./external.ts";
import { EXTERNAL_GROUP, externalPath } from "./external.ts";

/** Linkerd's: what an endpoint's latency is taken for before it is known, and how fast an average forgets. */
const DEFAULT_RTT_MS = 30;
const DECAY_MS = 10_000;

/** What a reference to a backend means: resolved, or an error that answers in its place. */
export interface BackendResolver {
  readonly view: MeshView;
  readonly trafficOf: (serviceKey: string, port: number) => BackendTraffic | null;
  readonly grants: readonly LoadedObject[];
  readonly externals: ExternalIndex;
}

export function serviceBackend(
  view: MeshView,
  service: { readonly name: string; readonly namespace: string },
  port: number,
  traffic: BackendTraffic | null,
): Backend {
  return {
    kind: "balancer",
    source: sourceOf("core", "Service", service.namespace, service.name, port),
    path: `${serviceFqdn(view, service)}:${port}`,
    defaultRttMs: DEFAULT_RTT_MS,
    decayMs: DECAY_MS,
    traffic,
  };
}

export function sourceOf(
  group: string,
  kind: string,
  namespace: string,
  name: string,
  port = 0,
  section = "",
): PolicySource {
  return { group, kind, namespace, name, section, port };
}

/**
 * The backend that a route's reference means. Gateway API: a reference that cannot be followed is no reason to drop it; its
 * share of requests gets an error. `findings` tells why. Into another namespace it needs a ReferenceGrant there, but not to a
 * Service that the route is attached to: a consumer's route may send on what its clients were sending there anyway.
 */
export function resolveBackend(
  resolver: BackendResolver,
  route: RouteObject,
  ref: ObjectRef,
  path: readonly (string | number)[],
  findings: Finding[],
): Backend {
  const namespace = ref.namespace ?? namespaceOf(route);
  const source = sourceOf(
    ref.group === "" ? "core" : ref.group,
    ref.kind,
    namespace,
    ref.name,
    ref.port ?? 0,
  );
  const fail = (reason: string, at: string, message: string): Backend => {
    findings.push({ reason, message, path: [...path, at] });
    return { kind: "forbidden", source, reason: message };
  };
  const isExternal = ref.group === EXTERNAL_GROUP && ref.kind === "XBackend";
  if (!isExternal && (!isCore(ref.group) || ref.kind !== "Service"))
    return fail(
      "InvalidKind",
      "kind",
      `a backend must be a Service of the core group or an XBackend, not a ${ref.kind}`,
    );
  if (
    namespace !== namespaceOf(route) &&
    !isParent(route, namespace, ref) &&
    !isGranted(resolver.grants, route, namespace, ref)
  )
    return fail(
      "RefNotPermitted",
      "namespace",
      `no ReferenceGrant in ${namespace} lets a ${route.kind} of ${namespaceOf(route)} refer to ${ref.kind} ${ref.name}; add one there`,
    );
  if (isExternal) {
    const entry = resolver.externals.get(`${namespace}/${ref.name}`);
    if (entry === undefined)
      return fail(
        "BackendNotFound",
        "name",
        `XBackend ${namespace}/${ref.name} does not exist; check the name and the namespace`,
      );
    if (entry.kind === "refused")
      return fail("BackendNotFound", "name", `XBackend ${namespace}/${ref.name} is not accepted`);
    const { port } = entry.backend;
    if (ref.port !== undefined && ref.port !== port)
      return fail("BackendNotFound", "port", `XBackend ${namespace}/${ref.name} has port ${port}`);
    return {
      kind: "balancer",
      source: entry.backend.source,
      path: externalPath(resolver.view, namespace, ref.name, port),
      defaultRttMs: DEFAULT_RTT_MS,
      decayMs: DECAY_MS,
      traffic: null,
    };
  }
  const service = resolver.view.servicesByName.get(`${namespace}/${ref.name}`);
  if (service === undefined)
    return fail(
      "BackendNotFound",
      "name",
      `Service ${namespace}/${ref.name} does not exist; check the name and the namespace`,
    );
  if (service.externalName !== null)
    return fail(
      "InvalidKind",
      "name",
      `Service ${namespace}/${ref.name} has type ExternalName, which is no backend; write an XBackend for ${service.externalName}`,
    );
  const port = ref.port ?? 0;
  if (!service.ports.some((each) => each.port === port))
    return fail(
      "BackendNotFound",
      "port",
      `Service ${namespace}/${ref.name} has no TCP port ${port}; it has ${service.ports.map((each) => each.port).join(", ") || "none"}`,
    );
  return serviceBackend(resolver.view, service, port, resolver.trafficOf(`${namespace}/${ref.name}`, port));
}

function isParent(route: RouteObject, namespace: string, ref: ObjectRef): boolean {
  return (route.spec.parentRefs ?? []).some(
    (parent) =>
      isCore(parent.group) &&
      parent.kind === "Service" &&
      parent.name === ref.name &&
      (parent.namespace ?? namespaceOf(route)) === namespace,
  );
}

function isGranted(
  grants: readonly LoadedObject[],
  route: RouteObject,
  namespace: string,
  ref: ObjectRef,
): boolean {
  return grants.some(
    ({ object }) =>
      object.kind === "ReferenceGrant" &&
      namespaceOf(object) === namespace &&
      object.spec.from.some(
        (from) =>
          from.group === groupOf(route) && from.kind === route.kind && from.namespace === namespaceOf(route),
      ) &&
      object.spec.to.some(
        (to) =>
          (to.group === ref.group || (isCore(to.group) && isCore(ref.group))) &&
          to.kind === ref.kind &&
          (to.name === undefined || to.name === ref.name),
      ),
  );
}
