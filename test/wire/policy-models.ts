import fc from "fast-check";
import type { Endpoint } from "#/model/endpoint.ts";
import type { OutboundPolicy, PolicySource, Protocol } from "#/model/policy.ts";
import { defaultBackendOf } from "#/model/policy.ts";
import type {
  Backend,
  FaultAction,
  FieldMatch,
  HeaderChange,
  HostMatch,
  HttpFilter,
  HttpMatch,
  HttpRoute,
  HttpRule,
  PathChange,
  PathMatch,
  Ratio,
  RetryPolicy,
  RouteBackend,
  TcpRoute,
  Timeouts,
} from "#/model/route.ts";
import type { BackendTraffic, FailureAccrual, HashKey, InboundLimits, RateLimit } from "#/model/traffic.ts";
import { pathProblem } from "#/stack/route/path-change.ts";

// Arbitrary models of traffic policy, in the one form that each has: names in lower case where they are compared so, and
// nothing said that means nothing (a weight where the first is chosen, a choice among none).

const uint32 = fc.nat(0xffff_ffff);
const ms = fc.nat(2 ** 31 - 1);
const someMs = fc.integer({ min: 1, max: 2 ** 31 - 1 });
const timeout = fc.option(someMs);
/** Of floats and doubles alike. */
const share = fc.nat(1000).map((n) => n / 1000);
const text = fc.oneof(
  fc.string({ maxLength: 8 }),
  fc.string({ unit: "binary", maxLength: 8 }),
  fc.constant(""),
);
const someText = fc.string({ minLength: 1, maxLength: 8 });
const lower = fc.stringMatching(/^[a-z0-9-]{1,8}$/);
const few = <T>(arbitrary: fc.Arbitrary<T>, maxLength = 3): fc.Arbitrary<T[]> =>
  fc.array(arbitrary, { maxLength });

export const sources: fc.Arbitrary<PolicySource> = fc.oneof(
  fc.record({
    group: fc.constantFrom("core", "gateway.networking.k8s.io", "policy.linkerd.io"),
    kind: fc.constantFrom("Service", "HTTPRoute", "GRPCRoute", "TLSRoute"),
    namespace: lower,
    name: lower,
    section: text,
    port: fc.nat(65_535),
  }),
  text.map((name) => ({ group: "", kind: "default", namespace: "", name, section: "", port: 0 })),
);

const stringMatches = fc.record({ kind: fc.constantFrom("exact", "regex"), value: text });
const headerMatches: fc.Arbitrary<FieldMatch> = fc.record({ name: lower, value: stringMatches });
const queryMatches: fc.Arbitrary<FieldMatch> = fc.record({ name: text, value: stringMatches });

const paths: fc.Arbitrary<PathMatch> = fc.oneof(
  fc.record({ kind: fc.constantFrom("exact", "prefix", "regex"), value: text }),
  fc.record({ kind: fc.constant("rpc"), service: text, method: text }),
);

const httpMatches: fc.Arbitrary<HttpMatch> = fc.record({
  path: fc.option(paths),
  headers: few(headerMatches),
  query: few(queryMatches),
  method: fc.option(fc.oneof(fc.constantFrom("GET", "POST", "TRACE", "PURGE", "constructor", ""), text)),
});

const rpcMatches: fc.Arbitrary<HttpMatch> = fc.record({
  path: fc.option(fc.record({ kind: fc.constant("rpc"), service: text, method: text })),
  headers: few(headerMatches),
  query: fc.constant([]),
  method: fc.constant(null),
});

export const hosts: fc.Arbitrary<HostMatch> = fc.record({
  kind: fc.constantFrom("exact", "suffix"),
  host: fc.array(lower, { minLength: 1, maxLength: 3 }).map((labels) => labels.join(".")),
});

const ratios: fc.Arbitrary<Ratio> = fc.record({ numerator: uint32, denominator: uint32 });
const fields: fc.Arbitrary<HeaderChange["add"]> = few(fc.tuple(text, text));
const changes: fc.Arbitrary<HeaderChange> = fc.record({ add: fields, set: fields, remove: few(text) });
const pathChanges: fc.Arbitrary<PathChange> = fc.record({
  kind: fc.constantFrom("full", "prefix"),
  value: text.filter((value) => pathProblem(value) === null),
});

