import type { ServicePlan } from "#/model/pod-plan.ts";

/**
 * Without interception a pod reaches a Service through an address of its own loopback network, where its sidecar listens
 * and knows by the address what was meant: 10.202.3.4 is 127.202.3.4 inside such a pod. Service networks are at most a /8,
 * so no two Services meet.
 */
export function loopbackOf(clusterIp: string): string {
  return `127${clusterIp.slice(clusterIp.indexOf("."))}`;
}

/** A Service with only TCP ports, and not one whose loopback address is everybody's. */
function isReachable(service: ServicePlan): service is ServicePlan & { readonly clusterIp: string } {
  const { clusterIp, ports } = service;
  if (clusterIp === null || clusterIp.includes(":") || loopbackOf(clusterIp) === "127.0.0.1") return false;
  return ports.length > 0 && ports.every((port) => port.protocol === "TCP");
}

/** What a sidecar has to listen on, and for whom: `PILLION_EXPLICIT_TARGETS`. */
export function explicitTargets(services: readonly ServicePlan[]): string {
  return services
    .filter(isReachable)
    .flatMap(({ clusterIp, ports }) =>
      ports.map(({ port }) => `${loopbackOf(clusterIp)}:${port}=${clusterIp}:${port}`),
    )
    .toSorted()
    .join(",");
}

/** The Services as pods without interception are to see them. */
export function seenWithoutInterception(services: readonly ServicePlan[]): ServicePlan[] {
  return services.map((service) =>
    isReachable(service) ? { ...service, clusterIp: loopbackOf(service.clusterIp) } : service,
  );
}
