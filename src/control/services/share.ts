import type { MeshView, ViewEndpoint, ViewPod, ViewService, ViewServicePort } from "./mesh-view.ts";

/**
 * The same view, with the objects of the one before it wherever nothing of them has changed. So what follows from a pod or a Service
 * has to be worked out again only where that is another object than before.
 */
export function shareUnchanged(before: MeshView, view: MeshView): MeshView {
  const shared = new Map<ViewPod, ViewPod>();
  const podOf = (pod: ViewPod): ViewPod => {
    let found = shared.get(pod);
    if (found === undefined) {
      const old = before.podsByName.get(`${pod.namespace}/${pod.name}`);
      shared.set(pod, (found = old !== undefined && isSamePod(old, pod) ? old : pod));
    }
    return found;
  };
  const servicesByName = new Map<string, ViewService>();
  const servicesByIp = new Map<string, ViewService>();
  for (const [key, service] of view.servicesByName) {
    const found = serviceOf(before.servicesByName.get(key), service, podOf);
    servicesByName.set(key, found);
    if (found.clusterIp !== null) servicesByIp.set(found.clusterIp, found);
  }
  return {
    ...view,
    podsByIp: mapped(view.podsByIp, podOf),
    podsByName: mapped(view.podsByName, podOf),
    servicesByName,
    servicesByIp,
  };
}

function mapped<T>(map: ReadonlyMap<string, T>, of: (value: T) => T): Map<string, T> {
  const out = new Map<string, T>();
  for (const [key, value] of map) out.set(key, of(value));
  return out;
}

function isSamePod(a: ViewPod, b: ViewPod): boolean {
  return (
    a.uid === b.uid &&
    a.labels === b.labels &&
    a.ip === b.ip &&
    a.identity === b.identity &&
    a.workload === b.workload &&
    a.templateHash === b.templateHash &&
    a.isMeshed === b.isMeshed &&
    a.isReady === b.isReady &&
    a.isLeaving === b.isLeaving &&
    a.hostname === b.hostname &&
    a.subdomain === b.subdomain &&
    a.opaquePorts === b.opaquePorts &&
    a.skipInboundPorts === b.skipInboundPorts &&
    a.inboundDefault === b.inboundDefault &&
    a.ports === b.ports &&
    a.probes === b.probes &&
    a.grpcProbePorts === b.grpcProbePorts &&
    a.tcpProbePorts === b.tcpProbePorts &&
    a.protocols.size === b.protocols.size &&
    [...a.protocols].every(([port, protocol]) => b.protocols.get(port) === protocol)
  );
}

function serviceOf(
  old: ViewService | undefined,
  service: ViewService,
  podOf: (pod: ViewPod) => ViewPod,
): ViewService {
  const ports = service.ports.map((port, i) => portOf(old?.ports[i], port, podOf));
  const isSame =
    old !== undefined &&
    old.clusterIp === service.clusterIp &&
    old.isHeadless === service.isHeadless &&
    old.externalName === service.externalName &&
    old.ports.length === ports.length &&
    ports.every((port, i) => port === old.ports[i]);
  return isSame ? old : { ...service, ports };
}

function portOf(
  old: ViewServicePort | undefined,
  port: ViewServicePort,
  podOf: (pod: ViewPod) => ViewPod,
): ViewServicePort {
  // By address, since one that came or went moves all that follow.
  const known = new Map(old?.endpoints.map((endpoint) => [endpoint.ip, endpoint]));
  const endpoints = port.endpoints.map((endpoint) => endpointOf(known.get(endpoint.ip), endpoint, podOf));
  const isSame =
    old !== undefined &&
    old.name === port.name &&
    old.port === port.port &&
    old.protocol === port.protocol &&
    old.endpoints.length === endpoints.length &&
    endpoints.every((endpoint, i) => endpoint === old.endpoints[i]);
  return isSame ? old : { ...port, endpoints };
}

function endpointOf(
  old: ViewEndpoint | undefined,
  endpoint: ViewEndpoint,
  podOf: (pod: ViewPod) => ViewPod,
): ViewEndpoint {
  const pod = endpoint.pod === null ? null : podOf(endpoint.pod);
  const isSame =
    old !== undefined &&
    old.ip === endpoint.ip &&
    old.port === endpoint.port &&
    old.hostname === endpoint.hostname &&
    old.pod === pod;
  return isSame ? old : { ...endpoint, pod };
}
