import type { IpAddress } from "#/base/address.ts";
import { compilePolicy } from "#/control/policy/compile.ts";
import { compileServices } from "#/control/services/compile.ts";
import type { KnownPod } from "#/control/services/compile.ts";
import type { MeshView, ViewService, ViewServicePort } from "#/control/services/mesh-view.ts";
import { serviceFqdn } from "#/control/services/mesh-view.ts";
import { allocateVirtualIps } from "#/control/services/virtual-ips.ts";
import { buildPod } from "#/control/workloads/pod-builder.ts";
import { MissingReference, referencesIn } from "#/control/workloads/references.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { problemOf } from "#/kube/folder.ts";
import { MESH_CONFIG_NAME, MESH_CONFIG_NAMESPACE, meshSettings } from "#/kube/mesh-annotations.ts";
import { isWorkload, namespaceOf, objectKey, templateOf, templatePath } from "#/kube/objects.ts";
import type { WorkloadObject } from "#/kube/objects.ts";
import type { FolderProblem, NodeInfo } from "#/model/node-protocol.ts";
import type { PodPlan, PodStatus } from "#/model/pod-plan.ts";

/** A folder's objects as the control plane sees them once every pod is ready. */
export interface FolderMesh {
  readonly view: MeshView;
  readonly workloads: readonly FolderWorkload[];
  readonly targets: readonly FolderTarget[];
}

export interface FolderWorkload {
  /** `namespace/name`. */
  readonly name: string;
  readonly namespace: string;
  readonly pods: readonly PodPlan[];
}

/** A port of a Service. */
export interface FolderTarget {
  readonly service: ViewService;
  readonly port: ViewServicePort;
  /** What discovery is asked for. */
  readonly path: string;
}

/**
 * `replicasOf` overrides what a workload asks for: null where it does not. Problems keep a pod from being made; warnings are of
 * policies of which the rest counts, as in a real mesh. `of`: networks and trust domain of a mesh that it is compared with.
 */
export function meshOfFolder(
  objects: ReadonlyMap<string, LoadedObject>,
  replicasOf: (workload: string) => number | null,
  of: Partial<NodeInfo> = {},
): { mesh: FolderMesh; problems: FolderProblem[]; warnings: FolderProblem[] } {
  const node = { ...NODE, ...of };
  const problems: FolderProblem[] = [];
  const annotationsOf = (namespace: string): Readonly<Record<string, string>> =>
    objects.get(`Namespace//${namespace}`)?.object.metadata.annotations ?? {};
  const config = objects.get(`ConfigMap/${MESH_CONFIG_NAMESPACE}/${MESH_CONFIG_NAME}`)?.object;
  const meshAnnotations = config?.kind === "ConfigMap" ? (config.data ?? {}) : {};
  const refs = referencesIn(objects);
  const workloads: FolderWorkload[] = [];
  const known: KnownPod[] = [];
  let serial = 0;
  for (const loaded of objects.values()) {
    const { object } = loaded;
    if (!isWorkload(object)) continue;
    const namespace = namespaceOf(object);
    const name = `${namespace}/${object.metadata.name}`;
    const template = templateOf(object);
    const mesh = meshSettings(meshAnnotations, annotationsOf(namespace), template.metadata?.annotations);
    const pods: PodPlan[] = [];
    const count = replicasOf(name) ?? replicasIn(object);
    for (let i = 0; i < count; i++) {
      try {
        const plan = buildPod(
          {
            uid: `simulated-${serial}`,
            name: object.kind === "Pod" ? object.metadata.name : `${object.metadata.name}-${i}`,
            namespace,
            owner: objectKey(object),
            templateHash: "simulated",
            template,
            labels: {},
            claims: claimsOf(object, i),
            hostname: null,
            subdomain: object.kind === "StatefulSet" ? (object.spec.serviceName ?? null) : null,
          },
          { node, refs, mesh, trustAnchorsPem: "" },
        );
        pods.push(plan);
        known.push({
          plan,
          status: readyStatus(plan, ipOf(serial++)),
          isLeaving: false,
          opaquePorts: mesh.opaquePorts,
        });
      } catch (error) {
        if (!(error instanceof MissingReference)) throw error;
        problems.push(problemOf(loaded, [...templatePath(object), "spec", ...error.path], error.message));
        break;
      }
    }
    workloads.push({ name, namespace, pods });
  }
  const compiled = compileServices({
    node,
    objects,
    pods: known,
    clusterIps: clusterIpsOf(objects, node),
    namespaceAnnotations: annotationsOf,
    meshAnnotations,
  });
  const policy = compilePolicy({ objects, view: compiled.view });
  const view = { ...compiled.view, policy };
  const warnings = [...policy.findings].flatMap(([key, findings]) => {
    const loaded = objects.get(key);
    return loaded === undefined ? [] : findings.map(({ message, path }) => problemOf(loaded, path, message));
  });
  const targets = [...view.servicesByName.values()].flatMap((service) =>
    service.ports.map((port) => ({ service, port, path: `${serviceFqdn(view, service)}:${port.port}` })),
  );
  return { mesh: { view, workloads, targets }, problems, warnings };
}

function replicasIn(object: WorkloadObject): number {
  switch (object.kind) {
    case "Deployment":
    case "StatefulSet":
      return object.spec.replicas ?? 1;
    case "Job":
      return object.spec.parallelism ?? 1;
    default:
      return 1;
  }
}

function claimsOf(object: WorkloadObject, i: number): Record<string, string> {
  if (object.kind !== "StatefulSet") return {};
  const templates = object.spec.volumeClaimTemplates ?? [];
  return Object.fromEntries(
    templates.map(({ metadata }) => [metadata.name, `${metadata.name}-${object.metadata.name}-${i}`]),
  );
}

function clusterIpsOf(objects: ReadonlyMap<string, LoadedObject>, node: NodeInfo): Map<string, IpAddress> {
  const asking = [...objects.values()].flatMap(({ object }) =>
    object.kind === "Service" && object.spec.clusterIP !== "None" && object.spec.type !== "ExternalName"
      ? [{ key: `${namespaceOf(object)}/${object.metadata.name}`, wanted: null }]
      : [],
  );
  const { ips } = allocateVirtualIps(asking, {}, node.serviceCidr);
  return new Map(
    [...ips].flatMap(([key, allocation]) =>
      allocation.kind === "ip" ? [[key, allocation.ip] as const] : [],
    ),
  );
}

function readyStatus(plan: PodPlan, ip: IpAddress): PodStatus {
  return {
    uid: plan.uid,
    name: plan.name,
    namespace: plan.namespace,
    templateHash: plan.templateHash,
    owner: plan.owner,
    ip,
    phase: "Running",
    ready: true,
    terminating: false,
    message: "",
    startedAtMs: 0,
    intercept: "none",
    containers: [],
    sidecar: null,
  };
}

function ipOf(serial: number): IpAddress {
  return `10.${64 + (serial >> 16)}.${(serial >> 8) & 255}.${serial & 255}` as IpAddress;
}

const NODE: NodeInfo = {
  name: "simulated",
  instance: "simulated",
  gatewayIp: "10.127.255.254",
  podCidr: "10.64.0.0/10",
  serviceCidr: "10.128.0.0/12",
  controlPort: 8086,
  intercept: "explicit",
  clusterDomain: "cluster.local",
  trustDomain: "cluster.local",
};
