import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeOutboundPolicy, encodeStandardPolicy } from "#/control/answers/encode-outbound.ts";
import { standardPolicy } from "#/control/answers/standard-policy.ts";
import { OutboundPolicySchema } from "#/gen/linkerd/outbound_pb.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { defaultBackendOf } from "#/model/policy.ts";
import type {
  Backend,
  FieldMatch,
  HostMatch,
  HttpFilter,
  HttpMatch,
  HttpRoute,
  HttpRule,
  PathMatch,
  RouteBackend,
  TcpRoute,
} from "#/model/route.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { hostHolds } from "#/stack/route/host.ts";
import type { RequestHead } from "#/stack/http/exchange.ts";
import { RouteTable } from "#/stack/route/table.ts";
import { findTcpRoute } from "#/stack/route/tcp.ts";
import type { Asked, Reading } from "./linkerd-reading.ts";
import { linkerdReading, REFUSED } from "./linkerd-reading.ts";
import { outboundPolicies } from "./policy-models.ts";
import { hasUnknownFields, readStandard } from "./standard-schema.ts";

// Design: an extension may only widen what a sidecar does. A proxy that reads the standard fields alone must not let through what
// the whole policy refuses, nor send elsewhere or otherwise changed what it lets through.

// --- policies of few parts, so that rules meet ---

const source = (kind: string, name: string) => ({
  group: "gateway.networking.k8s.io",
  kind,
  namespace: "shop",
  name,
  section: "",
  port: 0,
});

const names = fc.constantFrom("a", "b", "c");
const backends: fc.Arbitrary<Backend> = fc.oneof(
  { weight: 5, arbitrary: names.map(balancerTo) },
  {
    weight: 1,
    arbitrary: fc.constant<Backend>({ kind: "forbidden", source: source("Service", "x"), reason: "missing" }),
  },
);

function balancerTo(name: string): Backend {
  return {
    kind: "balancer",
    source: source("Service", name),
    path: name,
    defaultRttMs: 30,
    decayMs: 10_000,
    traffic:
      name === "c"
        ? { ...BACKEND_TRAFFIC_DEFAULTS, limits: { requestsMax: 1, pendingMax: 1, connectionsMax: 1 } }
        : null,
  };
}

const paths: fc.Arbitrary<PathMatch | null> = fc.oneof(
  fc.record({
    kind: fc.constant("exact"),
    value: fc.constantFrom("/", "/a", "/a/b", "/a/", "/svc/m"),
  }),
  fc.record({ kind: fc.constant("prefix"), value: fc.constantFrom("/", "/a", "/a/", "/a/b", "/svc") }),
  fc.record({
    kind: fc.constant("regex"),
    value: fc.constantFrom("/a", "/a/.*", "/[ab]", "/a|/a/b", "/(a|b)/.+", ".*", "/svc/[mn]", "/b?"),
  }),
  fc.constant(null),
);

const rpcs: fc.Arbitrary<PathMatch | null> = fc.oneof(
  fc.record({
    kind: fc.constant("rpc"),
    service: fc.constantFrom("", "svc", "a"),
    method: fc.constantFrom("", "m", "b"),
  }),
  fc.constant(null),
);

const field = (name: string): fc.Arbitrary<FieldMatch> =>
  fc.record({
    name: fc.constant(name),
    value: fc.record({ kind: fc.constantFrom("exact", "regex"), value: fc.constantFrom("1", "2") }),
  });
const fields = fc
  .tuple(fc.option(field("x")), fc.option(field("y")))
  .map((both) => both.filter((one) => one !== null));

const httpMatches: fc.Arbitrary<HttpMatch> = fc.record({
  path: paths,
  headers: fields,
  query: fields,
  method: fc.option(fc.constantFrom("GET", "POST", "OPTIONS"), { freq: 2 }),
});
const rpcMatches: fc.Arbitrary<HttpMatch> = fc.record({
  path: rpcs,
  headers: fields,
  query: fc.constant([]),
  method: fc.constant(null),
});

