import type { MeshSettings } from "#/kube/mesh-annotations.ts";
import type { Container, Hook, HttpAction, PodSpec, PodTemplate, Probe } from "#/kube/objects.ts";
import { byteCount, cpuMillis } from "#/kube/quantity.ts";
import type { NodeInfo } from "#/model/node-protocol.ts";
import type { ContainerPlan, HookPlan, PodPlan, ProbeAction, ProbePlan } from "#/model/pod-plan.ts";
import type { PodFacts } from "./downward.ts";
import { environmentOf, expand } from "./environment.ts";
import { MissingReference } from "./references.ts";
import type { References } from "./references.ts";
import { zoneOf } from "../zone.ts";
import { sidecarPlan } from "./sidecar.ts";
import { volumesOf } from "./volumes.ts";

export interface PodToBuild {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly owner: string;
  readonly templateHash: string;
  readonly template: PodTemplate;
  /** Beyond the template's own. */
  readonly labels: Readonly<Record<string, string>>;
  /** Claim by volume name, for a StatefulSet's pods. */
  readonly claims: Readonly<Record<string, string>>;
  /** Set by a StatefulSet; else the template's. */
  readonly hostname: string | null;
  readonly subdomain: string | null;
}

export interface BuildContext {
  readonly node: NodeInfo;
  readonly refs: References;
  readonly mesh: MeshSettings;
  readonly trustAnchorsPem: string;
}

/** A pod with everything resolved, ready for the agent. Throws `MissingReference` when the template names what is not there. */
export function buildPod(pod: PodToBuild, context: BuildContext): PodPlan {
  const { spec } = pod.template;
  const { node, refs, mesh } = context;
  const serviceAccount = serviceAccountOf(spec);
  if (!refs.hasServiceAccount(pod.namespace, serviceAccount)) {
    throw new MissingReference(
      ["serviceAccountName"],
      `ServiceAccount ${pod.namespace}/${serviceAccount} does not exist; add it: it is the workload's identity`,
    );
  }
  const labels = {
    ...pod.template.metadata?.labels,
    ...pod.labels,
    ...(mesh.meshed ? { "linkerd.io/control-plane-ns": "pillion" } : {}),
  };
  const annotations = pod.template.metadata?.annotations ?? {};
  const facts: PodFacts = {
    name: pod.name,
    namespace: pod.namespace,
    uid: pod.uid,
    labels,
    annotations,
    nodeName: node.name,
    serviceAccount,
  };
  const container = (c: Container, path: readonly (string | number)[]): ContainerPlan =>
    containerPlan(c, spec, facts, refs, path);
  return {
    uid: pod.uid,
    name: pod.name,
    namespace: pod.namespace,
    labels,
    annotations,
    serviceAccount,
    owner: pod.owner,
    templateHash: pod.templateHash,
    restartPolicy: spec.restartPolicy ?? "Always",
    terminationGracePeriodSeconds: spec.terminationGracePeriodSeconds ?? 30,
    hostname: pod.hostname ?? spec.hostname ?? pod.name,
    subdomain: pod.subdomain ?? spec.subdomain ?? null,
    fsGroup: spec.securityContext?.fsGroup ?? null,
    supplementalGroups: spec.securityContext?.supplementalGroups ?? [],
    shareProcessNamespace: spec.shareProcessNamespace ?? false,
    dnsSearch: [
      `${pod.namespace}.svc.${node.clusterDomain}`,
      `svc.${node.clusterDomain}`,
      node.clusterDomain,
      ...(spec.dnsConfig?.searches ?? []),
    ],
    hostAliases: (spec.hostAliases ?? []).map((alias) => ({
      ip: alias.ip,
      hostnames: alias.hostnames ?? [],
    })),
    initContainers: (spec.initContainers ?? []).map((c, i) => container(c, ["initContainers", i])),
    containers: spec.containers.map((c, i) => container(c, ["containers", i])),
    volumes: volumesOf(spec, facts, refs, pod.claims),
    sidecar: mesh.meshed
      ? sidecarPlan(
          { namespace: pod.namespace, name: pod.name, serviceAccount, spec, zone: zoneOf(labels) },
          context,
        )
      : null,
  };
}

export function serviceAccountOf(spec: PodSpec): string {
  return spec.serviceAccountName ?? spec.serviceAccount ?? "default";
}

