import { portInRanges } from "#/kube/mesh-annotations.ts";
import type { PodSpec } from "#/kube/objects.ts";
import { dnsName } from "#/model/identity.ts";
import type { SidecarPlan } from "#/model/pod-plan.ts";
import { CONTROL_IDENTITY_ACCOUNT, CONTROL_IDENTITY_NAMESPACE } from "../names.ts";
import type { BuildContext } from "./pod-builder.ts";

export const INBOUND_PORT = 4143;
export const OUTBOUND_PORT = 4140;
export const ADMIN_PORT = 4191;

/** How a pod's sidecar boots: the environment that a linkerd2-proxy knows, so that either can ride beside the workload. */
export function sidecarPlan(
  pod: { namespace: string; name: string; serviceAccount: string; spec: PodSpec; zone: string },
  context: Pick<BuildContext, "node" | "mesh" | "trustAnchorsPem">,
): SidecarPlan {
  const { node, mesh } = context;
  const { trustDomain } = node;
  const control = dnsName({
    trustDomain,
    namespace: CONTROL_IDENTITY_NAMESPACE,
    serviceAccount: CONTROL_IDENTITY_ACCOUNT,
  });
  const address = `${node.gatewayIp}:${node.controlPort}`;
  const networks = `${node.podCidr},${node.serviceCidr}`;
  const ports = containerPorts(pod.spec);
  const opaque = ports.filter((port) => portInRanges(mesh.opaquePorts, port.port, port.name));
  return {
    env: {
      LINKERD2_PROXY_IDENTITY_LOCAL_NAME: dnsName({
        trustDomain,
        namespace: pod.namespace,
        serviceAccount: pod.serviceAccount,
      }),
      LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: context.trustAnchorsPem,
      LINKERD2_PROXY_IDENTITY_SVC_ADDR: address,
      LINKERD2_PROXY_IDENTITY_SVC_NAME: control,
      LINKERD2_PROXY_DESTINATION_SVC_ADDR: address,
      LINKERD2_PROXY_DESTINATION_SVC_NAME: control,
      LINKERD2_PROXY_DESTINATION_CONTEXT: JSON.stringify({
        ns: pod.namespace,
        nodeName: node.name,
        pod: pod.name,
      }),
      LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES: `svc.${node.clusterDomain}.`,
      LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS: networks,
      LINKERD2_PROXY_POLICY_SVC_ADDR: address,
      LINKERD2_PROXY_POLICY_SVC_NAME: control,
      LINKERD2_PROXY_POLICY_WORKLOAD: JSON.stringify({ ns: pod.namespace, pod: pod.name }),
      LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS: networks,
      LINKERD2_PROXY_INBOUND_LISTEN_ADDR: `0.0.0.0:${INBOUND_PORT}`,
      LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS: `127.0.0.1:${OUTBOUND_PORT},[::1]:${OUTBOUND_PORT}`,
      LINKERD2_PROXY_ADMIN_LISTEN_ADDR: `0.0.0.0:${ADMIN_PORT}`,
      LINKERD2_PROXY_INBOUND_PORTS: ports.map((port) => port.port).join(","),
      LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION: opaque.map((port) => port.port).join(","),
      LINKERD2_PROXY_INBOUND_DEFAULT_POLICY: "all-unauthenticated",
      LINKERD2_PROXY_INBOUND_ACCEPT_KEEPALIVE: "10000ms",
      LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE: "10000ms",
      LINKERD2_PROXY_INBOUND_ACCEPT_USER_TIMEOUT: "30s",
      LINKERD2_PROXY_OUTBOUND_CONNECT_USER_TIMEOUT: "30s",
      LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED: "true",
      ...(mesh.memoryLimitBytes !== null && mesh.memoryGuard
        ? { PILLION_MEMORY_LIMIT_BYTES: String(mesh.memoryLimitBytes) }
        : {}),
      ...(pod.zone === "" ? {} : { PILLION_ZONE: pod.zone }),
      PILLION_MACHINE_IP: node.gatewayIp,
      ...mesh.env,
    },
    cpuLimitMillis: mesh.cpuLimitMillis,
    memoryLimitBytes: mesh.memoryLimitBytes,
    skipInboundPorts: mesh.skipInboundPorts,
    skipOutboundPorts: mesh.skipOutboundPorts,
    letThroughCidrs: mesh.letThroughCidrs,
    workloadApi: mesh.workloadApi,
  };
}

/** TCP ports that the pod's containers declare, each once, ascending. */
export function containerPorts(spec: PodSpec): { name: string | undefined; port: number }[] {
  const out = new Map<number, string | undefined>();
  for (const container of [...spec.containers, ...(spec.initContainers ?? [])]) {
    for (const port of container.ports ?? []) {
      if ((port.protocol ?? "TCP") === "TCP" && !out.has(port.containerPort))
        out.set(port.containerPort, port.name);
    }
  }
  return [...out].map(([port, name]) => ({ name, port })).toSorted((a, b) => a.port - b.port);
}
