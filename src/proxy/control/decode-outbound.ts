import type { OutboundPolicy, PolicySource, Protocol } from "#/model/policy.ts";
import { defaultBackendOf } from "#/model/policy.ts";
import type {
  Backend,
  HostMatch,
  HttpFilter,
  HttpMatch,
  HttpRoute,
  HttpRule,
  RouteBackend,
  TcpRoute,
} from "#/model/route.ts";
import type { FailureAccrual } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { ProtoReader } from "#/wire/proto.ts";
import { decodeBackend } from "./decode-backend.ts";
import { decodeSource, decodeTimeoutMs, NO_SOURCE } from "./decode-common.ts";
import { decodeName } from "./decode-endpoint.ts";
import type { PlacedFilter } from "./decode-filter.ts";
import { decodeExtensionFilter, decodeHttpFilter, decodeRpcFilter, mergeFilters } from "./decode-filter.ts";
import { decodeHost, decodeHttpMatch, decodeRpcMatch } from "./decode-match.ts";
import type { RuleExtension, WireRetry } from "./decode-retry.ts";
import { decodeRetry, decodeRuleExtension, NO_EXTENSION, retryOf } from "./decode-retry.ts";
import { decodeStandardAccrual } from "./decode-traffic.ts";

/**
 * What an `outbound.OutboundPolicy` says, or null when it cannot be followed as a whole: something in it is malformed, or of
 * a kind that might restrict and is not known. What was in force before then stays.
 */
export function decodeOutboundPolicy(bytes: Uint8Array): OutboundPolicy | null {
  const reader = new ProtoReader(bytes);
  let source: PolicySource | null = null;
  let routes: Routes | null = null;
  let backend: Backend | null = null;
  while (reader.next()) {
    if (reader.field === 1) routes = decodeProtocol(reader.part());
    else if (reader.field === 2) source = decodeSource(reader.part());
    else if (reader.field === 10_000) backend = decodeBackend(reader.part());
  }
  if (reader.error !== null || routes === null || source === null) return null;
  const policy = { source, ...routes };
  return { ...policy, backend: backend ?? defaultBackendOf(policy) };
}

interface Routes {
  readonly protocol: Protocol;
  readonly http: readonly HttpRoute[];
  readonly tcp: readonly TcpRoute[];
}

function decodeProtocol(reader: ProtoReader): Routes | null {
  let routes: Routes | null = null;
  while (reader.next()) {
    if (reader.field === 1) routes = decodeDetect(reader.part());
    else if (reader.field === 2)
      routes = { protocol: "opaque", http: [], tcp: decodeTcpRoutes(reader.part()) };
    else if (reader.field === 3)
      routes = { protocol: "http1", http: decodeHttpRoutes(reader.part(), HTTP).routes, tcp: [] };
    else if (reader.field === 4) {
      const { routes: http, isGrpc } = decodeHttpRoutes(reader.part(), HTTP);
      routes = { protocol: isGrpc ? "grpc" : "http2", http, tcp: [] };
    } else if (reader.field === 5)
      routes = { protocol: "grpc", http: decodeHttpRoutes(reader.part(), GRPC).routes, tcp: [] };
    else if (reader.field === 6) routes = { protocol: "tls", http: [], tcp: decodeTcpRoutes(reader.part()) };
  }
  return routes;
}

/** The contract has routes for HTTP/1 and for HTTP/2, and every control plane sends the same in both. */
function decodeDetect(reader: ProtoReader): Routes {
  let tcp: readonly TcpRoute[] = [];
  let http: readonly HttpRoute[] = [];
  while (reader.next()) {
    if (reader.field === 2) tcp = decodeTcpRoutes(reader.part());
    else if (reader.field === 3) http = decodeHttpRoutes(reader.part(), HTTP).routes;
    else if (reader.field === 4 && http.length === 0) http = decodeHttpRoutes(reader.part(), HTTP).routes;
  }
  return { protocol: "detect", http, tcp };
}

/** What tells the messages of HTTP routes and gRPC routes apart; the numbers of their fields are the same. */
interface RouteKind {
  readonly match: (reader: ProtoReader) => HttpMatch;
  readonly filter: (reader: ProtoReader) => HttpFilter;
  readonly isGrpc: boolean;
}

const HTTP: RouteKind = { match: decodeHttpMatch, filter: decodeHttpFilter, isGrpc: false };
const GRPC: RouteKind = { match: decodeRpcMatch, filter: decodeRpcFilter, isGrpc: true };

