import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { Metadata } from "#/gen/linkerd/meta_pb.ts";
import type { Backend, OutboundPolicy } from "#/gen/linkerd/outbound_pb.ts";
import type { HttpRouteSchema, OpaqueRouteSchema, ProxyProtocolSchema } from "#/gen/linkerd/outbound_pb.ts";
import { BackendSchema, OutboundPolicySchema } from "#/gen/linkerd/outbound_pb.ts";
import type { WeightedAddr } from "#/gen/linkerd/destination_pb.ts";
import type { Protocol } from "#/model/policy.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { serviceFqdn } from "../services/mesh-view.ts";
import { isOpaquePort, weightedAddr } from "./endpoints.ts";
import type { Target } from "./target.ts";
import { byDefault, byResource, millis } from "./wire.ts";

/** Only told: detection ends after 10 ms of silence in our sidecars, and a linkerd2-proxy takes its own setting. */
const DETECT_MS = 10_000;

/** `OutboundPolicies.Watch` of what an address or a name means. */
export function outboundPolicyOf(view: MeshView, target: Target): OutboundPolicy {
  switch (target.kind) {
    case "service": {
      const metadata = byResource("Service", target.service.namespace, target.service.name, target.port.port);
      return policy(
        target.port.protocol,
        metadata,
        balancer(metadata, `${serviceFqdn(view, target.service)}:${target.port.port}`),
      );
    }
    case "pod": {
      const metadata = byResource("Pod", target.pod.namespace, target.pod.name, target.port);
      const protocol = isOpaquePort(target.pod, target.port)
        ? "opaque"
        : (target.pod.protocols.get(target.port) ?? "detect");
      return policy(
        protocol,
        metadata,
        forward(
          metadata,
          weightedAddr({ ip: target.ip, port: target.port, hostname: null, pod: target.pod }, false),
        ),
      );
    }
    case "outside": {
      const metadata = byDefault("egress-fallback");
      return policy(
        "detect",
        metadata,
        forward(
          metadata,
          weightedAddr({ ip: target.ip, port: target.port, hostname: null, pod: null }, false),
        ),
      );
    }
    case "undefined-port":
      return forbidden(
        byResource("Service", target.service.namespace, target.service.name, target.port),
        "undefined-port",
      );
    case "nobody":
      return forbidden(byDefault("undefined-address"), "undefined-address");
  }
}

function policy(protocol: Protocol, metadata: Metadata, backend: Backend): OutboundPolicy {
  const http = { routes: [httpRoute(backend)] };
  const opaque = { routes: [opaqueRoute(backend)] };
  const kinds: Readonly<
    Record<"detect" | "opaque" | "http1" | "http2", MessageInitShape<typeof ProxyProtocolSchema>["kind"]>
  > = {
    detect: { case: "detect", value: { timeout: millis(DETECT_MS), opaque, http1: http, http2: http } },
    opaque: { case: "opaque", value: opaque },
    http1: { case: "http1", value: http },
    http2: { case: "http2", value: http },
  };
  const kind =
    protocol === "detect" || protocol === "opaque" || protocol === "http1"
      ? protocol
      : protocol === "tls"
        ? "opaque"
        : "http2";
  return create(OutboundPolicySchema, { metadata, protocol: { kind: kinds[kind]! } });
}

function httpRoute(backend: Backend): MessageInitShape<typeof HttpRouteSchema> {
  return {
    metadata: byDefault("http"),
    rules: [
      {
        matches: [{ path: { kind: { case: "prefix", value: "/" } } }],
        backends: { kind: { case: "firstAvailable", value: { backends: [{ backend }] } } },
      },
    ],
  };
}

function opaqueRoute(backend: Backend): MessageInitShape<typeof OpaqueRouteSchema> {
  return {
    metadata: byDefault("opaq"),
    rules: [{ backends: { kind: { case: "firstAvailable", value: { backends: [{ backend }] } } } }],
  };
}

/** Refused as connections: nobody is there, whatever the protocol. */
function forbidden(metadata: Metadata, why: string): OutboundPolicy {
  return create(OutboundPolicySchema, {
    metadata,
    protocol: {
      kind: {
        case: "opaque",
        value: {
          routes: [
            {
              metadata: byDefault(why),
              rules: [
                {
                  filters: [{ kind: { case: "forbidden", value: {} } }],
                  backends: { kind: { case: "empty", value: {} } },
                },
              ],
            },
          ],
        },
      },
    },
  });
}

function balancer(metadata: Metadata, path: string): Backend {
  return create(BackendSchema, {
    metadata,
    queue: queue(),
    kind: {
      case: "balancer",
      value: {
        discovery: { kind: { case: "dst", value: { path } } },
        load: { case: "peakEwma", value: { defaultRtt: millis(30), decay: millis(10_000) } },
      },
    },
  });
}

function forward(metadata: Metadata, address: WeightedAddr): Backend {
  return create(BackendSchema, { metadata, queue: queue(), kind: { case: "forward", value: address } });
}

function queue(): NonNullable<MessageInitShape<typeof BackendSchema>["queue"]> {
  return { capacity: 100, failfastTimeout: millis(3_000) };
}
