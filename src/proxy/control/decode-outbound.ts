import type { OutboundPolicy, PolicySource, Protocol } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import { ProtoReader } from "#/wire/proto.ts";
import { decodeEndpoint, decodeName } from "./decode-endpoint.ts";

/** What an `outbound.OutboundPolicy` says, or null when it says nothing that can be followed. */
export function decodeOutboundPolicy(bytes: Uint8Array): OutboundPolicy | null {
  const reader = new ProtoReader(bytes);
  let source = NO_SOURCE;
  let found: { protocol: Protocol; route: RouteKind; routes: ProtoReader[] } | null = null;
  while (reader.next()) {
    if (reader.field === 2) source = decodeSource(reader.message());
    else if (reader.field === 1) found = decodeProtocol(reader.message());
  }
  if (reader.error !== null || found === null) return null;
  return policyTo(decodeRoutes(found.routes, found.route, source), source, found.protocol);
}

const NO_SOURCE: PolicySource = { group: "", kind: "default", namespace: "", name: "", section: "", port: 0 };

/** `meta.Metadata`; a default has a name only. */
export function decodeSource(reader: ProtoReader): PolicySource {
  let source = NO_SOURCE;
  while (reader.next()) {
    if (reader.field === 1) source = { ...NO_SOURCE, name: reader.text() };
    else if (reader.field === 2) source = decodeResource(reader.message());
  }
  return source;
}

function decodeResource(reader: ProtoReader): PolicySource {
  const source = { ...NO_SOURCE, kind: "" };
  while (reader.next()) {
    if (reader.field === 1) source.group = reader.text();
    else if (reader.field === 2) source.kind = reader.text();
    else if (reader.field === 3) source.name = reader.text();
    else if (reader.field === 4) source.namespace = reader.text();
    else if (reader.field === 5) source.section = reader.text();
    else if (reader.field === 6) source.port = reader.uint();
  }
  return source;
}

/** Rules of HTTP and gRPC routes are alike, and so are those of opaque and TLS routes. */
type RouteKind = "http" | "opaque";

const PROTOCOLS: Readonly<Record<number, { readonly protocol: Protocol; readonly route: RouteKind }>> = {
  2: { protocol: "opaque", route: "opaque" },
  3: { protocol: "http1", route: "http" },
  4: { protocol: "http2", route: "http" },
  5: { protocol: "grpc", route: "http" },
  6: { protocol: "tls", route: "opaque" },
};

function decodeProtocol(
  reader: ProtoReader,
): { protocol: Protocol; route: RouteKind; routes: ProtoReader[] } | null {
  let found: { protocol: Protocol; route: RouteKind; routes: ProtoReader[] } | null = null;
  while (reader.next()) {
    const known = PROTOCOLS[reader.field];
    if (reader.field === 1) found = decodeDetect(reader.message());
    else if (known !== undefined) found = { ...known, routes: routesIn(reader.message()) };
  }
  return reader.error === null ? found : null;
}

/** The routes of a detected protocol lead to the same backend until there are rules that tell requests apart. */
function decodeDetect(reader: ProtoReader): { protocol: Protocol; route: RouteKind; routes: ProtoReader[] } {
  let opaque: ProtoReader[] = [];
  let http: ProtoReader[] = [];
  while (reader.next()) {
    if (reader.field === 2) opaque = routesIn(reader.message());
    else if ((reader.field === 3 || reader.field === 4) && http.length === 0)
      http = routesIn(reader.message());
  }
  return http.length > 0
    ? { protocol: "detect", route: "http", routes: http }
    : { protocol: "detect", route: "opaque", routes: opaque };
}

function routesIn(reader: ProtoReader): ProtoReader[] {
  return repeated(reader, 1);
}

function repeated(reader: ProtoReader, field: number): ProtoReader[] {
  const all: ProtoReader[] = [];
  while (reader.next()) if (reader.field === field) all.push(reader.message());
  return all;
}