const ratios = fc.constantFrom(
  { numerator: 1, denominator: 1 },
  { numerator: 5, denominator: 2 },
  { numerator: 1, denominator: 2 },
  { numerator: 1, denominator: 0 },
);
const setting = (name: string) => ({ add: [], set: [[name, "1"] as const], remove: [] });
const filters: fc.Arbitrary<HttpFilter> = fc.oneof(
  fc.record({
    kind: fc.constant("fail"),
    status: fc.constantFrom(0, 503, 5000),
    grpcStatus: fc.constantFrom(-1, 14),
    message: fc.constant("no"),
    ratio: ratios,
  }),
  fc.constantFrom<HttpFilter>(
    { kind: "request-headers", change: setting("p") },
    { kind: "request-headers", change: setting("q") },
    { kind: "response-headers", change: setting("r") },
    { kind: "redirect", scheme: null, host: "h", path: null, port: null, status: 302 },
    { kind: "redirect", scheme: null, host: "h", path: null, port: null, status: 301 },
    { kind: "rewrite", host: "h", path: null },
    { kind: "rewrite", host: null, path: { kind: "prefix", value: "/z" } },
    { kind: "rewrite", host: null, path: null },
    { kind: "mirror", backend: balancerTo("m"), ratio: { numerator: 1, denominator: 1 } },
    {
      kind: "cors",
      cors: {
        allowOrigins: ["*"],
        allowMethods: [],
        allowHeaders: [],
        exposeHeaders: [],
        allowCredentials: false,
        maxAgeSeconds: 5,
      },
    },
    {
      kind: "fault",
      source: source("FaultPolicy", "f"),
      ratio: { numerator: 1, denominator: 1 },
      headers: [],
      action: { kind: "delay", delayMs: 1, jitterMs: 0 },
    },
  ),
);

const someFilters = fc.oneof(
  { weight: 2, arbitrary: fc.constant([]) },
  { weight: 1, arbitrary: fc.array(filters, { maxLength: 2 }) },
);

function rulesOf(matches: fc.Arbitrary<HttpMatch>): fc.Arbitrary<HttpRule> {
  const backend: fc.Arbitrary<RouteBackend> = fc.record({
    weight: fc.constantFrom(0, 1, 2),
    backend: backends,
    filters: fc.oneof(
      { weight: 4, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(filters, { maxLength: 1 }) },
    ),
    attemptTimeoutMs: fc.constantFrom(null, 50),
  });
  const rule: fc.Arbitrary<HttpRule> = fc.record({
    name: fc.constant(""),
    matches: fc.array(matches, { maxLength: 2 }),
    filters: someFilters,
    choice: fc.constantFrom("first", "random"),
    backends: fc.array(backend, { minLength: 1, maxLength: 2 }),
    timeouts: fc.record({
      requestMs: fc.constantFrom(null, 100),
      responseMs: fc.constant(null),
      attemptMs: fc.constantFrom(null, 50),
      idleMs: fc.constant(null),
    }),
    retry: fc.constant(null),
    allowsRequestHeaders: fc.boolean(),
  });
  return rule.map((one) =>
    one.choice === "first" ? { ...one, backends: one.backends.map((each) => ({ ...each, weight: 1 })) } : one,
  );
}

function routesOf(kind: string, matches: fc.Arbitrary<HttpMatch>): fc.Arbitrary<HttpRoute> {
  return fc.record({
    source: names.map((name) => source(kind, name)),
    hosts: fc.oneof(
      { weight: 3, arbitrary: fc.constant([]) },
      {
        weight: 1,
        arbitrary: fc.subarray([
          { kind: "exact", host: "a.com" },
          { kind: "suffix", host: "com" },
        ] as const),
      },
    ),
    rules: fc.array(rulesOf(matches), { minLength: 1, maxLength: 3 }),
  });
}

const policies: fc.Arbitrary<OutboundPolicy> = fc
  .record({
    source: fc.constant(source("Service", "web")),
    protocol: fc.constantFrom("detect", "http1", "http2", "grpc"),
    http: fc.oneof(
      fc.array(routesOf("HTTPRoute", httpMatches), { maxLength: 3 }),
      fc.array(routesOf("GRPCRoute", rpcMatches), { maxLength: 3 }),
      fc.array(fc.oneof(routesOf("HTTPRoute", httpMatches), routesOf("GRPCRoute", rpcMatches)), {
        maxLength: 3,
      }),
    ),
    tcp: fc.constant([]),
  })
  .map((policy) => ({ ...policy, backend: defaultBackendOf(policy) }));

const values = fc.constantFrom(undefined, "1", "2");

