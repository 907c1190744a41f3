import { durationMs } from "#/kube/duration.ts";
import { groupOf, namespaceOf, objectKey } from "#/kube/objects.ts";
import type {
  BackendRef,
  GrpcRouteMatch,
  GrpcRouteObject,
  HttpRouteMatch,
  HttpRouteObject,
  HttpRouteRule,
  MirrorFilter,
  RouteFilter,
  RouteObject,
  SessionPersistenceSpec,
  TcpRouteObject,
  TlsRouteObject,
} from "#/kube/policy-objects.ts";
import { trafficAnnotations } from "#/kube/traffic-annotations.ts";
import type { RetryAnnotations, TrafficAnnotations } from "#/kube/traffic-annotations.ts";
import type { PolicySource } from "#/model/policy.ts";
import type {
  Backend,
  HostMatch,
  HttpMatch,
  HttpRoute,
  HttpRule,
  PathMatch,
  RetryPolicy,
  RouteBackend,
  TcpRoute,
  Timeouts,
} from "#/model/route.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { BackendResolver } from "./backends.ts";
import { resolveBackend, sourceOf } from "./backends.ts";
import type { Finding } from "./conditions.ts";
import { fieldMatches, filtersOf } from "./filters.ts";
import { persistenceOf, persistenceOfRule } from "./traffic.ts";

/** What compiling a route tells beside its result. */
export interface RouteFindings {
  /** References that lead nowhere. */
  readonly references: Finding[];
  /** What is not honoured: the rule answers with an error. */
  readonly unsupported: Finding[];
  /** Index of each rule with something unsupported. */
  readonly droppedRules: Set<number>;
}

export interface RouteContext extends BackendResolver {
  /** Of the parent Service: for rules whose route says nothing itself. */
  readonly parent: TrafficAnnotations;
  /** Why a mirror is left out; null when it is not. */
  readonly mirrorRefusal: (route: RouteObject, mirror: MirrorFilter) => string | null;
}

const BODY_BYTES_MAX = 64 * 1024;
/** Linkerd's. */
const BACKOFF = { minMs: 25, maxMs: 250, jitterRatio: 1 } as const;
const BACKOFF_GROWTH_MAX = 10;
/** Gateway API leaves it open; Linkerd's default. */
const RETRIES_DEFAULT = 1;

export function compileHttpRoute(
  route: HttpRouteObject | GrpcRouteObject,
  context: RouteContext,
  findings: RouteFindings,
): HttpRoute {
  const own = trafficAnnotations(route.metadata.annotations);
  const rules = (route.spec.rules ?? []).map((rule, i): HttpRule => {
    const path = ["spec", "rules", i];
    const unsupportedBefore = findings.unsupported.length;
    const sessionOwner = `${objectKey(route)} rule ${rule.name ?? i}`;
    const mirrorTo = (mirror: MirrorFilter, at: readonly (string | number)[]): Backend | null => {
      const refusal = context.mirrorRefusal(route, mirror);
      if (refusal !== null) {
        findings.references.push({ reason: "MirrorCycle", message: refusal, path: at });
        return null;
      }
      const backend = resolveBackend(context, route, mirror.backendRef, at, findings.references);
      // Gateway API: what cannot be found is not mirrored to, and the request goes on.
      return backend.kind === "forbidden" ? null : backend;
    };
    const { timeouts, retry }: Partial<HttpRouteRule> =
      route.kind === "HTTPRoute" ? (rule as HttpRouteRule) : {};
    const made: HttpRule = {
      name: rule.name ?? "",
      matches:
        route.kind === "HTTPRoute"
          ? (rule.matches ?? []).map((match) => httpMatch(match as HttpRouteMatch))
          : (rule.matches ?? []).map((match) => grpcMatch(match as GrpcRouteMatch)),
      filters: filtersOf(rule.filters, path, mirrorTo, findings.unsupported),
      choice: "random",
      backends: (rule.backendRefs ?? []).map((ref, b): RouteBackend => {
        const at = [...path, "backendRefs", b];
        const backend = resolveBackend(context, route, ref, at, findings.references);
        return {
          weight: ref.weight,
          backend: withPersistence(backend, rule.sessionPersistence, sessionOwner),
          filters: filtersOf(ref.filters, at, mirrorTo, findings.unsupported),
          attemptTimeoutMs: null,
        };
      }),
      timeouts: timeoutsOf(timeouts, own, context.parent),
      retry: retry === undefined ? retryOf(own, context.parent) : retryOfRule(retry),
      allowsRequestHeaders: own.allowsRequestHeaders ?? context.parent.allowsRequestHeaders ?? false,
    };
    if (findings.unsupported.length > unsupportedBefore) findings.droppedRules.add(i);
    return made;
  });
  // GEP-1294: nothing follows from `hostnames` at a Service, which is known by its address.
  return { source: routeSource(route), hosts: [], rules };
}

/** Of connections: the schemas allow one rule. */
export function compileConnectionRoute(
  route: TlsRouteObject | TcpRouteObject,
  context: BackendResolver,
  findings: RouteFindings,
): TcpRoute {
  const refs: readonly BackendRef<RouteFilter>[] = route.spec.rules[0]?.backendRefs ?? [];
  return {
    source: routeSource(route),
    serverNames: route.kind === "TLSRoute" ? (route.spec.hostnames ?? []).map(hostMatch) : [],
    refusal: refs.length === 0 ? "the route has no backends" : null,
    choice: "random",
    backends: refs.map((ref, b) => ({
      weight: ref.weight,
      backend: resolveBackend(
        context,
        route,
        ref,
        ["spec", "rules", 0, "backendRefs", b],
        findings.references,
      ),
      filters: [],
      attemptTimeoutMs: null,
    })),
  };
}