function decodeHttpRoutes(
  reader: ProtoReader,
  kind: RouteKind,
): { readonly routes: readonly HttpRoute[]; readonly isGrpc: boolean } {
  const routes: HttpRoute[] = [];
  let accrual: FailureAccrual | null = null;
  let isGrpc = false;
  while (reader.next()) {
    if (reader.field === 1) routes.push(decodeHttpRoute(reader.part(), kind));
    else if (reader.field === 2) accrual = decodeStandardAccrual(reader.part());
    else if (reader.field === 10_000) isGrpc = reader.flag();
  }
  return { routes: accrual === null ? routes : routes.map((route) => withAccrual(route, accrual)), isGrpc };
}

/** Linkerd says of a protocol when endpoints are set aside, and its proxy does so for each backend by itself. */
function withAccrual(route: HttpRoute, accrual: FailureAccrual): HttpRoute {
  const change = (one: RouteBackend): RouteBackend => {
    const { backend } = one;
    if (backend.kind === "forbidden" || (backend.traffic?.accrual ?? null) !== null) return one;
    const traffic = { ...(backend.traffic ?? BACKEND_TRAFFIC_DEFAULTS), accrual };
    return { ...one, backend: { ...backend, traffic } };
  };
  return {
    ...route,
    rules: route.rules.map((rule) => ({ ...rule, backends: rule.backends.map(change) })),
  };
}

function decodeHttpRoute(reader: ProtoReader, kind: RouteKind): HttpRoute {
  let source = NO_SOURCE;
  const hosts: HostMatch[] = [];
  const rules: HttpRule[] = [];
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) hosts.push(decodeHost(reader.part()));
    else if (reader.field === 3) rules.push(decodeHttpRule(reader.part(), kind));
  }
  return { source, hosts, rules };
}

function decodeHttpRule(reader: ProtoReader, kind: RouteKind): HttpRule {
  const matches: HttpMatch[] = [];
  const filters: HttpFilter[] = [];
  const placed: PlacedFilter[] = [];
  let distribution = NOTHING;
  let timeouts: StandardTimeouts | null = null;
  let requestTimeoutMs: number | null = null;
  let retry: WireRetry | null = null;
  let allowsRequestHeaders = false;
  let extension: RuleExtension = NO_EXTENSION;
  while (reader.next()) {
    if (reader.field === 1) matches.push(kind.match(reader.part()));
    else if (reader.field === 2) filters.push(kind.filter(reader.part()));
    else if (reader.field === 3) distribution = decodeDistribution(reader.part(), kind.filter);
    else if (reader.field === 4) requestTimeoutMs = decodeTimeoutMs(reader.part());
    else if (reader.field === 5) timeouts = decodeTimeouts(reader.part());
    else if (reader.field === 6) retry = decodeRetry(reader.part(), kind.isGrpc);
    else if (reader.field === 7) allowsRequestHeaders = reader.flag();
    else if (reader.field === 10_000) extension = decodeRuleExtension(reader.part());
    else if (reader.field === 10_001) placed.push(decodeExtensionFilter(reader.part()));
  }
  const { requestMs, responseMs, idleMs } = timeouts ?? {
    ...NO_TIMEOUTS,
    // What older control planes send.
    requestMs: requestTimeoutMs,
  };
  return {
    name: extension.name,
    matches,
    filters: mergeFilters(filters, placed),
    ...distribution,
    timeouts: { requestMs, responseMs, attemptMs: extension.attemptTimeoutMs, idleMs },
    retry: retry === null ? null : retryOf(retry, extension),
    allowsRequestHeaders,
  };
}

interface StandardTimeouts {
  readonly requestMs: number | null;
  readonly responseMs: number | null;
  readonly idleMs: number | null;
}

const NO_TIMEOUTS: StandardTimeouts = { requestMs: null, responseMs: null, idleMs: null };

/** `http_route.Timeouts`. */
function decodeTimeouts(reader: ProtoReader): StandardTimeouts {
  const timeouts = { ...NO_TIMEOUTS };
  while (reader.next()) {
    if (reader.field === 1) timeouts.responseMs = decodeTimeoutMs(reader.part());
    else if (reader.field === 2) timeouts.requestMs = decodeTimeoutMs(reader.part());
    else if (reader.field === 3) timeouts.idleMs = decodeTimeoutMs(reader.part());
  }
  return timeouts;
}

interface Distribution {
  readonly choice: "first" | "random";
  readonly backends: readonly RouteBackend[];
}

const NOTHING: Distribution = { choice: "first", backends: [] };