const requests: fc.Arbitrary<Asked> = fc
  .record({
    isHttp2: fc.boolean(),
    method: fc.constantFrom("GET", "POST", "OPTIONS", "PUT"),
    host: fc.constantFrom("a.com", "b.com", "com", "web"),
    path: fc.constantFrom("/", "/a", "/a/", "/a/b", "/b", "/svc", "/svc/m", "/svc/n", "/c/d/e", "*"),
    x: values,
    y: values,
    u: values,
    v: values,
    isCall: fc.boolean(),
    isPreflight: fc.boolean(),
  })
  .map(({ isCall, isPreflight: preflight, x, y, u, v, ...rest }) => ({
    ...rest,
    ...(isCall && rest.isHttp2 ? { method: "POST", path: rest.path === "/a/b" ? "/a/b" : "/svc/m" } : {}),
    headers: {
      ...(x === undefined ? {} : { x }),
      ...(y === undefined ? {} : { y }),
      ...(isCall ? { "content-type": "application/grpc" } : {}),
      ...(preflight ? { origin: "https://o", "access-control-request-method": "PUT" } : {}),
    },
    query: { ...(u === undefined ? {} : { x: u }), ...(v === undefined ? {} : { y: v }) },
  }));

// --- what the whole policy says: Gateway API's order of rules, then the filters in theirs ---

function ourRule(policy: OutboundPolicy, asked: Asked): HttpRule | null {
  let best: { readonly rank: readonly number[]; readonly rule: HttpRule } | null = null;
  for (const route of policy.http)
    for (const rule of route.rules)
      for (const match of rule.matches.length === 0 ? [ANY] : rule.matches)
        for (const host of route.hosts.length === 0 ? [null] : route.hosts) {
          const rank = rankOfMatch(route, host, match, asked);
          if (rank !== null && (best === null || compare(rank, best.rank) > 0)) best = { rank, rule };
        }
  return best?.rule ?? null;
}

function ourReading(policy: OutboundPolicy, asked: Asked): Reading {
  const rule = ourRule(policy, asked);
  if (rule === null) return REFUSED;
  const done: string[] = [];
  const answer = pass(rule.filters, done, asked);
  if (answer !== null) return answer;
  const to = new Set<string>();
  for (const { weight, backend, filters: own } of rule.backends) {
    const also = [...done];
    if (weight === 0 || backend.kind !== "balancer") continue;
    if (pass(own, also, asked) === null) to.add(`${backend.path} ${also.join(" ")}`);
  }
  return { to, redirect: null };
}

const ANY: HttpMatch = { path: null, headers: [], query: [], method: null };

/** As `stack/route/table.ts` words it: GRPCRoutes for calls > host > path > method > headers > query; null: does not hold. */
function rankOfMatch(
  { source: { kind } }: HttpRoute,
  host: HostMatch | null,
  { path, headers, query, method }: HttpMatch,
  asked: Asked,
): readonly number[] | null {
  const isCallRoute = kind === "GRPCRoute";
  const isCall = asked.isHttp2 && asked.headers["content-type"] === "application/grpc";
  if ((isCallRoute && !isCall) || (method !== null && method !== asked.method)) return null;
  if (host !== null && !hostHolds(host, asked.host)) return null;
  const holds = (all: readonly FieldMatch[], of: Asked["headers"]): boolean =>
    all.every(({ name, value }) => {
      const has = of[name];
      return has !== undefined && (value.kind === "exact" ? has === value.value : isWhole(value.value, has));
    });
  if (!holds(headers, asked.headers) || !holds(query, asked.query)) return null;
  const byPath = pathRank(path, asked.path);
  if (byPath === null) return null;
  const byHost = host === null ? [0, 0] : [host.kind === "exact" ? 2 : 1, host.host.length];
  return [Number(isCallRoute), ...byHost, ...byPath, Number(method !== null), headers.length, query.length];
}

/** exact > longest prefix > regex > any; of gRPC: service and method > service > method > any. */
function pathRank(path: PathMatch | null, asked: string): readonly number[] | null {
  if (path === null) return [0, 0];
  if (path.kind === "exact") return path.value === asked ? [4, 0] : null;
  if (path.kind === "regex") return isWhole(path.value, asked) ? [1, 0] : null;
  if (path.kind !== "rpc") return prefixRank(path.value, asked);
  const { service, method } = path;
  if (service === "") {
    if (method === "") return [0, 0];
    return asked.slice(asked.indexOf("/", 1) + 1) === method && asked.indexOf("/", 1) !== -1 ? [2, 0] : null;
  }
  if (method === "") return prefixRank(`/${service}`, asked);
  return asked === `/${service}/${method}` ? [4, 0] : null;
}

function prefixRank(value: string, asked: string): readonly number[] | null {
  const prefix = value.replace(/\/$/, "");
  if (prefix === "") return [0, 0];
  const holds = asked.startsWith(prefix) && (asked.length === prefix.length || asked[prefix.length] === "/");
  return holds ? [3, prefix.length] : null;
}

function isWhole(pattern: string, text: string): boolean {
  return new RegExp(`^(?:${pattern})$`).test(text);
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (const [i, value] of a.entries()) if (value !== b[i]) return value - b[i]!;
  return 0;
}

