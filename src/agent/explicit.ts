import type { PodPlan, ServicePlan } from "#/model/pod-plan.ts";

/**
 * Without interception a pod reaches a Service through an address of its own loopback network, where its sidecar listens
 * and knows by the address what was meant: 10.202.3.4 is 127.202.3.4 inside such a pod. Service networks are at most a /8,
 * so no two Services meet.
 */
export function loopbackOf(clusterIp: string): string {
  return `127${clusterIp.slice(clusterIp.indexOf("."))}`;
}

/**
 * Ports that a pod's programs listen on, as far as manifests tell. A program listens on all addresses at once, which the
 * kernel refuses once somebody listens on one of them; so these are the program's, and no Service is had through them.
 */
export function ownPorts(plan: PodPlan, services: readonly ServicePlan[]): number[] {
  const declared = [...plan.initContainers, ...plan.containers].flatMap(({ ports }) =>
    ports.map(({ containerPort }) => containerPort),
  );
  const served = services.flatMap(({ endpoints }) =>
    endpoints.filter(({ podUid }) => podUid === plan.uid).flatMap(({ targetPorts }) => targetPorts),
  );
  return [...new Set([...declared, ...served])].filter((port) => port > 0).toSorted((a, b) => a - b);
}

/** A Service with only TCP ports, none of them the pod's own, and not one whose loopback address is everybody's. */
function isReachable(
  service: ServicePlan,
  own: readonly number[],
): service is ServicePlan & { readonly clusterIp: string } {
  const { clusterIp, ports } = service;
  if (clusterIp === null || clusterIp.includes(":") || loopbackOf(clusterIp) === "127.0.0.1") return false;
  return ports.length > 0 && ports.every(({ protocol, port }) => protocol === "TCP" && !own.includes(port));
}

/** What a sidecar has to listen on, and for whom: `PILLION_EXPLICIT_TARGETS`. */
export function explicitTargets(services: readonly ServicePlan[], own: readonly number[]): string {
  return services
    .filter((service) => isReachable(service, own))
    .flatMap(({ clusterIp, ports }) =>
      ports.map(({ port }) => `${loopbackOf(clusterIp)}:${port}=${clusterIp}:${port}`),
    )
    .toSorted()
    .join(",");
}

/** The Services as a pod without interception is to see them. One that it cannot reach keeps an address that nobody answers. */
export function seenWithoutInterception(
  services: readonly ServicePlan[],
  own: readonly number[],
): ServicePlan[] {
  return services.map((service) =>
    isReachable(service, own) ? { ...service, clusterIp: loopbackOf(service.clusterIp) } : service,
  );
}
