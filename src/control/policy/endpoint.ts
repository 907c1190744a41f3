import type { Endpoint } from "#/model/endpoint.ts";
import { plainEndpoint } from "#/model/endpoint.ts";
import { dnsName } from "#/model/identity.ts";
import { isOpaquePort, isReachedThroughSidecar, podLabels } from "../answers/endpoints.ts";
import type { ViewEndpoint } from "../services/mesh-view.ts";
import { INBOUND_PORT } from "../workloads/sidecar.ts";

/** Linkerd's unit: 10,000 is one. */
const WEIGHT = 10_000;

/** One address to dial, as the model says it. */
export function endpointOf({ ip, port, pod }: ViewEndpoint): Endpoint {
  const address = { ip, port };
  if (pod === null) return plainEndpoint(address);
  const isMeshed = isReachedThroughSidecar(pod, port);
  const name = dnsName(pod.identity);
  return {
    address,
    weight: WEIGHT,
    identity: isMeshed ? { name, serverName: name } : null,
    protocolHint: isMeshed ? (isOpaquePort(pod, port) ? "opaque" : "http2") : "unknown",
    tunnelPort: isMeshed ? INBOUND_PORT : null,
    authorityOverride: null,
    labels: podLabels(pod),
  };
}
