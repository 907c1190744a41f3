import assert from "node:assert/strict";
import { test } from "node:test";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { HttpRule } from "#/model/route.ts";
import { gatewayObject, parent, PolicyWorld, service } from "./testing.ts";

const BACK = "backendRefs: [{name: web, port: 80}]";

function rulesOf(rules: string, kind = "HTTPRoute", more = "", annotations = ""): readonly HttpRule[] {
  const world = new PolicyWorld(
    service("web", "shop", "{name: http, port: 80}", annotations) +
      gatewayObject(kind, "r", `{parentRefs: [${parent("web")}], rules: [${rules}]}`, "shop", more),
  );
  assert.deepEqual(world.problems, []);
  return world.ask("shop/web").http[0]!.rules;
}

test("matches of an HTTPRoute: path, headers (first of a name counts), query, method", () => {
  const [rule] = rulesOf(`{name: one, ${BACK}, matches: [
    {path: {type: Exact, value: /a}, method: POST},
    {path: {type: RegularExpression, value: "/b/[0-9]+"}, headers: [{name: X-A, value: "1"}, {name: x-a, value: "2"}]},
    {queryParams: [{name: Q, type: RegularExpression, value: "x+"}]}]}`);
  assert.equal(rule!.name, "one");
  assert.deepEqual(rule!.matches, [
    { path: { kind: "exact", value: "/a" }, headers: [], query: [], method: "POST" },
    {
      path: { kind: "regex", value: "/b/[0-9]+" },
      headers: [{ name: "x-a", value: { kind: "exact", value: "1" } }],
      query: [],
      method: null,
    },
    {
      path: { kind: "prefix", value: "/" },
      headers: [],
      query: [{ name: "Q", value: { kind: "regex", value: "x+" } }],
      method: null,
    },
  ]);
});

test("matches of a GRPCRoute: service and method, by regex too; none matches everything", () => {
  const rules = rulesOf(
    `{${BACK}, matches: [{method: {service: a.B, method: C}}, {method: {service: a.B}}, {method: {type: RegularExpression, method: "Get.*|List"}}, {headers: [{name: V, value: x}]}]}, {${BACK}}`,
    "GRPCRoute",
  );
  assert.deepEqual(
    rules[0]!.matches.map((match) => match.path),
    [
      { kind: "rpc", service: "a.B", method: "C" },
      { kind: "rpc", service: "a.B", method: "" },
      { kind: "regex", value: "/[^/]+/(?:Get.*|List)" },
      null,
    ],
  );
  assert.deepEqual(rules[1]!.matches, []);
});

test("every filter of the Gateway API that makes sense between services, at the rule and at a backend", () => {
  const change = "{set: [{name: X-A, value: a}], add: [{name: B, value: b}], remove: [c]}";
  const world = new PolicyWorld(
    service("web") +
      service("copy") +
      gatewayObject(
        "HTTPRoute",
        "r",
        `{parentRefs: [${parent("web")}], rules: [
          {filters: [
            {type: RequestHeaderModifier, requestHeaderModifier: ${change}},
            {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [c]}},
            {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}, fraction: {numerator: 1, denominator: 3}}},
            {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}, percent: 7}},
            {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}}},
            {type: URLRewrite, urlRewrite: {hostname: a.example, path: {type: ReplaceFullPath, replaceFullPath: /x}}},
            {type: CORS, cors: {allowOrigins: ["https://a.example"], allowCredentials: true}}],
           backendRefs: [{name: web, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [d]}}]}]},
          {matches: [{path: {value: /p}}], filters: [{type: RequestRedirect, requestRedirect:
            {scheme: https, port: 8443, path: {type: ReplacePrefixMatch, replacePrefixMatch: /q}, statusCode: 301}}]}]}`,
      ),
  );
  assert.deepEqual(world.problems, []);
  const [rule, redirect] = world.ask("shop/web").http[0]!.rules;
  const [request, response, first, second, third, rewrite, cors] = rule!.filters;
  const whole = { add: [["B", "b"]], set: [["X-A", "a"]], remove: ["c"] };
  assert.deepEqual(request, { kind: "request-headers", change: whole });
  assert.deepEqual(response, { kind: "response-headers", change: { add: [], set: [], remove: ["c"] } });
  assert.deepEqual(
    [first, second, third].map((each) => each?.kind === "mirror" && [each.backend.source.name, each.ratio]),
    [
      ["copy", { numerator: 1, denominator: 3 }],
      ["copy", { numerator: 7, denominator: 100 }],
      ["copy", { numerator: 1, denominator: 1 }],
    ],
  );
  assert.deepEqual(rewrite, { kind: "rewrite", host: "a.example", path: { kind: "full", value: "/x" } });
  assert.deepEqual(cors?.kind === "cors" && [cors.cors.allowOrigins, cors.cors.maxAgeSeconds], [
    ["https://a.example"],
    5,
  ]);
  assert.deepEqual(rule!.backends[0]!.filters, [
    { kind: "request-headers", change: { add: [], set: [], remove: ["d"] } },
  ]);
  assert.deepEqual(redirect!.filters, [
    {
      kind: "redirect",
      scheme: "https",
      host: null,
      path: { kind: "prefix", value: "/q" },
      port: 8443,
      status: 301,
    },
  ]);
  assert.deepEqual(redirect!.backends, []);
});

