import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { isDeepStrictEqual } from "node:util";
import type { Metadata } from "#/gen/linkerd/meta_pb.ts";
import type { Backend, OutboundPolicy } from "#/gen/linkerd/outbound_pb.ts";
import type { HttpRouteSchema, OpaqueRouteSchema, ProxyProtocolSchema } from "#/gen/linkerd/outbound_pb.ts";
import { BackendSchema, OutboundPolicySchema } from "#/gen/linkerd/outbound_pb.ts";
import type { WeightedAddr } from "#/gen/linkerd/destination_pb.ts";
import type { Capabilities } from "#/model/capabilities.ts";
import type { OutboundPolicy as ModelPolicy, PolicySource, Protocol } from "#/model/policy.ts";
import { egressVerdictOf } from "#/model/policy.ts";
import type { PolicyClient } from "../policy/policy.ts";
import { outboundPolicyFor } from "../policy/policy.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { encodeOutboundPolicy, encodeStandardPolicy } from "./encode-outbound.ts";
import { isOpaquePort, weightedAddr } from "./endpoints.ts";
import type { StandardLosses } from "./standard-losses.ts";
import { standardPolicy } from "./standard-policy.ts";
import type { Target } from "./target.ts";
import { byDefault, byResource, millis } from "./wire.ts";

/** Only told: detection ends after 10 ms of silence in our sidecars, and a linkerd2-proxy takes its own setting. */
const DETECT_MS = 10_000;

/**
 * `OutboundPolicies.Watch` of what an address or a name means to a client. A proxy that does not know our extension is told
 * what standard fields can say.
 */
export function outboundPolicyOf(
  view: MeshView,
  target: Target,
  client: PolicyClient | null,
  capabilities: Capabilities,
  losses: Pick<StandardLosses, "note">,
): OutboundPolicy {
  switch (target.kind) {
    case "service": {
      const model = named(outboundPolicyFor(view, target, client));
      if (capabilities.isExtended) return encodeOutboundPolicy(model);
      const standard = standardPolicy(model);
      losses.note(view, standard.losses);
      return encodeStandardPolicy(standard.policy);
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
      const model = egressPolicyOf(outboundPolicyFor(view, target, client), target.port, capabilities);
      if (model !== null && capabilities.isExtended) return encodeOutboundPolicy(model);
      if (model !== null) {
        const standard = standardPolicy(model);
        losses.note(view, standard.losses);
        return encodeStandardPolicy(standard.policy);
      }
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

/**
 * What an EgressPolicy makes of an address outside; null where it is forwarded to as without one. A proxy of another kind does not
 * audit. Of names in TLS it knows where nothing but TLS is expected.
 */
function egressPolicyOf(policy: ModelPolicy, port: number, { isExtended }: Capabilities): ModelPolicy | null {
  const rest = policy.tcp.at(-1);
  const verdict = rest === undefined ? null : egressVerdictOf(rest.source);
  if (verdict === null || (verdict === "would-deny" && !isExtended)) return null;
  const isByName = policy.tcp.some(({ serverNames }) => serverNames.length > 0);
  return isByName && port === HTTPS_PORT && !isExtended ? { ...policy, protocol: "tls", http: [] } : policy;
}

const HTTPS_PORT = 443;

/** A target without routes of its own has the default ones, under the names that Linkerd's metrics have for them. */
function named(policy: ModelPolicy): ModelPolicy {
  const isOwn = (source: PolicySource): boolean => isDeepStrictEqual(source, policy.source);
  return {
    ...policy,
    // A port that is known to be TLS and has no routes by server name is not looked into.
    protocol:
      policy.protocol === "tls" && policy.tcp.every((route) => route.serverNames.length === 0)
        ? "opaque"
        : policy.protocol,
    http: policy.http.map((route) => (isOwn(route.source) ? { ...route, source: DEFAULT_HTTP } : route)),
    tcp: policy.tcp.map((route) => (isOwn(route.source) ? { ...route, source: DEFAULT_OPAQUE } : route)),
  };
}

const DEFAULT_HTTP: PolicySource = {
  group: "",
  kind: "default",
  namespace: "",
  name: "http",
  section: "",
  port: 0,
};
const DEFAULT_OPAQUE: PolicySource = { ...DEFAULT_HTTP, name: "opaq" };

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

function forward(metadata: Metadata, address: WeightedAddr): Backend {
  return create(BackendSchema, { metadata, queue: queue(), kind: { case: "forward", value: address } });
}

function queue(): NonNullable<MessageInitShape<typeof BackendSchema>["queue"]> {
  return { capacity: 100, failfastTimeout: millis(3_000) };
}
