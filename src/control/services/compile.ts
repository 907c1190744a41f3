import type { IpAddress } from "#/base/address.ts";
import { parseIp } from "#/base/address.ts";
import type { LoadedObject } from "#/kube/folder.ts";
import { inboundDefaultIn } from "#/kube/inbound-default.ts";
import { meshSettings, portInRanges } from "#/kube/mesh-annotations.ts";
import type { PortRange } from "#/kube/mesh-annotations.ts";
import { namespaceOf } from "#/kube/objects.ts";
import type { EndpointSliceObject, ServiceObject, ServicePort } from "#/kube/objects.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { PodPlan, PodStatus, ServicePlan } from "#/model/pod-plan.ts";
import type { Protocol } from "#/model/policy.ts";
import { NO_POLICY } from "../policy/compile.ts";
import type { MeshView, ViewEndpoint, ViewPod, ViewService } from "./mesh-view.ts";
import { declaredProtocol } from "./port-protocol.ts";
import { serverProtocols } from "./server-protocols.ts";

/** A pod as the control plane asked for it and as the agent reports it. */
export interface KnownPod {
  readonly plan: PodPlan;
  readonly status: PodStatus | null;
  readonly isLeaving: boolean;
  readonly opaquePorts: readonly PortRange[];
}

export interface ServiceInput {
  readonly node: NodeInfo;
  readonly objects: ReadonlyMap<string, LoadedObject>;
  readonly pods: readonly KnownPod[];
  /** By `namespace/name`. */
  readonly clusterIps: ReadonlyMap<string, IpAddress>;
  /** Annotations of a namespace, and of the mesh as a whole. */
  readonly namespaceAnnotations: (namespace: string) => Readonly<Record<string, string>>;
  readonly meshAnnotations: Readonly<Record<string, string>>;
}

/**
 * Joins Services and pods into what the agent needs for names and virtual IPs, and what the RPCs answer from. The view is
 * still without policy, which is attached to Services and so is compiled after them.
 */
