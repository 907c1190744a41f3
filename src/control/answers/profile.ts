import { create } from "@bufbuild/protobuf";
import { parseIp } from "#/base/address.ts";
import type { DestinationProfile } from "#/gen/linkerd/destination_pb.ts";
import { DestinationProfileSchema } from "#/gen/linkerd/destination_pb.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { serviceFqdn } from "../services/mesh-view.ts";
import { isOpaquePort, weightedAddr } from "./endpoints.ts";
import { meaningOfName, targetOfAddress, targetOfService } from "./target.ts";
import type { Target } from "./target.ts";
import { byResource, millis } from "./wire.ts";

/** `Destination.GetProfile` of a host and port: an address, or a name of this mesh. Null for a foreign name. */
export function profileOf(view: MeshView, host: string, port: number): DestinationProfile | null {
  const ip = parseIp(host);
  if (ip !== null) return profileOfTarget(view, targetOfAddress(view, ip, port));
  const meaning = meaningOfName(view, host);
  if (meaning.kind === "foreign") return null;
  if (meaning.kind === "missing") return create(DestinationProfileSchema, {});
  return profileOfTarget(view, targetOfService(meaning.service, port));
}

function profileOfTarget(view: MeshView, target: Target): DestinationProfile {
  switch (target.kind) {
    case "service":
      return create(DestinationProfileSchema, {
        fullyQualifiedName: serviceFqdn(view, target.service),
        opaqueProtocol: target.port.protocol === "opaque",
        // Linkerd's defaults; they count only where a route is marked retryable.
        retryBudget: { retryRatio: 0.2, minRetriesPerSecond: 10, ttl: millis(10_000) },
        parentRef: byResource("Service", target.service.namespace, target.service.name, target.port.port),
      });
    case "pod":
      return create(DestinationProfileSchema, {
        opaqueProtocol: isOpaquePort(target.pod, target.port),
        endpoint: weightedAddr({ ip: target.ip, port: target.port, hostname: null, pod: target.pod }, false),
        retryBudget: { retryRatio: 0.2, minRetriesPerSecond: 10, ttl: millis(10_000) },
        parentRef: byResource("Pod", target.pod.namespace, target.pod.name, target.port),
      });
    case "outside":
      return create(DestinationProfileSchema, {
        endpoint: weightedAddr({ ip: target.ip, port: target.port, hostname: null, pod: null }, false),
      });
    // The outbound policy says what to do with these: refuse.
    case "undefined-port":
    case "nobody":
      return create(DestinationProfileSchema, {});
  }
}