function pass(all: readonly HttpFilter[], done: string[], asked: Asked): Reading | null {
  for (const filter of all) {
    if (filter.kind === "fail") {
      const { numerator, denominator } = filter.ratio;
      if (denominator > 0 && numerator >= denominator) return REFUSED;
    } else if (filter.kind === "redirect") return { to: new Set(), redirect: String(filter.status) };
    else if (filter.kind === "request-headers") done.push(`+${filter.change.set[0]![0]}`);
    else if (filter.kind === "rewrite" && (filter.host ?? filter.path) !== null)
      done.push(`rewrite ${filter.host} ${filter.path?.value}`);
    // Whoever asks first whether it may is answered here.
    else if (filter.kind === "cors" && isPreflight(asked)) return REFUSED;
  }
  return null;
}

function standardReading(policy: OutboundPolicy, asked: Asked): Reading {
  const message = encodeStandardPolicy(standardPolicy(policy).policy);
  return linkerdReading(readStandard(OutboundPolicySchema, message), asked);
}

function isPreflight({ method, headers }: Asked): boolean {
  return method === "OPTIONS" && "origin" in headers && "access-control-request-method" in headers;
}

/** A connection of HTTP/1 to a target of HTTP/2 or the other way around is none of the policy's. */
function fits(policy: OutboundPolicy, { isHttp2 }: Asked): boolean {
  return policy.protocol === "detect" || (policy.protocol === "http1") !== isHttp2;
}

test("what the standard fields let through, the whole policy lets through to the same place", () => {
  let forwarded = 0;
  let kept = 0;
  fc.assert(
    fc.property(policies, fc.array(requests, { minLength: 8, maxLength: 8 }), (policy, all) => {
      const message = readStandard(OutboundPolicySchema, encodeStandardPolicy(standardPolicy(policy).policy));
      for (const asked of all) {
        if (!fits(policy, asked)) continue;
        const ours = ourReading(policy, asked);
        const theirs = linkerdReading(message, asked);
        for (const way of theirs.to)
          assert.ok(ours.to.has(way), `to ${way}, and not to one of ${[...ours.to].join(", ") || "none"}`);
        if (theirs.redirect !== null) assert.equal(theirs.redirect, ours.redirect);
        forwarded += ours.to.size;
        kept += theirs.to.size;
      }
    }),
    { numRuns: 2_000 },
  );
  // It could refuse everything and be right; what is the same in both is to work.
  assert.ok(kept > forwarded / 4, `${kept} of ${forwarded} ways are left`);
});

test("the whole policy is read here as our sidecars read it", () => {
  const headOf = ({ isHttp2, method, host, path, headers, query }: Asked): RequestHead => {
    const search = new URLSearchParams(query).toString();
    return {
      method,
      scheme: "http",
      authority: host,
      path: search === "" ? path : `${path}?${search}`,
      version: isHttp2 ? "2" : "1.1",
      absoluteForm: false,
      upgrade: null,
      fields: Object.entries(headers).flat(),
    };
  };
  fc.assert(
    fc.property(policies, fc.array(requests, { minLength: 4, maxLength: 4 }), (policy, all) => {
      const table = new RouteTable(policy.http);
      for (const asked of all)
        assert.equal(table.find(headOf(asked))?.rule ?? null, ourRule(policy, asked), asked.path);
    }),
    { numRuns: 500 },
  );
});

test("a policy of standard parts alone is read alike by both", () => {
  const isStandard = ({ http }: OutboundPolicy): boolean =>
    http.every(({ source: { kind }, rules }) =>
      rules.every(
        ({ filters: own, backends: all, matches }) =>
          kind === "HTTPRoute" &&
          own.length === 0 &&
          all.every((backend) => backend.filters.length === 0 && backend.backend.kind === "balancer") &&
          matches.every(
            ({ path, method }) => path?.kind !== "regex" && path?.kind !== "exact" && method === null,
          ),
      ),
    );
  fc.assert(
    fc.property(
      policies.filter(isStandard),
      fc.array(requests, { minLength: 4, maxLength: 4 }),
      (policy, all) => {
        for (const asked of all)
          if (fits(policy, asked))
            assert.deepEqual(standardReading(policy, asked), ourReading(policy, asked));
      },
    ),
    { numRuns: 200 },
  );
});