/** Distributions of all routes are built alike. */
function decodeDistribution(reader: ProtoReader, filter: (reader: ProtoReader) => HttpFilter): Distribution {
  let found = NOTHING;
  while (reader.next()) {
    if (reader.field === 1) found = NOTHING;
    else if (reader.field === 2) {
      const backends: RouteBackend[] = [];
      const first = reader.part();
      while (first.next()) if (first.field === 1) backends.push(decodeRouteBackend(first.part(), 1, filter));
      found = { choice: "first", backends };
    } else if (reader.field === 3) {
      const backends: RouteBackend[] = [];
      const random = reader.part();
      while (random.next()) if (random.field === 1) backends.push(decodeWeighted(random.part(), filter));
      found = { choice: "random", backends };
    }
  }
  return found;
}

function decodeWeighted(reader: ProtoReader, filter: (reader: ProtoReader) => HttpFilter): RouteBackend {
  let backend: RouteBackend | null = null;
  let weight = 0;
  while (reader.next()) {
    if (reader.field === 1) backend = decodeRouteBackend(reader.part(), 1, filter);
    else if (reader.field === 2) weight = reader.uint();
  }
  return { ...(backend ?? NO_BACKEND), weight };
}

function decodeRouteBackend(
  reader: ProtoReader,
  weight: number,
  filter: (reader: ProtoReader) => HttpFilter,
): RouteBackend {
  let backend: Backend = NO_BACKEND.backend;
  const filters: HttpFilter[] = [];
  const placed: PlacedFilter[] = [];
  let attemptTimeoutMs: number | null = null;
  while (reader.next()) {
    if (reader.field === 1) backend = decodeBackend(reader.part());
    else if (reader.field === 3) filters.push(filter(reader.part()));
    else if (reader.field === 4) attemptTimeoutMs = decodeTimeoutMs(reader.part());
    else if (reader.field === 10_001) placed.push(decodeExtensionFilter(reader.part()));
  }
  return { weight, backend, filters: mergeFilters(filters, placed), attemptTimeoutMs };
}

const NO_BACKEND: RouteBackend = {
  weight: 0,
  backend: { kind: "forbidden", source: NO_SOURCE, reason: "the route has no backend" },
  filters: [],
  attemptTimeoutMs: null,
};

/** The routes of `Opaque` and of `Tls`. */
function decodeTcpRoutes(reader: ProtoReader): readonly TcpRoute[] {
  const routes: TcpRoute[] = [];
  while (reader.next()) if (reader.field === 1) routes.push(decodeTcpRoute(reader.part()));
  return routes;
}

/** Field 2 is the server names' of a TLS route, field 10000 of an opaque one. Only the first rule is ever used. */
function decodeTcpRoute(reader: ProtoReader): TcpRoute {
  let source = NO_SOURCE;
  const serverNames: HostMatch[] = [];
  let rule: Pick<TcpRoute, "refusal" | "choice" | "backends"> | null = null;
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2 || reader.field === 10_000) serverNames.push(decodeHost(reader.part()));
    else if (reader.field === 3) rule ??= decodeTcpRule(reader.part());
  }
  return { source, serverNames, ...(rule ?? { refusal: "the route has no rule", ...NOTHING }) };
}

function decodeTcpRule(reader: ProtoReader): Pick<TcpRoute, "refusal" | "choice" | "backends"> {
  let refusal: string | null = null;
  let distribution = NOTHING;
  while (reader.next()) {
    if (reader.field === 1) distribution = decodeDistribution(reader.part(), decodeTcpBackendFilter);
    else if (reader.field === 2) refusal = decodeTcpFilter(reader.part());
  }
  // What is refused at a backend is refused there alone.
  const backends = distribution.backends.map((one): RouteBackend => {
    const refused = one.filters.find((filter) => filter.kind === "fail");
    if (refused === undefined) return one;
    const { source } = one.backend;
    return { ...one, filters: [], backend: { kind: "forbidden", source, reason: refused.message } };
  });
  return { refusal, choice: distribution.choice, backends };
}

/** Why a filter lets nothing through; every known kind does so, and what else there may come must not let more. */
function decodeTcpFilter(reader: ProtoReader): string {
  let refusal = "the policy is of no known kind";
  while (reader.next()) {
    if (reader.field === 1) refusal = decodeName(reader.part()) || "the policy is invalid";
    else if (reader.field === 2) refusal = decodeForbidden(reader.part()) || "the policy forbids this target";
  }
  return refusal;
}

function decodeForbidden(reader: ProtoReader): string {
  let reason = "";
  while (reader.next()) if (reader.field === 10_000) reason = reader.text();
  return reason;
}

function decodeTcpBackendFilter(reader: ProtoReader): HttpFilter {
  return {
    kind: "fail",
    status: 0,
    grpcStatus: -1,
    message: decodeTcpFilter(reader),
    ratio: { numerator: 1, denominator: 1 },
  };
}
