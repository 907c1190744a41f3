import type { Metadata } from "#/gen/linkerd/meta_pb.ts";
import type {
  Backend as BackendMessage,
  GrpcRoute,
  HttpRoute,
  OpaqueRoute,
  OutboundPolicy as OutboundPolicyMessage,
  ProxyProtocol,
  TlsRoute,
} from "#/gen/linkerd/outbound_pb.ts";
import type { Duration } from "@bufbuild/protobuf/wkt";
import type { Backend, OutboundPolicy, PolicySource, Protocol } from "#/model/policy.ts";
import { decodeEndpoint } from "./decode-endpoint.ts";

/** What an `OutboundPolicy` message means, or null when it says nothing that can be followed. */
export function decodeOutboundPolicy(message: OutboundPolicyMessage): OutboundPolicy | null {
  const protocol = decodeProtocol(message.protocol);
  if (protocol === null) return null;
  const source = decodeSource(message.metadata);
  return { source, protocol, backend: decodeRoutes(routesOf(message.protocol), source) };
}

/** `meta.Metadata`; a default has a name only. */
export function decodeSource(message: Metadata | undefined): PolicySource {
  const empty = { group: "", kind: "default", namespace: "", name: "", section: "", port: 0 };
  if (message?.kind.case === "default") return { ...empty, name: message.kind.value };
  if (message?.kind.case !== "resource") return empty;
  const { group, kind, namespace, name, section, port } = message.kind.value;
  return { group, kind, namespace, name, section, port };
}

function decodeProtocol(message: ProxyProtocol | undefined): Protocol | null {
  switch (message?.kind.case) {
    case "detect":
    case "opaque":
    case "http1":
    case "http2":
    case "grpc":
    case "tls":
      return message.kind.case;
    default:
      return null;
  }
}

type Route = HttpRoute | GrpcRoute | OpaqueRoute | TlsRoute;

/** The routes of a detected protocol lead to the same backend until there are rules that tell requests apart. */
function routesOf(message: ProxyProtocol | undefined): readonly Route[] {
  const kind = message?.kind;
  if (kind === undefined || kind.case === undefined) return [];
  if (kind.case !== "detect") return kind.value.routes;
  const { http1, http2, opaque } = kind.value;
  return [http1?.routes, http2?.routes, opaque?.routes].find((routes) => (routes?.length ?? 0) > 0) ?? [];
}

/** The default route is the last one: routes with matches come before it. */
function decodeRoutes(routes: readonly Route[], policySource: PolicySource): Backend {
  const route = routes.at(-1);
  const rule = route?.rules.at(-1);
  if (route === undefined || rule === undefined) return forbidden(policySource, "the policy has no route");
  const source = decodeSource(route.metadata);
  for (const filter of rule.filters) {
    if (filter.kind.case === "forbidden") return forbidden(source, "the policy forbids this target");
    if (filter.kind.case === "invalid") return forbidden(source, filter.kind.value.message);
    if (filter.kind.case === "failureInjector" && filter.kind.value.ratio === undefined)
      return forbidden(source, filter.kind.value.message);
  }
  const distribution = rule.backends?.kind;
  if (distribution?.case === "firstAvailable")
    return decodeBackend(distribution.value.backends[0]?.backend, source);
  if (distribution?.case === "randomAvailable")
    return decodeBackend(distribution.value.backends[0]?.backend?.backend, source);
  return forbidden(source, "the route has no backend");
}

function decodeBackend(message: BackendMessage | undefined, routeSource: PolicySource): Backend {
  if (message === undefined) return forbidden(routeSource, "the route has no backend");
  const source = decodeSource(message.metadata);
  if (message.kind.case === "forward") {
    const endpoint = decodeEndpoint(message.kind.value, {});
    return endpoint === null
      ? forbidden(source, "the backend has no address")
      : { kind: "forward", source, endpoint };
  }
  if (message.kind.case === "balancer") {
    const { discovery, load } = message.kind.value;
    const path = discovery?.kind.case === "dst" ? discovery.kind.value.path : "";
    if (path === "") return forbidden(source, "the backend names no service");
    return {
      kind: "balancer",
      source,
      path,
      defaultRttMs: durationMs(load.value?.defaultRtt) || 30,
      decayMs: durationMs(load.value?.decay) || 10_000,
    };
  }
  return forbidden(source, "the backend is of no known kind");
}

function forbidden(source: PolicySource, reason: string): Backend {
  return { kind: "forbidden", source, reason };
}

function durationMs(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}