test("connections go nowhere by the standard fields that they do not go by the whole policy", () => {
  const tcpRoutes: fc.Arbitrary<TcpRoute> = fc.record({
    source: names.map((name) => source("TLSRoute", name)),
    serverNames: fc.subarray([
      { kind: "exact", host: "a.com" },
      { kind: "suffix", host: "com" },
    ] as const),
    refusal: fc.constantFrom(null, null, "no"),
    choice: fc.constantFrom("first", "random"),
    backends: fc.array(
      fc.record({
        weight: fc.constantFrom(0, 1),
        backend: backends,
        filters: fc.constant([]),
        attemptTimeoutMs: fc.constant(null),
      }),
      { maxLength: 2 },
    ),
  });
  fc.assert(
    fc.property(
      fc.constantFrom("opaque", "tls", "detect"),
      fc.array(tcpRoutes, { maxLength: 3 }),
      fc.constantFrom(null, "a.com", "b.com", "org"),
      (protocol, tcp, serverName) => {
        const policy = { source: source("Service", "web"), protocol, http: [], tcp } as const;
        const whole = { ...policy, backend: defaultBackendOf(policy) };
        const message = encodeStandardPolicy(standardPolicy(whole).policy);
        const kind = readStandard(OutboundPolicySchema, message).protocol!.kind;
        const routes =
          kind.case === "detect"
            ? kind.value.opaque!.routes
            : kind.case === "opaque" || kind.case === "tls"
              ? kind.value.routes
              : [];
        const taken =
          kind.case !== "tls"
            ? routes[0]
            : serverName === null
              ? undefined
              : routes
                  .toSorted((a, b) => rankOf(b, serverName) - rankOf(a, serverName))
                  .find((one) => rankOf(one, serverName) >= 0);
        const rule = taken?.rules[0];
        const distribution = rule?.backends?.kind;
        const theirs =
          rule === undefined || rule.filters.length > 0 || distribution?.case === "empty"
            ? []
            : distribution!.value!.backends.map((one) => ("weight" in one ? one.backend! : one));
        const ours = findTcpRoute(tcp, serverName);
        for (const { backend, filters: own } of theirs) {
          if (backend?.kind.case !== "balancer" || own.length > 0) continue;
          const path = backend.kind.value.discovery?.kind.value?.path;
          assert.ok(ours !== null && ours.refusal === null);
          assert.ok(
            ours.backends.some(
              (one) =>
                one.backend.kind === "balancer" &&
                one.backend.path === path &&
                (ours.choice === "first" || one.weight > 0),
            ),
          );
        }
      },
    ),
    { numRuns: 1_000 },
  );
});

function rankOf(route: object, serverName: string): number {
  const { snis = [] } = route as {
    snis?: { match: { case?: string; value?: string | { reverseLabels: string[] } } }[];
  };
  if (snis.length === 0) return 0;
  const ranks = snis.map(({ match: { case: kind, value } }) => {
    if (kind === "exact") return value === serverName ? 1000 : -1;
    const suffix = (value as { reverseLabels: string[] }).reverseLabels.toReversed().join(".");
    return serverName.endsWith(`.${suffix}`) ? suffix.length : -1;
  });
  return Math.max(...ranks);
}

test("no field of ours is in what a proxy without our extension gets; what ours gets has them", () => {
  let extended = 0;
  fc.assert(
    fc.property(outboundPolicies, (policy) => {
      const { policy: lowered } = standardPolicy(policy);
      assert.ok(!hasUnknownFields(readStandard(OutboundPolicySchema, encodeStandardPolicy(lowered))));
      if (hasUnknownFields(readStandard(OutboundPolicySchema, encodeOutboundPolicy(policy)))) extended++;
    }),
    { numRuns: 200 },
  );
  assert.ok(extended > 0);
});

test("the object that asks for what is lost is named", () => {
  const rewriting: HttpRoute = {
    source: source("HTTPRoute", "web"),
    hosts: [],
    rules: [
      {
        name: "",
        matches: [],
        filters: [{ kind: "rewrite", host: "other", path: null }],
        choice: "first",
        backends: [],
        timeouts: { requestMs: null, responseMs: null, attemptMs: null, idleMs: null },
        retry: null,
        allowsRequestHeaders: false,
      },
    ],
  };
  const policy = { source: source("Service", "web"), protocol: "http2", http: [rewriting], tcp: [] } as const;
  const { policy: lowered, losses } = standardPolicy({ ...policy, backend: defaultBackendOf(policy) });
  assert.deepEqual(losses, [
    { source: rewriting.source, what: "refuse these requests: they cannot rewrite URLs" },
  ]);
  const [filter] = lowered.http[0]!.rules[0]!.filters;
  assert.equal(filter?.kind === "fail" && filter.message.includes("HTTPRoute/shop/web"), true);
});
