import type { OutboundPolicy, PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type {
  Backend,
  FieldMatch,
  HttpFilter,
  HttpMatch,
  HttpRoute,
  HttpRule,
  RetryPolicy,
  RouteBackend,
  TcpRoute,
  Timeouts,
} from "#/model/route.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { commonRegex } from "./common-regex.ts";
import { isRpcMatch } from "./encode-match.ts";
import { withOrderKept } from "./standard-order.ts";
import type { Lose, Loss } from "./standard-refusal.ts";
import { ALWAYS, Losses, refusal, refusingRule } from "./standard-refusal.ts";

/** A policy that the standard fields of the contract can say, and what is lost in it. */
export interface StandardPolicy {
  readonly policy: OutboundPolicy;
  readonly losses: readonly Loss[];
}

/**
 * The policy for a proxy that knows the standard fields alone (design: docs/protocol/contract.md). Whatever it passes, the
 * whole policy passes to the same place: what restricts or changes a request and cannot be said becomes a refusal, and what
 * only adds to it or prefers one endpoint to another is left out.
 */
export function standardPolicy(policy: OutboundPolicy): StandardPolicy {
  const losses = new Losses();
  const { add: lose } = losses;
  const { http, tcp, ...rest } = policy;
  const { protocol: spoken } = policy;
  const isHttp2 = spoken === "grpc" || spoken === "http2";
  const asCalls = isHttp2 && http.every(isOfCalls) && http.some((route) => route.source.kind === "GRPCRoute");
  const calls = http.map(withCallsOnly);
  const ordered = asCalls ? calls : withOrderKept(calls, lose);
  const unsayable = ordered.find((route) => route.rules.some((rule) => !rule.matches.every(isSayable)));
  const routes =
    unsayable === undefined
      ? ordered.map((route) => standardRoute(route, asCalls, lose))
      : [refusingRoute(unsayable.source, lose)];
  const connections = standardTcp(policy.protocol, tcp, lose);
  const protocol = isHttp2 ? (asCalls && unsayable === undefined ? "grpc" : "http2") : connections.protocol;
  return { policy: { ...rest, ...connections, protocol, http: routes }, losses: losses.all };
}

/**
 * Whether `outbound.GrpcRoute` can hold it without our extension. It orders calls as ours do. Of a path of more than two
 * segments, which is no call, it looks at two.
 */
function isOfCalls({ source, hosts, rules }: HttpRoute): boolean {
  const isSaid = (filter: HttpFilter): boolean =>
    filter.kind === "fail"
      ? filter.grpcStatus >= 0
      : !["redirect", "response-headers", "cors"].includes(filter.kind);
  // Of other routes only one that takes whatever is left.
  if (source.kind !== "GRPCRoute" && hosts.length > 0) return false;
  return rules.every(
    (rule) =>
      (source.kind === "GRPCRoute" ? rule.matches.every(isRpcMatch) : rule.matches.length === 0) &&
      rule.filters.every(isSaid) &&
      rule.backends.every(({ filters }) => filters.every(isSaid)),
  );
}

/** A GRPCRoute takes gRPC calls alone, and a proxy of another kind would take anything that has their path. */
const CALLS: FieldMatch = {
  name: "content-type",
  value: { kind: "regex", value: "application/grpc([+;].*)?" },
};

function withCallsOnly(route: HttpRoute): HttpRoute {
  if (route.source.kind !== "GRPCRoute") return route;
  return {
    ...route,
    rules: route.rules.map((rule) => {
      const matches = rule.matches.length === 0 ? [ANY_CALL] : rule.matches;
      return { ...rule, matches: matches.map((match) => ({ ...match, headers: [...match.headers, CALLS] })) };
    }),
  };
}

const ANY_CALL: HttpMatch = {
  path: { kind: "rpc", service: "", method: "" },
  headers: [],
  query: [],
  method: null,
};

/** Whether every pattern in it is read alike by other proxies, and its path as Gateway API has paths. */
function isSayable({ path, headers, query }: HttpMatch): boolean {
  const isField = ({ value }: FieldMatch): boolean =>
    value.kind === "exact" || commonRegex(value.value) !== null;
  if (path !== null) {
    if (path.kind === "regex" && commonRegex(path.value) === null) return false;
    if (path.kind === "prefix" && (!path.value.startsWith("/") || path.value.includes("//"))) return false;
  }
  return headers.every(isField) && query.every(isField);
}

function refusingRoute(source: PolicySource, lose: Lose): HttpRoute {
  lose(source, "refuse every request to the target: they might read a regular expression otherwise");
  return { source, hosts: [], rules: [refusingRule([ANY], source, "a regular expression")] };
}

function standardRoute(route: HttpRoute, asCalls: boolean, lose: Lose): HttpRoute {
  return {
    ...route,
    rules: route.rules.flatMap((rule) => {
      const matches = rule.matches.length === 0 && !asCalls ? [ANY] : rule.matches;
      return standardRules({ ...rule, matches: matches.map(standardMatch) }, route.source, lose);
    }),
  };
}

/** A rule becomes one, or two: the first refuses what only our sidecars would answer. */
function standardRules(rule: HttpRule, source: PolicySource, lose: Lose): HttpRule[] {
  const { matches } = rule;
  const filters = standardFilters(rule.filters, source, lose);
  if (filters === null) return [refusingRule(matches, source, "a change of the request's URL")];
  const backends = standardBackends(rule, source, lose);
  const made: HttpRule = {
    name: "",
    matches,
    filters: backends.length === 0 && rule.backends.length > 0 ? [...filters, noBackend(source)] : filters,
    choice: rule.choice,
    backends,
    ...standardTimes(rule.timeouts, rule.retry, source, lose),
    allowsRequestHeaders: rule.allowsRequestHeaders,
  };
  if (!rule.filters.some((filter) => filter.kind === "cors")) return [made];
  const preflights = matches
    .filter(({ method }) => method === null || method === "OPTIONS")
    .map((match) => ({ ...match, method: "OPTIONS", headers: [...match.headers, ...PREFLIGHT] }));
  return preflights.length === 0
    ? [made]
    : [refusingRule(preflights, source, "an answer to CORS preflights"), made];
}

const ANY: HttpMatch = { path: { kind: "prefix", value: "/" }, headers: [], query: [], method: null };

/** Fetch §3.2.3: what a browser asks with before it sends a request to another origin. */
const PREFLIGHT: readonly FieldMatch[] = ["origin", "access-control-request-method"].map((name) => ({
  name,
  value: { kind: "regex", value: "^(?:.*)$" },
}));

/** What an application may not say of CORS in the place of the policy's filter. */
const CORS_HEADERS: readonly string[] = [
  "access-control-allow-origin",
  "access-control-allow-credentials",
  "access-control-allow-methods",
  "access-control-allow-headers",
  "access-control-expose-headers",
  "access-control-max-age",
];

function standardMatch(match: HttpMatch): HttpMatch {
  const field = (one: FieldMatch): FieldMatch =>
    one.value.kind === "exact" ? one : { ...one, value: { kind: "regex", value: anchored(one.value.value) } };
  const { path } = match;
  return {
    ...match,
    path: path?.kind === "regex" ? { kind: "regex", value: anchored(path.value) } : path,
    headers: match.headers.map(field),
    query: match.query.map(field),
  };
}

/** `isSayable` has seen that there is one. */
function anchored(pattern: string): string {
  return commonRegex(pattern) ?? pattern;
}

/** Null: what they do to a request cannot be said. */
function standardFilters(
  filters: readonly HttpFilter[],
  source: PolicySource,
  lose: Lose,
): HttpFilter[] | null {
  const kept: HttpFilter[] = [];
  for (const filter of filters) {
    switch (filter.kind) {
      case "request-headers":
      case "response-headers":
      case "redirect":
        kept.push(filter);
        break;
      case "fail":
        if (filter.ratio.denominator > 0) kept.push({ ...filter, ...sayableFailure(filter) });
        break;
      case "rewrite":
        if (filter.host === null && filter.path === null) break;
        lose(source, "refuse these requests: they cannot rewrite URLs");
        return null;
      case "mirror":
        lose(source, "do not mirror");
        break;
      case "cors":
        lose(source, "allow no other origin, and refuse preflights: they do not know CORS");
        kept.push({ kind: "response-headers", change: { add: [], set: [], remove: CORS_HEADERS } });
        break;
      case "fault":
        lose(filter.source, "inject no fault");
        break;
    }
  }
  return kept;
}

/** A proxy of another kind refuses a policy with a status or a share that cannot be. */
function sayableFailure({
  status,
  ratio,
}: Extract<HttpFilter, { kind: "fail" }>): Pick<Extract<HttpFilter, { kind: "fail" }>, "status" | "ratio"> {
  return {
    status: status >= 100 && status <= 999 ? status : 500,
    ratio: ratio.numerator >= ratio.denominator ? ALWAYS : ratio,
  };
}

function standardBackends(rule: HttpRule, source: PolicySource, lose: Lose): RouteBackend[] {
  return rule.backends
    .filter(({ weight }) => rule.choice === "first" || weight > 0)
    .map((one): RouteBackend => {
      if (one.attemptTimeoutMs !== null) lose(source, "bound no attempt at one backend in time");
      const backend = standardBackend(one.backend, lose);
      const hasCors = one.filters.some((filter) => filter.kind === "cors");
      const filters = hasCors ? null : standardFilters(one.filters, source, lose);
      if (hasCors) lose(source, "refuse requests to a backend with a CORS filter of its own");
      const { weight } = one;
      if (backend.kind === "forbidden")
        return { weight, backend, attemptTimeoutMs: null, filters: [failing(backend.reason)] };
      return {
        weight,
        backend,
        attemptTimeoutMs: null,
        filters: filters ?? [refusal(source, hasCors ? "CORS" : "a change of the request's URL")],
      };
    });
}

/** Gateway API: a share that has no backend is answered with 500. */
function failing(message: string): HttpFilter {
  return { kind: "fail", status: 500, grpcStatus: 13, message, ratio: ALWAYS };
}

function noBackend(source: PolicySource): HttpFilter {
  return failing(`no backend of ${ruleOf(source)} has a weight`);
}

function standardBackend(backend: Backend, lose: Lose): Backend {
  if (backend.kind === "forward" && backend.endpoint.originatedTls !== undefined) {
    lose(backend.source, "refuse what goes there: they begin no TLS");
    return { kind: "forbidden", source: backend.source, reason: "this client's proxy begins no TLS" };
  }
  if (backend.kind === "forbidden" || backend.traffic === null) return backend;
  const { traffic, source } = backend;
  for (const [key, what] of PREFERENCES)
    if (JSON.stringify(traffic[key]) !== JSON.stringify(BACKEND_TRAFFIC_DEFAULTS[key])) lose(source, what);
  const { accrual } = traffic;
  if (accrual !== null && accrual.successRateMin > 0)
    lose(source, "set no endpoint aside for its success rate");
  const isSaid = accrual !== null && accrual.consecutiveFailures > 0;
  return { ...backend, traffic: isSaid ? { ...BACKEND_TRAFFIC_DEFAULTS, accrual } : null };
}

/** Which endpoint, how soon and how hard: nothing here says who may reach what. */
const PREFERENCES: readonly (readonly [keyof BackendTraffic, string])[] = [
  ["balancing", "choose endpoints in their own way"],
  ["persistence", "keep no session at its endpoint"],
  ["zone", "prefer no zone"],
  ["slowStartMs", "give new endpoints their full share at once"],
  ["subsetSize", "use all endpoints"],
  ["ejectionFloor", "set aside as many endpoints as fail"],
  ["panicThreshold", "set aside as many endpoints as fail"],
  ["limits", "keep to bounds of their own on requests and connections"],
  ["retryBudget", "keep to no retry budget"],
  ["overloadPenaltyMs", "move no load away from an endpoint that asks for it"],
  ["connectTimeoutMs", "wait for connections as long as they are set to"],
];

/** An attempt's bound is the request's where there is one attempt, and each retry's where there are more. */
function standardTimes(
  timeouts: Timeouts,
  retry: RetryPolicy | null,
  source: PolicySource,
  lose: Lose,
): { timeouts: Timeouts; retry: RetryPolicy | null } {
  const { requestMs, attemptMs } = timeouts;
  if (retry === null)
    return { timeouts: { ...timeouts, requestMs: lesser(requestMs, attemptMs), attemptMs: null }, retry };
  if (retry.onConnectionError) lose(source, "do not try again when a connection fails");
  if (retry.grpcCodes.length > 0 && source.kind !== "GRPCRoute")
    lose(source, "do not try again for a gRPC status");
  if (retry.statusRanges.length > 0 && source.kind === "GRPCRoute")
    lose(source, "do not try again for an HTTP status");
  return {
    timeouts: { ...timeouts, attemptMs: null },
    retry: {
      ...retry,
      retriesMax: Math.min(retry.retriesMax, 0xffff),
      onConnectionError: false,
      attemptTimeoutMs: lesser(retry.attemptTimeoutMs, attemptMs),
    },
  };
}

function lesser(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.min(a, b);
}

/** Routes by server name need a protocol that is known to be TLS; of routes without names only the first is used. */
function standardTcp(
  protocol: OutboundPolicy["protocol"],
  tcp: readonly TcpRoute[],
  lose: Lose,
): Pick<OutboundPolicy, "protocol" | "tcp"> {
  const routes = tcp.map((route): TcpRoute => {
    const backends = route.backends
      .filter(({ weight }) => route.choice === "first" || weight > 0)
      .map((one) => ({ ...one, backend: standardBackend(one.backend, lose) }));
    return backends.length === 0 && route.backends.length > 0
      ? { ...route, backends, refusal: route.refusal ?? "no backend has a weight" }
      : { ...route, backends };
  });
  const named = routes.find((route) => route.serverNames.length > 0);
  if (protocol === "tls") return { protocol: named === undefined ? "opaque" : "tls", tcp: routes };
  if (named === undefined) return { protocol, tcp: routes.slice(0, 1) };
  if (protocol === "opaque") {
    lose(named.source, "refuse connections that are not TLS");
    return { protocol: "tls", tcp: routes };
  }
  lose(named.source, "refuse connections that are not HTTP");
  const refusal = `${ruleOf(named.source)} routes by server name, which this client's proxy cannot do here`;
  return {
    protocol,
    tcp: [{ source: named.source, serverNames: [], refusal, choice: "first", backends: [] }],
  };
}