export function routeSource(route: RouteObject): PolicySource {
  return sourceOf(groupOf(route), route.kind, namespaceOf(route), route.metadata.name);
}

export type ServiceDefaults = Pick<HttpRule, "timeouts" | "retry" | "allowsRequestHeaders">;

/** What a Service's own annotations say of requests to it that no route is there for; null: nothing. */
export function serviceDefaults(annotations: TrafficAnnotations): ServiceDefaults | null {
  const timeouts = timeoutsOf(undefined, annotations, null);
  const retry = retryOf(annotations, null);
  const allowsRequestHeaders = annotations.allowsRequestHeaders ?? false;
  const isSaid =
    retry !== null || allowsRequestHeaders || Object.values(timeouts).some((each) => each !== null);
  return isSaid ? { timeouts, retry, allowsRequestHeaders } : null;
}

export function httpMatch(match: HttpRouteMatch): HttpMatch {
  return {
    path: match.path === undefined ? null : { kind: PATH_KINDS[match.path.type], value: match.path.value },
    headers: fieldMatches(match.headers, true),
    query: fieldMatches(match.queryParams, false),
    method: match.method ?? null,
  };
}

const PATH_KINDS = { Exact: "exact", PathPrefix: "prefix", RegularExpression: "regex" } as const;

export function grpcMatch(match: GrpcRouteMatch): HttpMatch {
  return {
    path: match.method === undefined ? null : grpcPath(match.method),
    headers: fieldMatches(match.headers, true),
    query: [],
    method: null,
  };
}

/** A gRPC request is a POST to `/package.Service/Method`. */
function grpcPath(method: NonNullable<GrpcRouteMatch["method"]>): PathMatch {
  const { service = "", method: name = "" } = method;
  if (method.type === "Exact") return { kind: "rpc", service, method: name };
  const part = (regex: string): string => (regex === "" ? "[^/]+" : `(?:${regex})`);
  return { kind: "regex", value: `/${part(service)}/${part(name)}` };
}

export function hostMatch(name: string): HostMatch {
  const lower = name.toLowerCase();
  return lower.startsWith("*.") ? { kind: "suffix", host: lower.slice(2) } : { kind: "exact", host: lower };
}

/** `0s` is none, and says so: what is said further out does not count then. */
function timeoutsOf(
  rule: HttpRouteRule["timeouts"],
  route: TrafficAnnotations,
  parent: TrafficAnnotations | null,
): Timeouts {
  const said = (text: string | undefined): number | undefined =>
    text === undefined ? undefined : (durationMs(text) ?? undefined);
  const pick = (...values: readonly (number | undefined)[]): number | null => {
    const value = values.find((each) => each !== undefined) ?? 0;
    return value === 0 ? null : value;
  };
  return {
    // Linkerd's annotation wins over the rule's own field, as it does there.
    requestMs: pick(route.timeouts.requestMs, said(rule?.request), parent?.timeouts.requestMs),
    responseMs: pick(route.timeouts.responseMs, parent?.timeouts.responseMs),
    attemptMs: pick(said(rule?.backendRequest)),
    idleMs: pick(route.timeouts.idleMs, parent?.timeouts.idleMs),
  };
}

function retryOfRule(retry: NonNullable<HttpRouteRule["retry"]>): RetryPolicy {
  const minMs = retry.backoff === undefined ? BACKOFF.minMs : (durationMs(retry.backoff) ?? BACKOFF.minMs);
  return {
    retriesMax: retry.attempts ?? RETRIES_DEFAULT,
    statusRanges: (retry.codes ?? []).map((code) => [code, code]),
    grpcCodes: [],
    // GEP-1731: an implementation should retry on connection errors, whatever the codes.
    onConnectionError: true,
    attemptTimeoutMs: null,
    bodyBytesMax: BODY_BYTES_MAX,
    backoff: { minMs, maxMs: minMs * BACKOFF_GROWTH_MAX, jitterRatio: BACKOFF.jitterRatio },
    respectsRetryAfter: true,
  };
}

function retryOf(route: TrafficAnnotations, parent: TrafficAnnotations | null): RetryPolicy | null {
  const retry: RetryAnnotations | null = route.retry ?? parent?.retry ?? null;
  if (retry === null) return null;
  return {
    retriesMax: retry.limit,
    statusRanges: retry.statusRanges,
    grpcCodes: retry.grpcCodes,
    onConnectionError: false,
    attemptTimeoutMs: retry.timeoutMs === 0 ? null : retry.timeoutMs,
    bodyBytesMax: BODY_BYTES_MAX,
    backoff: BACKOFF,
    respectsRetryAfter: true,
  };
}

/** GEP-1619: a rule's own persistence goes before that of a policy about the backend. */
function withPersistence(backend: Backend, spec: SessionPersistenceSpec | undefined, owner: string): Backend {
  if (backend.kind === "forbidden") return backend;
  const traffic = backend.traffic ?? BACKEND_TRAFFIC_DEFAULTS;
  const { namespace, name } = backend.source;
  const { persistence: ofService } = traffic;
  if (spec !== undefined)
    return { ...backend, traffic: { ...traffic, persistence: persistenceOf(spec, owner) } };
  if (ofService === null) return backend;
  const persistence = persistenceOfRule(ofService, `${namespace}/${name}`, owner);
  return persistence === ofService ? backend : { ...backend, traffic: { ...traffic, persistence } };
}