const endpoints: fc.Arbitrary<Endpoint> = fc
  .record({
    address: fc.record({
      ip: fc.oneof(
        fc.constantFrom("10.0.0.1", "255.255.255.255", "0.0.0.0", "fd00::1", "2001:db8:1:2:3:4:5:6"),
      ) as fc.Arbitrary<Endpoint["address"]["ip"]>,
      port: fc.nat(65_535),
    }),
    weight: uint32,
    identity: fc.option(
      fc.record({
        name: fc.oneof(
          lower,
          lower.map((name) => `spiffe://${name}`),
        ),
        serverName: lower,
      }),
    ),
    protocolHint: fc.constantFrom("unknown", "http2", "opaque"),
    tunnelPort: fc.option(fc.integer({ min: 1, max: 65_535 })),
    authorityOverride: fc.option(lower),
    labels: fc.dictionary(lower, text, { maxKeys: 3 }),
  })
  .chain((endpoint) =>
    fc
      .option(fc.record({ serverName: lower, caPem: text }))
      .map((originatedTls) => (originatedTls === null ? endpoint : { ...endpoint, originatedTls })),
  );

const backoffs = fc.record({ minMs: ms, maxMs: ms, jitterRatio: share });

const accruals: fc.Arbitrary<FailureAccrual> = fc.record({
  consecutiveFailures: uint32,
  successRateMin: share,
  windowMs: ms,
  requestsMin: uint32,
  backoff: backoffs,
  respectsRetryAfter: fc.boolean(),
});

const hashKeys: fc.Arbitrary<HashKey> = fc.oneof(
  fc.record({ kind: fc.constantFrom("header", "cookie"), name: text }),
  fc.constant({ kind: "source" } as const),
);

const traffics: fc.Arbitrary<BackendTraffic> = fc.record({
  balancing: fc.record({
    algorithm: fc.constantFrom("p2c-ewma", "round-robin", "random", "least-request", "consistent-hash"),
    hashOn: few(hashKeys),
    boundedLoad: fc.double({ min: 0, max: 100, noNaN: true }).map((value) => value + 0),
  }),
  persistence: fc.option(
    fc.record({
      kind: fc.constantFrom("cookie", "header"),
      name: text,
      absoluteTimeoutMs: timeout,
      isPermanent: fc.boolean(),
      path: text,
    }),
  ),
  zone: fc.option(fc.record({ spillAtPending: uint32, healthyShareMin: share })),
  slowStartMs: ms,
  subsetSize: uint32,
  accrual: fc.option(accruals),
  ejectionFloor: share,
  panicThreshold: share,
  limits: fc.record({ requestsMax: uint32, pendingMax: uint32, connectionsMax: uint32 }),
  retryBudget: fc.record({ percent: uint32, intervalMs: ms, floorCount: uint32, floorIntervalMs: ms }),
  overloadPenaltyMs: ms,
  connectTimeoutMs: timeout,
});

export const backends: fc.Arbitrary<Backend> = fc.oneof(
  fc.record({
    kind: fc.constant("balancer"),
    source: sources,
    path: someText,
    defaultRttMs: someMs,
    decayMs: someMs,
    traffic: fc.option(traffics),
  }),
  fc.record({
    kind: fc.constant("forward"),
    source: sources,
    endpoint: endpoints,
    traffic: fc.option(traffics),
  }),
  fc.record({ kind: fc.constant("forbidden"), source: sources, reason: someText }),
);

const actions: fc.Arbitrary<FaultAction> = fc.oneof(
  fc.record({ kind: fc.constant("delay"), delayMs: ms, jitterMs: ms }),
  fc.record({ kind: fc.constant("abort"), status: uint32, grpcStatus: uint32, message: text }),
  fc.constant({ kind: "reset" } as const),
  fc.record({ kind: fc.constant("bandwidth"), bytesPerSecond: fc.maxSafeNat() }),
  fc.record({ kind: fc.constant("slow-close"), delayMs: ms }),
);

const rpcFailures: fc.Arbitrary<HttpFilter> = fc.record({
  kind: fc.constant("fail"),
  status: uint32,
  grpcStatus: fc.nat(20),
  message: text,
  ratio: ratios,
});

/** What a gRPC route may hold as well. */
const rpcFilters: fc.Arbitrary<HttpFilter> = fc.oneof(
  fc.record({ kind: fc.constantFrom("request-headers", "response-headers"), change: changes }),
  fc.record({ kind: fc.constant("rewrite"), host: fc.option(someText), path: fc.option(pathChanges) }),
  fc.record({ kind: fc.constant("mirror"), backend: backends, ratio: ratios }),
  fc.record({
    kind: fc.constant("cors"),
    cors: fc.record({
      allowOrigins: few(text),
      allowMethods: few(text),
      allowHeaders: few(text),
      exposeHeaders: few(text),
      allowCredentials: fc.boolean(),
      maxAgeSeconds: uint32,
    }),
  }),
  rpcFailures,
  fc.record({
    kind: fc.constant("fault"),
    source: sources,
    ratio: ratios,
    headers: few(headerMatches),
    action: actions,
  }),
);

