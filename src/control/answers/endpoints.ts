import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { WeightedAddr } from "#/gen/linkerd/destination_pb.ts";
import { WeightedAddrSchema } from "#/gen/linkerd/destination_pb.ts";
import { portInRanges } from "#/kube/mesh-annotations.ts";
import { CONTROL_NAMESPACE, dnsName } from "#/model/identity.ts";
import type { ViewEndpoint, ViewPod } from "../services/mesh-view.ts";
import { ADMIN_PORT, INBOUND_PORT } from "../workloads/sidecar.ts";
import { zoneOf } from "../zone.ts";
import { byResource, millis, wireAddress } from "./wire.ts";

/** Linkerd's unit: 10,000 is one. */
const WEIGHT = 10_000;

/** One address to dial, with all that a sidecar needs to dial it well. `isOpaque`: the target itself is marked so. */
export function weightedAddr(endpoint: ViewEndpoint, isOpaque: boolean): WeightedAddr {
  const { pod } = endpoint;
  if (pod === null)
    return create(WeightedAddrSchema, {
      addr: wireAddress(endpoint.ip, endpoint.port),
      weight: WEIGHT,
      ...hintFor(isOpaque),
    });
  return create(WeightedAddrSchema, {
    addr: wireAddress(endpoint.ip, endpoint.port),
    weight: WEIGHT,
    metricLabels: podLabels(pod),
    resourceRef: byResource("Pod", pod.namespace, pod.name, endpoint.port),
    ...(isReachedThroughSidecar(pod, endpoint.port)
      ? meshed(pod, endpoint.port, isOpaque)
      : hintFor(isOpaque)),
  });
}

/** The admin port and the ports that skip the sidecar are dialled as they are. */
export function isReachedThroughSidecar(pod: ViewPod, port: number): boolean {
  return pod.isMeshed && port !== ADMIN_PORT && !pod.skipInboundPorts.includes(port);
}

function meshed(pod: ViewPod, port: number, isOpaque: boolean): MessageInitShape<typeof WeightedAddrSchema> {
  const name = dnsName(pod.identity);
  const opaque = isOpaque || isOpaquePort(pod, port);
  return {
    tlsIdentity: { strategy: { case: "dnsLikeIdentity", value: { name } }, serverName: { name } },
    // h2: HTTP/1 requests may be carried over HTTP/2 to the sidecar there.
    protocolHint: {
      protocol: opaque ? { case: "opaque", value: {} } : { case: "h2", value: {} },
      opaqueTransport: { inboundPort: INBOUND_PORT },
    },
    http2: { keepAlive: { interval: millis(10_000), timeout: millis(3_000), whileIdle: true } },
  };
}

function hintFor(isOpaque: boolean): MessageInitShape<typeof WeightedAddrSchema> {
  return isOpaque ? { protocolHint: { protocol: { case: "opaque", value: {} } } } : {};
}

/** Marked by the pod's or namespace's `opaque-ports`, or by every Service in front of it. */
export function isOpaquePort(pod: ViewPod, port: number): boolean {
  return (
    portInRanges(pod.opaquePorts, port, pod.ports.find((one) => one.port === port)?.name) ||
    pod.protocols.get(port) === "opaque"
  );
}

/** Names as Linkerd's metrics have them, sorted, so that equal endpoints have equal bytes. */
export function podLabels(pod: ViewPod): Record<string, string> {
  const labels: Record<string, string> = { pod: pod.name, serviceaccount: pod.identity.serviceAccount };
  const zone = zoneOf(pod.labels);
  if (zone !== "") labels["zone"] = zone;
  if (pod.isMeshed) labels["control_plane_ns"] = CONTROL_NAMESPACE;
  if (pod.workload !== null)
    labels[pod.workload.kind === "job" ? "k8s_job" : pod.workload.kind] = pod.workload.name;
  if (pod.workload?.kind === "deployment") labels["pod_template_hash"] = pod.templateHash;
  return Object.fromEntries(Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