/** The default route is the last one: routes with matches come before it. */
function decodeRoutes(routes: readonly ProtoReader[], kind: RouteKind, policySource: PolicySource): Backend {
  const route = routes.at(-1);
  if (route === undefined) return forbidden(policySource, "the policy has no route");
  let source = NO_SOURCE;
  let rule: ProtoReader | null = null;
  while (route.next()) {
    if (route.field === 1) source = decodeSource(route.message());
    else if (route.field === 3) rule = route.message();
  }
  if (rule === null || route.error !== null) return forbidden(source, "the route has no rule");
  const backendsField = kind === "http" ? 3 : 1;
  let backend: Backend | null = null;
  while (rule.next()) {
    if (rule.field === 2) {
      const refusal = decodeFilter(rule.message(), kind);
      if (refusal !== null) return forbidden(source, refusal);
    } else if (rule.field === backendsField) backend = decodeDistribution(rule.message(), source);
  }
  return backend ?? forbidden(source, "the route has no backend");
}

/** Why a filter lets nothing through; null when it does. */
function decodeFilter(reader: ProtoReader, kind: RouteKind): string | null {
  let refusal: string | null = null;
  while (reader.next()) {
    if (kind === "opaque" && reader.field === 1)
      refusal = decodeName(reader.message()) || "the policy is invalid";
    else if (kind === "opaque" && reader.field === 2) refusal = "the policy forbids this target";
    else if (kind === "http" && reader.field === 1) refusal = decodeInjector(reader.message());
  }
  return refusal;
}

/** A failure injector without a ratio hits every request. */
function decodeInjector(reader: ProtoReader): string | null {
  let message = "the policy refuses this target";
  let hasRatio = false;
  while (reader.next()) {
    if (reader.field === 2) message = reader.text();
    else if (reader.field === 3) hasRatio = true;
  }
  return hasRatio ? null : message;
}

function decodeDistribution(reader: ProtoReader, source: PolicySource): Backend {
  let first: ProtoReader | undefined;
  while (reader.next()) {
    if (reader.field === 2) first = repeated(reader.message(), 1)[0];
    else if (reader.field === 3) {
      const weighted = repeated(reader.message(), 1)[0];
      first = weighted === undefined ? undefined : repeated(weighted, 1)[0];
    }
  }
  const backend = first === undefined ? undefined : repeated(first, 1)[0];
  return backend === undefined ? forbidden(source, "the route has no backend") : decodeBackend(backend);
}

function decodeBackend(reader: ProtoReader): Backend {
  let source = NO_SOURCE;
  let forward: ProtoReader | null = null;
  let balancer: ProtoReader | null = null;
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.message());
    else if (reader.field === 2) forward = reader.message();
    else if (reader.field === 3) balancer = reader.message();
  }
  if (reader.error !== null) return forbidden(source, "the backend cannot be read");
  if (forward !== null) {
    const endpoint = decodeEndpoint(forward, {});
    return endpoint === null
      ? forbidden(source, "the backend has no address")
      : { kind: "forward", source, endpoint, traffic: null };
  }
  return balancer === null
    ? forbidden(source, "the backend is of no known kind")
    : decodeBalancer(balancer, source);
}

function decodeBalancer(reader: ProtoReader, source: PolicySource): Backend {
  let path = "";
  let load: { defaultRttMs: number; decayMs: number } = { defaultRttMs: 30, decayMs: 10_000 };
  while (reader.next()) {
    if (reader.field === 1) {
      const destination = repeated(reader.message(), 1)[0];
      path = destination === undefined ? "" : decodeName(destination);
    } else if (reader.field === 2 || reader.field === 3) load = decodeLoad(reader.message());
  }
  return path === ""
    ? forbidden(source, "the backend names no service")
    : { kind: "balancer", source, path, ...load, traffic: null };
}

function decodeLoad(reader: ProtoReader): { defaultRttMs: number; decayMs: number } {
  let defaultRttMs = 0;
  let decayMs = 0;
  while (reader.next()) {
    if (reader.field === 1) defaultRttMs = decodeDurationMs(reader.message());
    else if (reader.field === 2) decayMs = decodeDurationMs(reader.message());
  }
  return { defaultRttMs: defaultRttMs || 30, decayMs: decayMs || 10_000 };
}

function decodeDurationMs(reader: ProtoReader): number {
  let ms = 0;
  while (reader.next()) {
    if (reader.field === 1) ms += reader.int() * 1000;
    else if (reader.field === 2) ms += reader.int() / 1e6;
  }
  return ms;
}

function forbidden(source: PolicySource, reason: string): Backend {
  return { kind: "forbidden", source, reason };
}