function containerPlan(
  container: Container,
  spec: PodSpec,
  facts: PodFacts,
  refs: References,
  path: readonly (string | number)[],
): ContainerPlan {
  if (container.command === undefined)
    throw new MissingReference(
      path,
      "command is missing; there is no image that could say which program to run",
    );
  const env = environmentOf(container, spec, facts, refs, path);
  const known = new Map(env.map((one) => [one.name, one]));
  const security = container.securityContext;
  const { limits, requests } = container.resources ?? {};
  return {
    name: container.name,
    argv: [...container.command, ...(container.args ?? [])].map((word) => expand(word, known)),
    workingDir: container.workingDir ?? null,
    env,
    ports: (container.ports ?? []).map((port) => ({
      name: port.name ?? "",
      containerPort: port.containerPort,
      protocol: port.protocol ?? "TCP",
      hostPort: port.hostPort ?? null,
      hostIp: port.hostIP ?? null,
    })),
    mounts: (container.volumeMounts ?? []).map((mount) => ({
      volume: mount.name,
      mountPath: mount.mountPath,
      subPath: mount.subPath ?? null,
      readOnly: mount.readOnly ?? false,
    })),
    runAsUser: security?.runAsUser ?? spec.securityContext?.runAsUser ?? null,
    runAsGroup: security?.runAsGroup ?? spec.securityContext?.runAsGroup ?? null,
    readOnlyRootFilesystem: security?.readOnlyRootFilesystem ?? false,
    capabilitiesAdd: (security?.capabilities?.add ?? []).map(withoutPrefix),
    capabilitiesDrop: (security?.capabilities?.drop ?? []).map(withoutPrefix),
    cpuLimitMillis: limits?.cpu === undefined ? null : cpuMillis(limits.cpu),
    // Kubernetes: a limit without a request is its own request.
    cpuRequestMillis:
      requests?.cpu !== undefined
        ? cpuMillis(requests.cpu)
        : limits?.cpu !== undefined
          ? cpuMillis(limits.cpu)
          : null,
    memoryLimitBytes: limits?.memory === undefined ? null : byteCount(limits.memory),
    memoryRequestBytes:
      requests?.memory !== undefined
        ? byteCount(requests.memory)
        : limits?.memory !== undefined
          ? byteCount(limits.memory)
          : null,
    startupProbe: probePlan(container.startupProbe, spec),
    readinessProbe: probePlan(container.readinessProbe, spec),
    livenessProbe: probePlan(container.livenessProbe, spec),
    postStart: hookPlan(container.lifecycle?.postStart, spec),
    preStop: hookPlan(container.lifecycle?.preStop, spec),
    restartAlways: container.restartPolicy === "Always",
    stdin: container.stdin ?? false,
    tty: container.tty ?? false,
  };
}

function withoutPrefix(capability: string): string {
  return capability.replace(/^CAP_/, "");
}

function probePlan(probe: Probe | undefined, spec: PodSpec): ProbePlan | null {
  if (probe === undefined) return null;
  let action: ProbeAction;
  if (probe.exec !== undefined) action = { kind: "exec", argv: probe.exec.command };
  else if (probe.httpGet !== undefined) action = httpAction(probe.httpGet, spec);
  else if (probe.tcpSocket !== undefined)
    action = {
      kind: "tcp",
      port: portNumber(probe.tcpSocket.port, spec),
      host: probe.tcpSocket.host ?? null,
    };
  else if (probe.grpc !== undefined)
    action = { kind: "grpc", port: probe.grpc.port, service: probe.grpc.service ?? "" };
  else return null;
  return {
    action,
    initialDelaySeconds: probe.initialDelaySeconds ?? 0,
    periodSeconds: probe.periodSeconds ?? 10,
    timeoutSeconds: probe.timeoutSeconds ?? 1,
    successThreshold: probe.successThreshold ?? 1,
    failureThreshold: probe.failureThreshold ?? 3,
    terminationGracePeriodSeconds: probe.terminationGracePeriodSeconds ?? null,
  };
}

function hookPlan(hook: Hook | undefined, spec: PodSpec): HookPlan | null {
  if (hook?.exec !== undefined) return { kind: "exec", argv: hook.exec.command };
  if (hook?.httpGet !== undefined) return httpAction(hook.httpGet, spec);
  if (hook?.sleep !== undefined) return { kind: "sleep", seconds: hook.sleep.seconds };
  return null;
}

function httpAction(action: HttpAction, spec: PodSpec): Extract<ProbeAction, { kind: "http" }> {
  return {
    kind: "http",
    path: action.path ?? "/",
    port: portNumber(action.port, spec),
    scheme: action.scheme ?? "HTTP",
    host: action.host ?? null,
    headers: (action.httpHeaders ?? []).map((header): [string, string] => [header.name, header.value ?? ""]),
  };
}

/** A container port by number or name; 0 when no port is called so (refused when the file was read). */
export function portNumber(port: number | string, spec: PodSpec): number {
  if (typeof port === "number") return port;
  for (const container of [...spec.containers, ...(spec.initContainers ?? [])]) {
    for (const one of container.ports ?? []) if (one.name === port) return one.containerPort;
  }
  return 0;
}