export function compileServices(input: ServiceInput): { services: ServicePlan[]; view: MeshView } {
  const slices = slicesByService(input.objects);
  const protocols = new Map<string, Map<number, Protocol>>();
  const pods = new Map<string, ViewPod>();
  for (const pod of input.pods) {
    const portProtocols = new Map<number, Protocol>();
    protocols.set(pod.plan.uid, portProtocols);
    pods.set(pod.plan.uid, viewPod(pod, input.node, portProtocols));
  }
  const byLabel = podsByLabel(input.pods);
  const plans: ServicePlan[] = [];
  const servicesByIp = new Map<string, ViewService>();
  const servicesByName = new Map<string, ViewService>();
  for (const { object } of input.objects.values()) {
    if (object.kind !== "Service") continue;
    const namespace = namespaceOf(object);
    const key = `${namespace}/${object.metadata.name}`;
    const selected = selectPods(object, namespace, byLabel);
    const made = compileService(object, namespace, input, selected, pods, slices.get(key) ?? []);
    plans.push(made.plan);
    servicesByName.set(key, made.view);
    if (made.view.clusterIp !== null) servicesByIp.set(made.view.clusterIp, made.view);
    agreeOnProtocols(object, made.view, selected, protocols);
  }
  serverProtocols(
    input.objects.values(),
    input.pods.map(({ plan }) => plan),
    protocols,
  );
  const podsByIp = new Map<string, ViewPod>();
  const podsByName = new Map<string, ViewPod>();
  for (const pod of pods.values()) {
    for (const [map, id] of [
      [podsByIp, pod.ip],
      [podsByName, `${pod.namespace}/${pod.name}`],
    ] as const) {
      if (id !== "" && (!map.has(id) || map.get(id)!.isLeaving)) map.set(id, pod);
    }
  }
  plans.sort((a, b) => (`${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1));
  const { node } = input;
  return {
    services: plans,
    view: { node, podsByIp, podsByName, servicesByIp, servicesByName, policy: NO_POLICY },
  };
}

function compileService(
  object: ServiceObject,
  namespace: string,
  input: ServiceInput,
  selected: readonly KnownPod[],
  pods: ReadonlyMap<string, ViewPod>,
  slices: readonly EndpointSliceObject[],
): { plan: ServicePlan; view: ViewService } {
  const { spec } = object;
  const { name } = object.metadata;
  const externalName = spec.type === "ExternalName" ? (spec.externalName ?? null) : null;
  const isHeadless = spec.clusterIP === "None";
  const clusterIp =
    isHeadless || externalName !== null ? null : (input.clusterIps.get(`${namespace}/${name}`) ?? null);
  const publishNotReady = spec.publishNotReadyAddresses ?? false;
  const ports = spec.ports ?? [];
  const selector = Object.entries(spec.selector ?? {});
  const endpoints: {
    podUid: string;
    ip: IpAddress;
    hostname: string | null;
    ready: boolean;
    targetPorts: number[];
    pod: ViewPod | null;
  }[] = [];
  for (const pod of selected) {
    if (pod.isLeaving) continue;
    const { status } = pod;
    const ip = status === null ? null : parseIp(status.ip);
    if (
      status === null ||
      ip === null ||
      status.terminating ||
      status.phase === "Succeeded" ||
      status.phase === "Failed"
    )
      continue;
    endpoints.push({
      podUid: pod.plan.uid,
      ip,
      hostname: pod.plan.subdomain === name ? pod.plan.hostname : null,
      ready: status.ready || publishNotReady,
      targetPorts: ports.map((port) => targetPort(port, pod.plan)),
      pod: pods.get(pod.plan.uid) ?? null,
    });
  }
  if (selector.length === 0) {
    for (const slice of slices) {
      for (const endpoint of slice.endpoints) {
        const ready = endpoint.conditions?.ready ?? true;
        for (const address of endpoint.addresses) {
          const ip = parseIp(address);
          if (ip !== null)
            endpoints.push({
              podUid: "",
              ip,
              hostname: endpoint.hostname ?? null,
              ready: ready || publishNotReady,
              targetPorts: ports.map((port) => slicePort(port, slice, ports.length)),
              pod: null,
            });
        }
      }
    }
  }
  endpoints.sort((a, b) => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : 0));
  const own = object.metadata.annotations?.["config.linkerd.io/opaque-ports"];
  const opaque = meshSettings(
    input.meshAnnotations,
    input.namespaceAnnotations(namespace),
    own === undefined ? undefined : { "config.linkerd.io/opaque-ports": own },
  ).opaquePorts;
  const view: ViewService = {
    name,
    namespace,
    clusterIp,
    isHeadless,
    externalName,
    ports: ports.flatMap((port, i) => {
      if ((port.protocol ?? "TCP") !== "TCP") return [];
      const protocol = portInRanges(opaque, port.port, port.name)
        ? "opaque"
        : declaredProtocol(port.appProtocol, port.name);
      const ready = endpoints.flatMap((endpoint): ViewEndpoint[] =>
        endpoint.ready && endpoint.targetPorts[i] !== 0
          ? [
              {
                ip: endpoint.ip,
                port: endpoint.targetPorts[i]!,
                hostname: endpoint.hostname,
                pod: endpoint.pod,
              },
            ]
          : [],
      );
      return [{ name: port.name ?? "", port: port.port, protocol, endpoints: ready }];
    }),
  };
  const plan: ServicePlan = {
    name,
    namespace,
    clusterIp,
    externalName,
    publishNotReady,
    sessionAffinityClientIp: false,
    ports: ports.map((port) => ({
      name: port.name ?? "",
      port: port.port,
      protocol: port.protocol ?? "TCP",
    })),
    endpoints: endpoints.map(({ podUid, ip, hostname, ready, targetPorts }) => ({
      podUid,
      ip,
      hostname,
      ready,
      targetPorts,
    })),
  };
  return { plan, view };
}

/** Pods by each of their labels: most Services then look at their own pods only. */
function podsByLabel(pods: readonly KnownPod[]): Map<string, KnownPod[]> {
  const out = new Map<string, KnownPod[]>();
  for (const pod of pods) {
    for (const [label, value] of Object.entries(pod.plan.labels)) {
      const key = labelKey(pod.plan.namespace, label, value);
      const some = out.get(key);
      if (some === undefined) out.set(key, [pod]);
      else some.push(pod);
    }
  }
  return out;
}

/** An empty selector selects nothing: such a Service's addresses come from EndpointSlices. */
function selectPods(
  object: ServiceObject,
  namespace: string,
  byLabel: ReadonlyMap<string, readonly KnownPod[]>,
): readonly KnownPod[] {
  const [first, ...rest] = Object.entries(object.spec.selector ?? {});
  if (first === undefined || object.spec.type === "ExternalName") return [];
  const some = byLabel.get(labelKey(namespace, ...first)) ?? [];
  return some.filter((pod) => rest.every(([label, value]) => pod.plan.labels[label] === value));
}

function labelKey(namespace: string, label: string, value: string): string {
  return `${namespace}\0${label}\0${value}`;
}

/** Port on the pod; 0 when the Service names a port that this pod does not have. */
function targetPort(port: ServicePort, plan: PodPlan): number {
  const target = port.targetPort ?? port.port;
  if (typeof target === "number") return target;
  for (const container of [...plan.containers, ...plan.initContainers]) {
    for (const one of container.ports)
      if (one.name === target && one.protocol === (port.protocol ?? "TCP")) return one.containerPort;
  }
  return 0;
}

/** Kubernetes joins the ports of a Service and of its slices by name; one unnamed port on each side belongs together. */
function slicePort(port: ServicePort, slice: EndpointSliceObject, count: number): number {
  const ports = slice.ports ?? [];
  const found = ports.find(
    (one) => (one.name ?? "") === (port.name ?? "") && (one.protocol ?? "TCP") === (port.protocol ?? "TCP"),
  );
  if (found !== undefined) return found.port;
  return count === 1 && ports.length === 1 && ports[0]!.name === undefined ? ports[0]!.port : 0;
}

function slicesByService(objects: ReadonlyMap<string, LoadedObject>): Map<string, EndpointSliceObject[]> {
  const out = new Map<string, EndpointSliceObject[]>();
  for (const { object } of objects.values()) {
    if (object.kind !== "EndpointSlice") continue;
    const key = `${namespaceOf(object)}/${object.metadata.labels?.["kubernetes.io/service-name"] ?? ""}`;
    out.set(key, [...(out.get(key) ?? []), object]);
  }
  return out;
}

/** A pod's port speaks what its Services declare, as long as they do not contradict each other. */
function agreeOnProtocols(
  object: ServiceObject,
  view: ViewService,
  selected: readonly KnownPod[],
  protocols: ReadonlyMap<string, Map<number, Protocol>>,
): void {
  for (const pod of selected) {
    const known = protocols.get(pod.plan.uid)!;
    for (const port of view.ports) {
      const source = object.spec.ports?.find(
        (one) => one.port === port.port && (one.protocol ?? "TCP") === "TCP",
      );
      const target = source === undefined ? 0 : targetPort(source, pod.plan);
      if (target === 0) continue;
      const before = known.get(target);
      known.set(target, before === undefined || before === port.protocol ? port.protocol : "detect");
    }
  }
}

/** What a pod's plan alone says of it. */
type PlanFacts = Pick<
  ViewPod,
  | "labels"
  | "identity"
  | "workload"
  | "skipInboundPorts"
  | "inboundDefault"
  | "ports"
  | "probes"
  | "grpcProbePorts"
  | "tcpProbePorts"
>;

/** The same objects as long as the plan is the same, so that a pod that has not changed is known by them. */
const PLAN_FACTS = new WeakMap<PodPlan, PlanFacts>();

function planFacts(plan: PodPlan, trustDomain: string): PlanFacts {
  const known = PLAN_FACTS.get(plan);
  if (known?.identity.trustDomain === trustDomain) return known;
  const [kind, , workload] = plan.owner.split("/");
  const probes = plan.containers.flatMap((container) =>
    [container.startupProbe, container.readinessProbe, container.livenessProbe].flatMap((probe) =>
      probe === null ? [] : [probe.action],
    ),
  );
  const facts: PlanFacts = {
    labels: plan.labels,
    identity: { trustDomain, namespace: plan.namespace, serviceAccount: plan.serviceAccount },
    workload:
      kind === undefined || workload === undefined || kind === "Pod"
        ? null
        : { kind: kind.toLowerCase(), name: workload },
    skipInboundPorts: plan.sidecar?.skipInboundPorts ?? [],
    inboundDefault: inboundDefaultIn(plan.annotations),
    ports: [...plan.containers, ...plan.initContainers].flatMap((container) =>
      container.ports
        .filter((port) => port.protocol === "TCP")
        .map((port) => ({ name: port.name, port: port.containerPort })),
    ),
    probes: probes.flatMap((action) =>
      action.kind === "http" ? [{ path: action.path.split("?")[0]!, port: action.port }] : [],
    ),
    grpcProbePorts: probes.flatMap((action) => (action.kind === "grpc" ? [action.port] : [])),
    tcpProbePorts: probes.flatMap((action) => (action.kind === "tcp" ? [action.port] : [])),
  };
  PLAN_FACTS.set(plan, facts);
  return facts;
}

function viewPod(pod: KnownPod, node: NodeInfo, protocols: ReadonlyMap<number, Protocol>): ViewPod {
  const { plan, status } = pod;
  return {
    ...planFacts(plan, node.trustDomain),
    uid: plan.uid,
    name: plan.name,
    namespace: plan.namespace,
    ip: (status === null ? null : parseIp(status.ip)) ?? "",
    templateHash: plan.templateHash,
    isMeshed: plan.sidecar !== null && node.testWithoutTls !== true,
    isReady: status?.ready ?? false,
    isLeaving: pod.isLeaving || (status?.terminating ?? false),
    hostname: plan.hostname,
    subdomain: plan.subdomain,
    opaquePorts: pod.opaquePorts,
    protocols,
  };
}