test("timeouts: an annotation of the route before its rule, that before the Service's; 0s is none (GEP-1742)", () => {
  const onService = 'timeout.linkerd.io/request: "9s", timeout.linkerd.io/idle: "8s"';
  const [a, b, c] = rulesOf(
    `{${BACK}}, {${BACK}, timeouts: {request: 2s, backendRequest: 500ms}}, {${BACK}, timeouts: {request: 0s}}`,
    "HTTPRoute",
    "",
    onService,
  );
  assert.deepEqual(a!.timeouts, { requestMs: 9000, responseMs: null, attemptMs: null, idleMs: 8000 });
  assert.deepEqual(b!.timeouts, { requestMs: 2000, responseMs: null, attemptMs: 500, idleMs: 8000 });
  assert.equal(c!.timeouts.requestMs, null);
  const [d] = rulesOf(
    `{${BACK}, timeouts: {request: 2s}}`,
    "HTTPRoute",
    ", annotations: {timeout.linkerd.io/request: 1m30s, timeout.linkerd.io/response: 7s}",
    onService,
  );
  assert.deepEqual(d!.timeouts, { requestMs: 90_000, responseMs: 7000, attemptMs: null, idleMs: 8000 });
});

test("retries: the rule's own (GEP-1731), or Linkerd's annotations on the route, or on the Service", () => {
  const onService = 'retry.linkerd.io/http: "5xx"';
  const onRoute =
    ', annotations: {retry.linkerd.io/http: "gateway-error,429", retry.linkerd.io/grpc: "unavailable", retry.linkerd.io/limit: "3", retry.linkerd.io/timeout: 300ms}';
  const [own, fromRoute] = rulesOf(
    `{${BACK}, retry: {codes: [500, 503], attempts: 4, backoff: 100ms}}, {${BACK}}`,
    "HTTPRoute",
    onRoute,
    onService,
  );
  assert.deepEqual(own!.retry, {
    retriesMax: 4,
    statusRanges: [
      [500, 500],
      [503, 503],
    ],
    grpcCodes: [],
    onConnectionError: true,
    attemptTimeoutMs: null,
    bodyBytesMax: 65_536,
    backoff: { minMs: 100, maxMs: 1000, jitterRatio: 1 },
    respectsRetryAfter: true,
  });
  assert.deepEqual(fromRoute!.retry, {
    retriesMax: 3,
    statusRanges: [
      [502, 504],
      [429, 429],
    ],
    grpcCodes: [14],
    onConnectionError: false,
    attemptTimeoutMs: 300,
    bodyBytesMax: 65_536,
    backoff: { minMs: 25, maxMs: 250, jitterRatio: 1 },
    respectsRetryAfter: true,
  });
  const [fromService] = rulesOf(`{${BACK}}`, "HTTPRoute", "", onService);
  assert.deepEqual([fromService!.retry?.statusRanges, fromService!.retry?.retriesMax], [[[500, 599]], 1]);
});

test("a Service's annotations count where no route is", () => {
  const world = new PolicyWorld(
    service(
      "web",
      "shop",
      "{port: 80}",
      'retry.linkerd.io/grpc: "internal", timeout.linkerd.io/request: 1s, config.pillion.dev/allow-request-headers: "true"',
    ),
  );
  const [rule] = world.ask("shop/web").http[0]!.rules;
  assert.deepEqual(
    [rule!.retry?.grpcCodes, rule!.timeouts.requestMs, rule!.allowsRequestHeaders, rule!.backends.length],
    [[13], 1000, true, 1],
  );
});

test("a rule's session persistence goes before a policy's (GEP-1619)", () => {
  const [rule, plain] = rulesOf(
    `{${BACK}, sessionPersistence: {sessionName: s, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}}, {${BACK}}`,
  );
  const trafficOf = (each: HttpRule | undefined): unknown => {
    const backend = each!.backends[0]!.backend;
    return backend.kind === "balancer" ? backend.traffic : undefined;
  };
  assert.deepEqual(trafficOf(rule), {
    ...BACKEND_TRAFFIC_DEFAULTS,
    persistence: { kind: "cookie", name: "s", absoluteTimeoutMs: 3_600_000, isPermanent: true, path: "/" },
  });
  assert.equal(trafficOf(plain), null);
});

test("sessions without a name get one that no other rule has (GEP-1619)", () => {
  const names = rulesOf(
    `{${BACK}, sessionPersistence: {}}, {${BACK}, sessionPersistence: {}}, {${BACK}, sessionPersistence: {type: Header}}`,
  ).map(({ backends }) => {
    const { backend } = backends[0]!;
    return backend.kind === "balancer" ? backend.traffic?.persistence?.name : undefined;
  });
  assert.match(names[0]!, /^pillion-[a-z0-9]{8}$/);
  assert.match(names[2]!, /^x-pillion-[a-z0-9]{8}$/);
  assert.equal(new Set(names).size, 3);
});

test("sessions that a policy asks for are each rule's own, unless it names them (GEP-1619)", () => {
  const namesWith = (spec: string): (string | undefined)[] => {
    const world = new PolicyWorld(
      service("web") +
        gatewayObject("HTTPRoute", "r", `{parentRefs: [${parent("web")}], rules: [{${BACK}}, {${BACK}}]}`) +
        gatewayObject(
          "XBackendTrafficPolicy",
          "p",
          `{targetRefs: [{group: "", kind: Service, name: web}], sessionPersistence: ${spec}}`,
        ).replace("networking.k8s.io/v1", "networking.x-k8s.io/v1alpha1"),
    );
    return world.ask("shop/web").http[0]!.rules.map(({ backends }) => {
      const { backend } = backends[0]!;
      return backend.kind === "balancer" ? backend.traffic?.persistence?.name : undefined;
    });
  };
  const [one, two] = namesWith("{type: Header}");
  assert.match(`${one} ${two}`, /^x-pillion-[a-z0-9]{8} x-pillion-[a-z0-9]{8}$/);
  assert.notEqual(one, two);
  assert.deepEqual(namesWith("{sessionName: s}"), ["s", "s"]);
});