const httpFilters: fc.Arbitrary<HttpFilter> = fc.oneof(
  rpcFilters,
  fc.record({
    kind: fc.constant("redirect"),
    scheme: fc.option(fc.constantFrom("http", "https", "ftp", "")),
    host: fc.option(someText),
    path: fc.option(pathChanges),
    port: fc.option(fc.integer({ min: 1, max: 65_535 })),
    status: uint32,
  }),
  fc.record({
    kind: fc.constant("fail"),
    status: uint32,
    grpcStatus: fc.constant(-1),
    message: text,
    ratio: ratios,
  }),
);

const timeouts: fc.Arbitrary<Timeouts> = fc.record({
  requestMs: timeout,
  responseMs: timeout,
  attemptMs: timeout,
  idleMs: timeout,
});

const retries: fc.Arbitrary<RetryPolicy> = fc.record({
  retriesMax: uint32,
  statusRanges: few(fc.tuple(uint32, uint32)),
  grpcCodes: fc.oneof(fc.subarray([1, 4, 8, 13, 14]), few(fc.nat(20))),
  onConnectionError: fc.boolean(),
  attemptTimeoutMs: timeout,
  bodyBytesMax: uint32,
  backoff: backoffs,
  respectsRetryAfter: fc.boolean(),
});

function distributions(one: fc.Arbitrary<RouteBackend>): fc.Arbitrary<Pick<HttpRule, "choice" | "backends">> {
  const some = fc.array(one, { minLength: 1, maxLength: 3 });
  return fc.oneof(
    fc.constant({ choice: "first" as const, backends: [] }),
    some.map((backends) => ({
      choice: "first" as const,
      backends: backends.map((backend) => ({ ...backend, weight: 1 })),
    })),
    some.map((backends) => ({ choice: "random" as const, backends })),
  );
}

function httpRoutes(
  matches: fc.Arbitrary<HttpMatch>,
  filters: fc.Arbitrary<HttpFilter>,
): fc.Arbitrary<HttpRoute> {
  const backend = fc.record({
    weight: uint32,
    backend: backends,
    filters: few(filters, 2),
    attemptTimeoutMs: timeout,
  });
  const rule: fc.Arbitrary<HttpRule> = fc
    .tuple(
      fc.record({
        name: text,
        matches: few(matches),
        filters: few(filters, 4),
        timeouts,
        retry: fc.option(retries),
        allowsRequestHeaders: fc.boolean(),
      }),
      distributions(backend),
    )
    .map(([rest, distribution]) => ({ ...rest, ...distribution }));
  return fc.record({ source: sources, hosts: few(hosts), rules: few(rule, 2) });
}

const tcpRoutes: fc.Arbitrary<TcpRoute> = fc
  .tuple(
    fc.record({ source: sources, serverNames: few(hosts), refusal: fc.option(someText) }),
    distributions(
      fc.record({
        weight: uint32,
        backend: backends,
        filters: fc.constant([]),
        attemptTimeoutMs: fc.constant(null),
      }),
    ),
  )
  .map(([rest, distribution]) => ({ ...rest, ...distribution }));

const PROTOCOLS: readonly Protocol[] = ["detect", "http1", "http2", "grpc", "tls", "opaque"];

export const outboundPolicies: fc.Arbitrary<OutboundPolicy> = fc
  .constantFrom(...PROTOCOLS)
  .chain((protocol) =>
    fc.record({
      source: sources,
      protocol: fc.constant(protocol),
      http:
        protocol === "opaque" || protocol === "tls"
          ? fc.constant([])
          : protocol === "grpc"
            ? fc.oneof(few(httpRoutes(rpcMatches, rpcFilters)), few(httpRoutes(httpMatches, httpFilters)))
            : few(httpRoutes(httpMatches, httpFilters)),
      tcp:
        protocol === "opaque" || protocol === "tls" || protocol === "detect"
          ? few(tcpRoutes)
          : fc.constant([]),
      backend: fc.option(backends),
    }),
  )
  .map((policy) => ({ ...policy, backend: policy.backend ?? defaultBackendOf(policy) }))
  // With ordinary prototypes, as readers make them.
  .map((policy) => structuredClone(policy));

const rates: fc.Arbitrary<RateLimit> = fc.record({
  source: sources,
  matches: few(httpMatches),
  key: fc.oneof(
    fc.record({ kind: fc.constantFrom("total", "identity") }),
    fc.record({ kind: fc.constant("header"), name: lower }),
    fc.record({ kind: fc.constant("clients"), identities: few(text) }),
  ),
  requests: uint32,
  windowMs: someMs,
  burst: uint32,
  scope: fc.constantFrom("local", "global"),
});

export const inboundLimits: fc.Arbitrary<InboundLimits> = fc
  .record({
    exempt: few(httpMatches),
    rates: few(rates),
    concurrency: fc.option(
      fc.record({ source: sources, limitMin: uint32, limitMax: uint32, priorityHeader: lower }),
    ),
  })
  .map((limits) => structuredClone(limits));
