import assert from "node:assert/strict";
import { test } from "node:test";
import type { SocketAddress } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import { fieldValue } from "#/base/fields.ts";
import type {
  Backend,
  Cors,
  HeaderChange,
  HttpFilter,
  HttpMatch,
  HttpRoute,
  PathChange,
  RetryPolicy,
} from "#/model/route.ts";
import { fault } from "../http/fault.ts";
import { fieldProblem } from "./header-change.ts";
import { policyTo } from "#/model/policy.ts";
import type { TriedEndpoints } from "../http/dispatch.ts";
import type { RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { FaultInjector } from "../fault/injector.ts";
import { ManualClock, RecordingReply, ScriptedService } from "../http/testing.ts";
import { Registry } from "../metrics/registry.ts";
import { RouteMetrics } from "../metrics/route-series.ts";
import { RetryCounters } from "../metrics/retry-series.ts";
import { RetryBudgetWindow } from "../retry/retry-budget.ts";
import { RetryLayer } from "../retry/retry-layer.ts";
import { RouteLayer, type Backends, type HeldBackend, type RoutedTarget } from "./layer.ts";
import { Mirrors } from "./mirror.ts";
import { RouteTable } from "./table.ts";
import { backendOf, balancerTo, callOf, headOf, matchOf, routeOf, ruleTo, sourceNamed } from "./testing.ts";

/** Backends by the name of their service. Each answers 200 with its name at once, unless it was made otherwise. */
class Services implements Backends {
  readonly services = new Map<string, ScriptedService>();
  readonly unready = new Set<string>();
  /** Named by no policy any more. */
  readonly unnamed = new Set<string>();
  releases = 0;
  /** Holds of requests, by service. */
  readonly holds: Record<string, number> = {};

  service(name: string): ScriptedService {
    let service = this.services.get(name);
    if (service === undefined) {
      service = new ScriptedService((call) => call.answer(200, ["Server", name], name));
      this.services.set(name, service);
    }
    return service;
  }
  hold(backend: Backend): HeldBackend | null {
    if (backend.kind !== "balancer") return null;
    const name = backend.path.split(".")[0]!;
    if (this.unnamed.has(name)) return null;
    const budget = new RetryBudgetWindow({
      percent: 100,
      intervalMs: 10_000,
      floorCount: 10,
      floorIntervalMs: 1_000,
    });
    const { holds, unready } = this;
    return {
      dispatch: this.service(name),
      budget,
      get isReady(): boolean {
        return !unready.has(name);
      },
      acquire: () => void (holds[name] = (holds[name] ?? 0) + 1),
      release: () => void (holds[name] = holds[name]! - 1),
    };
  }
  releaseAll(): void {
    this.releases++;
  }
}

interface Rig {
  readonly target: { -readonly [K in keyof RoutedTarget]: RoutedTarget[K] };
  readonly backends: Services;
  readonly clock: ManualClock;
  readonly mirrors: Mirrors;
  readonly layer: RouteLayer;
  readonly registry: Registry;
  readonly ask: (head: RequestHead) => RecordingReply;
}

function rig(routes: readonly HttpRoute[]): Rig {
  const target = {
    table: new RouteTable(routes),
    authority: "web.shop.svc.cluster.local:80",
    address: { ip: "10.0.0.1", port: 8080 } as SocketAddress,
    policy: policyTo(balancerTo("web"), sourceNamed("web", "Service"), "http1"),
  };
  const backends = new Services();
  const mirrors = new Mirrors(() => {}, { copiesMax: 4, behindBytesMax: 1_000 });
  const clock = new ManualClock();
  const random = new SeededRandom(1);
  const registry = new Registry();
  const layer = new RouteLayer({
    target,
    backends,
    clock,
    random,
    mirrors,
    retries: new RetryLayer({ clock, random }),
    metrics: new RouteMetrics(registry),
    retrySeries: (route) => new RetryCounters(registry, target.policy.source, route),
    faults: new FaultInjector({ clock, random, injected: () => undefined }),
  });
  const ask = (head: RequestHead): RecordingReply => {
    const reply = new RecordingReply();
    layer.call(head, true, reply);
    return reply;
  };
  return { target, backends, clock, mirrors, layer, registry, ask };
}

const INVALID: Backend = {
  kind: "forbidden",
  source: sourceNamed("gone", "Service"),
  reason: "Service shop/gone does not exist",
};

/** Answers of `count` equal requests: how many by which backend, or with which fault. */
function tally(count: number, ask: () => RecordingReply): Record<string, number> {
  const counts: Record<string, number> = {};
  for (let i = 0; i < count; i++) {
    const reply = ask();
    const key = reply.fault?.code ?? reply.body_;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

function assertShare(counts: Record<string, number>, name: string, share: number, count: number): void {
  const off = Math.abs((counts[name] ?? 0) / count - share);
  // Four standard deviations of a share of so many draws.
  assert(off < 4 * Math.sqrt((share * (1 - share)) / count), `${name}: ${JSON.stringify(counts)}`);
}

test("each request goes where its rule leads, on one connection", () => {
  const { ask } = rig([routeOf("split", [ruleTo("v1", [matchOf("/v1")]), ruleTo("v2", [matchOf("/v2")])])]);
  assert.equal(ask(headOf("/v1")).body_, "v1");
  assert.equal(ask(headOf("/v2")).body_, "v2");
  assert.equal(ask(headOf("/v1")).body_, "v1");
});

test("a request that a fault delays goes where its rule led, though the policy is another one by then", () => {
  const delay: HttpFilter = {
    kind: "fault",
    source: sourceNamed("slow", "FaultPolicy"),
    ratio: { numerator: 1, denominator: 1 },
    headers: [],
    action: { kind: "delay", delayMs: 100, jitterMs: 0 },
  };
  for (const rule of [ruleTo("v1", [], [delay]), ruleTo([backendOf(balancerTo("v1"), 1, [delay])])]) {
    const { ask, backends, clock, target } = rig([routeOf("web", [rule])]);
    const reply = ask(headOf("/"));
    target.table = new RouteTable([routeOf("web", [ruleTo("v2")])]);
    backends.unnamed.add("v1");
    clock.advance(100);
    assert.equal(reply.body_, "v1");
    assert.equal(ask(headOf("/")).body_, "v2");
  }
});

test("what no rule takes is refused with 404 and the reason, to gRPC callers with UNIMPLEMENTED", () => {
  const { ask } = rig([routeOf("split", [ruleTo("v1", [matchOf("/v1")])])]);
  for (const head of [headOf("/v3"), callOf("a.B/C")]) {
    const { fault } = ask(head);
    assert.equal(fault?.code, "NO_ROUTE");
    assert.equal(
      fault.message,
      `web.shop.svc.cluster.local:80: its route does not match ${head.method} ${head.path} for host "web.shop"`,
    );
    assert.equal(fault.rule, "Service/shop/web");
  }
});

test("weights share requests out, and a weight of 0 gets none (mesh/httproute-weight)", () => {
  const { ask } = rig([
    routeOf("weight", [
      ruleTo([
        backendOf(balancerTo("v1"), 70),
        backendOf(balancerTo("v2"), 30),
        backendOf(balancerTo("v3"), 0),
      ]),
    ]),
  ]);
  const counts = tally(10_000, () => ask(headOf("/")));
  assertShare(counts, "v1", 0.7, 10_000);
  assertShare(counts, "v2", 0.3, 10_000);
  assert.equal(counts["v3"], undefined);
});

test("the share of an invalid backend is answered with 500, and nobody else's is (HTTPRouteRule.backendRefs)", () => {
  const { ask } = rig([routeOf("weight", [ruleTo([backendOf(balancerTo("v1"), 3), backendOf(INVALID, 1)])])]);
  const counts = tally(10_000, () => ask(headOf("/")));
  assertShare(counts, "NO_BACKEND", 0.25, 10_000);
  assertShare(counts, "v1", 0.75, 10_000);
  const refused = rig([routeOf("web", [ruleTo([backendOf(INVALID)])])]).ask(headOf("/"));
  assert.equal(refused.fault?.message, "web.shop.svc.cluster.local:80: Service shop/gone does not exist");
  assert.equal(refused.fault.rule, "HTTPRoute/shop/web");
});

test("a rule without backends, or with weights of 0 alone, is answered with 500 and says so", () => {
  for (const [backends, why] of [
    [[], "has no backend"],
    [[backendOf(balancerTo("v1"), 0)], "has only backends of weight 0"],
    [[backendOf(balancerTo("v1"), 0), backendOf(balancerTo("v2"), 0)], "has only backends of weight 0"],
  ] as const) {
    const { fault } = rig([routeOf("web", [ruleTo(backends)])]).ask(headOf("/"));
    assert.equal(fault?.code, "NO_BACKEND");
    assert(fault.message.endsWith(`HTTPRoute/shop/web, rule 1 ${why}`), fault.message);
  }
});

test("a drawn backend without ready endpoints gives its share to the others, by their weights", () => {
  const { ask, backends } = rig([
    routeOf("weight", [
      ruleTo([
        backendOf(balancerTo("v1"), 60),
        backendOf(balancerTo("v2"), 30),
        backendOf(balancerTo("v3"), 10),
      ]),
    ]),
  ]);
  backends.unready.add("v1");
  const counts = tally(10_000, () => ask(headOf("/")));
  assertShare(counts, "v2", 0.75, 10_000);
  assertShare(counts, "v3", 0.25, 10_000);
  for (const name of ["v2", "v3"]) backends.unready.add(name);
  // Where none is ready the drawn one is waited for.
  assertShare(
    tally(10_000, () => ask(headOf("/"))),
    "v1",
    0.6,
    10_000,
  );
});

test("of backends to be taken in order, the first that is ready is", () => {
  const rule = {
    ...ruleTo(["v1", "v2", "v3"].map((name) => backendOf(balancerTo(name)))),
    choice: "first" as const,
  };
  const { ask, backends } = rig([routeOf("web", [rule])]);
  assert.equal(ask(headOf("/")).body_, "v1");
  backends.unready.add("v1");
  assert.equal(ask(headOf("/")).body_, "v2");
  for (const name of ["v2", "v3"]) backends.unready.add(name);
  assert.equal(ask(headOf("/")).body_, "v1");
});

test("a change of routes holds for the next request of an open connection, and the one under way is left alone", () => {
  const { ask, backends, layer, target } = rig([routeOf("web", [ruleTo("v1")])]);
  backends.services.set("v1", new ScriptedService());
  const before = new RecordingReply();
  layer.call(headOf("/"), true, before);
  target.table = new RouteTable([routeOf("web", [ruleTo("v2")])]);
  assert.equal(ask(headOf("/")).body_, "v2");
  backends.service("v1").calls[0]!.answer(200, [], "late");
  assert.equal(before.body_, "late");
  assert.equal(before.fault, null);
  target.table = new RouteTable([]);
  assert.equal(ask(headOf("/")).fault?.code, "NO_ROUTE");
});

test("what a closed connection held is given back", () => {
  const { ask, backends, layer } = rig([routeOf("web", [ruleTo("v1", [matchOf("/a*")]), ruleTo("v2")])]);
  ask(headOf("/"));
  const { releases } = backends;
  layer.close();
  assert.equal(backends.releases, releases + 1);
});

// --- filters ---

/** One rule with filters of its own and of its one backend. */
function filtered(
  filters: readonly HttpFilter[],
  ofBackend: readonly HttpFilter[] = [],
  match: HttpMatch = matchOf("/*"),
): Rig {
  return rig([routeOf("web", [ruleTo([backendOf(balancerTo("v1"), 1, ofBackend)], [match], filters)])]);
}

/** What the application of `v1` was sent last. */
function seen({ backends }: Rig): RequestHead {
  return backends.service("v1").calls.at(-1)!.head;
}

const change = (more: Partial<HeaderChange>): HeaderChange => ({ add: [], set: [], remove: [], ...more });
const requestHeaders = (more: Partial<HeaderChange>): HttpFilter => ({
  kind: "request-headers",
  change: change(more),
});
const responseHeaders = (more: Partial<HeaderChange>): HttpFilter => ({
  kind: "response-headers",
  change: change(more),
});

/** mesh/httproute-request-header-modifier, and the same at a backend. */
for (const place of ["rule", "backend"] as const) {
  const at = (filter: HttpFilter): Rig => (place === "rule" ? filtered([filter]) : filtered([], [filter]));
  test(`request headers are set, added and removed, whatever their case, at the ${place}`, () => {
    const set = at(requestHeaders({ set: [["X-Header-Set", "set"]] }));
    set.ask(headOf("/"));
    assert.deepEqual(seen(set).fields, ["Host", "web.shop", "X-Header-Set", "set"]);
    set.ask(headOf("/", { fields: ["x-HEADER-set", "a", "Some", "other", "X-Header-Set", "b"] }));
    assert.deepEqual(
      seen(set).fields,
      ["x-HEADER-set", "set", "Some", "other"],
      "in place, as it was spelled",
    );
    const add = at(requestHeaders({ add: [["X-Header-Add", "more"]] }));
    add.ask(headOf("/", { fields: ["X-Header-Add", "some"] }));
    assert.deepEqual(seen(add).fields, ["X-Header-Add", "some", "X-Header-Add", "more"]);
    const remove = at(requestHeaders({ remove: ["x-header-REMOVE"] }));
    remove.ask(headOf("/", { fields: ["X-Header-Remove", "a", "Kept", "b"] }));
    assert.deepEqual(seen(remove).fields, ["Kept", "b"]);
    set.ask(headOf("/", { version: "2", fields: ["a", "b"] }));
    assert.deepEqual(seen(set).fields, ["a", "b", "x-header-set", "set"], "HTTP/2 has lower case alone");
  });
}

test("no filter changes what frames a message, belongs to a connection, names the host or is the mesh's", () => {
  const fields = [
    "Host",
    "web.shop",
    "Content-Length",
    "3",
    "Transfer-Encoding",
    "chunked",
    "TE",
    "trailers",
  ];
  const names = [
    "host",
    "content-length",
    "transfer-encoding",
    "te",
    "connection",
    "upgrade",
    "l5d-client-id",
  ];
  const set = names.map((name) => [name, "forged"] as const);
  const all = filtered([
    requestHeaders({ set, add: set, remove: names }),
    requestHeaders({
      add: [
        ["bad name", "x"],
        ["good", "line\r\nbreak"],
        ["fine", "größe"],
      ],
    }),
  ]);
  all.ask(headOf("/", { fields }));
  assert.deepEqual(seen(all).fields, [...fields, "fine", "gr\u00c3\u00b6\u00c3\u009fe"]);
  for (const name of names) assert.notEqual(fieldProblem(name), null, name);
  for (const name of ["X-Fine", "cookie"]) assert.equal(fieldProblem(name), null, name);
});

test("equal requests of a connection stay one head when a filter changes them", () => {
  const all = filtered([requestHeaders({ add: [["x", "y"]] })]);
  const head = headOf("/");
  all.ask(head);
  const first = seen(all);
  all.ask(head);
  assert.equal(seen(all), first);
  all.ask(headOf("/other"));
  assert.equal(seen(all).path, "/other");
});

test("response headers are changed on their way, and what the spelling was stays", () => {
  const all = filtered(
    [responseHeaders({ set: [["server", "pillion"]] })],
    [responseHeaders({ add: [["X-Backend", "v1"]] })],
  );
  const reply = all.ask(headOf("/"));
  assert.deepEqual(reply.fields, ["Server", "pillion", "X-Backend", "v1"]);
  assert.equal(reply.body_, "v1");
});

const redirect = (more: Partial<Extract<HttpFilter, { kind: "redirect" }>>): HttpFilter => ({
  kind: "redirect",
  scheme: null,
  host: null,
  path: null,
  port: null,
  status: 302,
  ...more,
});

/** mesh/httproute-redirect-*; the client dialled port 8080. Each: filter, match, path asked for, status, Location. */
const REDIRECTS: readonly (readonly [HttpFilter, string, string, number, string])[] = [
  [redirect({ host: "example.org" }), "/*", "/h", 302, "http://example.org:8080/h"],
  [redirect({ host: "example.org", status: 301 }), "/*", "/h?q=1", 301, "http://example.org:8080/h?q=1"],
  [redirect({ scheme: "https", host: "example.org" }), "/*", "/", 302, "https://example.org/"],
  [redirect({ scheme: "http", host: "example.org" }), "/*", "/", 302, "http://example.org/"],
  [redirect({ scheme: "https", port: 443 }), "/*", "/", 302, "https://web.shop/"],
  [redirect({ scheme: "https", port: 8443 }), "/*", "/", 302, "https://web.shop:8443/"],
  [redirect({ port: 80 }), "/*", "/", 302, "http://web.shop/"],
  [redirect({ port: 8083, status: 301 }), "/*", "/", 301, "http://web.shop:8083/"],
  [redirect({ port: 443 }), "/*", "/", 302, "http://web.shop:443/"],
  [redirect({ status: 303 }), "/*", "/", 303, "http://web.shop:8080/"],
  [redirect({ status: 307 }), "/*", "/", 307, "http://web.shop:8080/"],
  [redirect({ status: 308 }), "/*", "/", 308, "http://web.shop:8080/"],
  [
    redirect({ path: { kind: "prefix", value: "/replacement-prefix" } }),
    "/original-prefix*",
    "/original-prefix/lemon?a=b",
    302,
    "http://web.shop:8080/replacement-prefix/lemon?a=b",
  ],
  [
    redirect({ path: { kind: "full", value: "/full" }, host: "example.org", port: 80 }),
    "/full*",
    "/full/path/original",
    302,
    "http://example.org/full",
  ],
];

for (const [filter, match, path, status, location] of REDIRECTS) {
  test(`a redirect of ${path} with ${JSON.stringify(filter)} leads to ${location}`, () => {
    const all = filtered([filter], [], matchOf(match));
    const reply = all.ask(headOf(path));
    assert.equal(reply.status, status);
    assert.equal(reply.finished, true);
    assert.deepEqual(reply.fields, ["location", location, "content-length", "0"]);
    assert.equal(all.backends.services.size, 0);
  });
}

test("a body that follows a redirect is taken up to a bound, and then cut", () => {
  const { layer } = filtered([redirect({})]);
  const reply = new RecordingReply();
  const sink = layer.call(headOf("/", { method: "POST" }), false, reply);
  sink.data(new Uint8Array(1_000_000), 0, 1_000_000);
  assert.equal(reply.requestConsumedBytes, 1_000_000);
  assert.deepEqual(reply.events, ["head 302 last"]);
  sink.data(new Uint8Array(1_000_000), 0, 1_000_000);
  assert.equal(reply.fault?.code, "CANCELLED");
});

const rewrite = (path: PathChange | null, host: string | null = null): HttpFilter => ({
  kind: "rewrite",
  host,
  path,
});

/** mesh/httproute-rewrite-path and the table of HTTPPathModifier. Each: kind and value, match, path, what goes on. */
const REWRITES: readonly (readonly [PathChange["kind"], string, string, string, string])[] = [
  ["prefix", "/one", "/prefix/one*", "/prefix/one/two", "/one/two"],
  ["prefix", "/", "/strip-prefix*", "/strip-prefix/three", "/three"],
  ["prefix", "/", "/strip-prefix*", "/strip-prefix", "/"],
  ["prefix", "", "/strip-prefix*", "/strip-prefix?q", "/?q"],
  ["full", "/one", "/full/one*", "/full/one/two?q=/x", "/one?q=/x"],
  ["prefix", "/xyz", "/foo*", "/foo/bar", "/xyz/bar"],
  ["prefix", "/xyz/", "/foo*", "/foo/bar", "/xyz/bar"],
  ["prefix", "/xyz", "/foo/*", "/foo/bar", "/xyz/bar"],
  ["prefix", "/xyz/", "/foo/*", "/foo/bar", "/xyz/bar"],
  ["prefix", "/xyz", "/foo*", "/foo", "/xyz"],
  ["prefix", "/xyz/", "/foo*", "/foo/", "/xyz/"],
  ["prefix", "/xyz", "/foo*", "/foo//bar", "/xyz//bar"],
  ["prefix", "/xyz", "/*", "/bar", "/xyz/bar"],
  ["prefix", "/xyz", "/*", "/", "/xyz/"],
];

for (const [kind, value, match, path, expected] of REWRITES) {
  test(`a rewrite of ${path} (matched by ${match}) to ${kind} "${value}" goes on as ${expected}`, () => {
    const all = filtered([rewrite({ kind, value })], [], matchOf(match));
    all.ask(headOf(path));
    assert.equal(seen(all).path, expected);
  });
}

test("a rewrite of the host is in Host where it stood, and in the authority", () => {
  const all = filtered([rewrite(null, "one.example.org")]);
  all.ask(headOf("/", { fields: ["Accept", "*/*", "HOST", "web.shop"] }));
  assert.equal(seen(all).authority, "one.example.org");
  assert.deepEqual(seen(all).fields, ["Accept", "*/*", "HOST", "one.example.org"]);
  all.ask(headOf("/", { version: "2", fields: ["a", "b"] }));
  assert.equal(seen(all).authority, "one.example.org");
  assert.deepEqual(seen(all).fields, ["a", "b"]);
  const options = headOf("*", { method: "OPTIONS" });
  const full = filtered([rewrite({ kind: "full", value: "/one" })]);
  full.ask(options);
  assert.equal(seen(full).path, "*", "no path, so none to change");
});

test("a request that is to fail does so by its share, with the filter's status", () => {
  const fail = (numerator: number, grpcStatus: number): HttpFilter => ({
    kind: "fail",
    status: 418,
    grpcStatus,
    message: "not today",
    ratio: { numerator, denominator: 4 },
  });
  const some = filtered([fail(1, 9)]);
  const counts = tally(4_000, () => some.ask(headOf("/")));
  assertShare(counts, "FAULT_INJECTED", 0.25, 4_000);
  const { fault } = filtered([], [fail(4, 9)]).ask(headOf("/"));
  assert.deepEqual(
    [fault?.code, fault?.status, fault?.grpcStatus, fault?.message, fault?.rule],
    ["FAULT_INJECTED", 418, 9, "not today", "HTTPRoute/shop/web"],
  );
  assert.equal(filtered([fail(0, -1)]).ask(headOf("/")).body_, "v1");
});

const cors = (more: Partial<Cors> = {}): HttpFilter => ({
  kind: "cors",
  cors: {
    allowOrigins: ["https://www.foo.com", "https://*.bar.com"],
    allowMethods: ["GET", "OPTIONS"],
    allowHeaders: ["x-header-1", "x-header-2"],
    exposeHeaders: ["x-header-3"],
    allowCredentials: false,
    maxAgeSeconds: 3600,
    ...more,
  },
});
const preflight = (origin: string): RequestHead =>
  headOf("/", {
    method: "OPTIONS",
    fields: [
      "Origin",
      origin,
      "Access-Control-Request-Method",
      "PUT",
      "Access-Control-Request-Headers",
      "x-header-1, x-header-2",
    ],
  });

test("a preflight is answered in the application's place (Fetch §4.8)", () => {
  const all = filtered([cors()]);
  const reply = all.ask(preflight("https://www.foo.com"));
  assert.equal(reply.status, 204);
  assert.deepEqual(reply.fields, [
    ...["vary", "Origin", "access-control-allow-origin", "https://www.foo.com"],
    ...["vary", "Access-Control-Request-Method, Access-Control-Request-Headers"],
    ...["access-control-allow-methods", "GET, OPTIONS"],
    ...["access-control-allow-headers", "x-header-1, x-header-2"],
    ...["access-control-max-age", "3600"],
  ]);
  assert.equal(all.backends.services.size, 0);
  for (const origin of ["https://a.bar.com", "https://a.b.bar.com"])
    assert.equal(fieldValue(all.ask(preflight(origin)).fields, "access-control-allow-origin"), origin);
  for (const origin of ["https://bar.com", "https://www.foo.com.evil", "http://www.foo.com", "null"]) {
    const refused = all.ask(preflight(origin));
    assert.equal(refused.status, 204);
    assert.deepEqual(
      refused.fields.filter((_, at) => at % 2 === 0),
      ["vary", "vary"],
      origin,
    );
  }
  all.ask(headOf("/", { method: "OPTIONS" }));
  assert.equal(seen(all).method, "OPTIONS", "no preflight");
});

test("with credentials no wildcard is said, without them it is (Fetch §4.9)", () => {
  const wild = { allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"] } as const;
  const open = filtered([cors(wild)]).ask(preflight("https://x"));
  assert.equal(fieldValue(open.fields, "access-control-allow-origin"), "*");
  assert.equal(fieldValue(open.fields, "access-control-allow-methods"), "*");
  const known = filtered([cors({ ...wild, allowCredentials: true })]).ask(preflight("https://x"));
  assert.equal(fieldValue(known.fields, "access-control-allow-origin"), "https://x");
  assert.equal(fieldValue(known.fields, "access-control-allow-credentials"), "true");
  assert.equal(fieldValue(known.fields, "access-control-allow-methods"), "PUT");
  assert.equal(fieldValue(known.fields, "access-control-allow-headers"), "x-header-1, x-header-2");
});

test("the application's answers get the policy's CORS fields in place of its own", () => {
  const all = filtered([cors()]);
  const own = ["Access-Control-Allow-Origin", "*", "Content-Type", "text/plain", "Vary", "Accept"];
  all.backends.services.set("v1", new ScriptedService((call) => call.answer(200, own, "x")));
  const { fields } = all.ask(headOf("/", { fields: ["Origin", "https://www.foo.com"] }));
  assert.deepEqual(fields, [
    ...["Content-Type", "text/plain", "Vary", "Accept", "vary", "Origin"],
    ...["access-control-allow-origin", "https://www.foo.com", "access-control-expose-headers", "x-header-3"],
  ]);
  const foreign = all.ask(headOf("/", { fields: ["Origin", "https://evil"] }));
  assert.equal(fieldValue(foreign.fields, "access-control-allow-origin"), null);
});

// --- mirrors ---

const mirror = (name: string, numerator: number = 1, denominator: number = 1): HttpFilter => ({
  kind: "mirror",
  backend: balancerTo(name),
  ratio: { numerator, denominator },
});

function post({ layer }: Rig): { sink: RequestSink; reply: RecordingReply } {
  const reply = new RecordingReply();
  return { sink: layer.call(headOf("/", { method: "POST" }), false, reply), reply };
}

const bytes = (text: string): Uint8Array => Buffer.from(text);
const send = (sink: RequestSink, text: string): void => sink.data(bytes(text), 0, text.length);

test("every mirror gets the request as it goes on, with its body, and the client the answer of the one backend", () => {
  const all = filtered([mirror("m1"), mirror("m2"), requestHeaders({ set: [["X", "1"]] })]);
  all.backends.services.set("m1", new ScriptedService((call) => call.answer(500, [], "broken")));
  const { sink, reply } = post(all);
  send(sink, "hello ");
  send(sink, "world");
  sink.end(null);
  assert.equal(reply.body_, "v1");
  for (const name of ["v1", "m1", "m2"]) {
    const [call] = all.backends.service(name).calls;
    assert.equal(call!.body, "hello world", name);
    assert.equal(call!.ended, true);
    assert.deepEqual(call!.head.fields, ["Host", "web.shop", "X", "1"]);
  }
  assert.equal(reply.requestConsumedBytes, 11, "credit is the backend's alone");
  assert.equal(all.mirrors.count, 0);
});

test("a mirror takes its share of requests", () => {
  const all = filtered([mirror("m1", 1, 4), mirror("m2", 0, 0), mirror("m3", 1, 1)]);
  for (let i = 0; i < 4_000; i++) all.ask(headOf("/"));
  assertShare({ m1: all.backends.service("m1").calls.length }, "m1", 0.25, 4_000);
  assert.equal(all.backends.services.has("m2"), false);
  assert.equal(all.backends.service("m3").calls.length, 4_000);
});

test("nothing that a mirror does is felt by the request", () => {
  const all = filtered([mirror("m1")]);
  // It says no, before any byte and after some.
  all.backends.services.set("m1", new ScriptedService((call) => call.reply.fail(fault("RESET", "gone"))));
  assert.equal(all.ask(headOf("/")).body_, "v1");
  const slow = new ScriptedService((call) => void (call.holdCredit = true));
  all.backends.services.set("m1", slow);
  all.target.table = new RouteTable(all.target.table.routes);
  const { sink, reply } = post(all);
  send(sink, "x".repeat(1_000));
  assert.equal(all.mirrors.dropped, 0);
  send(sink, "y");
  assert.equal(slow.calls[0]!.aborted?.code, "CANCELLED", "too far behind");
  assert.equal(all.mirrors.dropped, 1);
  send(sink, "z");
  sink.end(null);
  assert.equal(reply.fault, null);
  assert.equal(all.backends.service("v1").calls.at(-1)!.bytes, 1_002);
  assert.equal(all.mirrors.count, 0);
});

test("copies go no further than the request: they are given up when it is, and the oldest at the bound", () => {
  const all = filtered([mirror("m1")]);
  const mute = new ScriptedService();
  all.backends.services.set("m1", mute);
  const aborted = post(all);
  aborted.sink.abort(fault("CANCELLED", "gone"));
  assert.equal(mute.calls[0]!.aborted?.code, "CANCELLED");
  all.backends.services.set("v1", new ScriptedService());
  all.target.table = new RouteTable(all.target.table.routes);
  const failed = post(all);
  all.backends.service("v1").calls[0]!.reply.fail(fault("RESET", "gone"));
  assert.equal(failed.reply.fault?.code, "RESET");
  assert.equal(mute.calls[1]!.aborted?.code, "RESET");
  assert.equal(all.mirrors.count, 0);
  for (let i = 0; i < 6; i++) all.ask(headOf("/"));
  assert.equal(all.mirrors.count, 4);
  assert.deepEqual(
    mute.calls.slice(2).map((call) => call.aborted !== null),
    [true, true, false, false, false, false],
  );
});

test("what takes a connection over is not copied", () => {
  const all = filtered([mirror("m1")]);
  all.ask(headOf("/", { upgrade: "websocket" }));
  all.ask(headOf("", { method: "CONNECT" }));
  assert.equal(all.backends.services.has("m1"), false);
});

// --- retries and counts ---

const RETRY: RetryPolicy = {
  retriesMax: 2,
  statusRanges: [[500, 599]],
  grpcCodes: [],
  onConnectionError: false,
  attemptTimeoutMs: null,
  bodyBytesMax: 1_000,
  backoff: { minMs: 10, maxMs: 10, jitterRatio: 0 },
  respectsRetryAfter: false,
};

test("each attempt draws a backend anew, with the filters of that backend, and the rule's act once", () => {
  const rule = ruleTo(
    [
      backendOf(balancerTo("bad"), 1, [requestHeaders({ add: [["X-To", "bad"]] })]),
      backendOf(balancerTo("v1"), 1, [requestHeaders({ add: [["X-To", "v1"]] })]),
    ],
    [matchOf("/*")],
    [requestHeaders({ add: [["X-Rule", "1"]] })],
  );
  const all = rig([routeOf("web", [{ ...rule, retry: { ...RETRY, retriesMax: 20 } }])]);
  all.backends.services.set("bad", new ScriptedService((call) => call.answer(503, [], "")));
  for (let i = 0; i < 50; i++) {
    const reply = all.ask(headOf("/"));
    all.clock.advance(500);
    assert.equal(reply.status, 200);
  }
  for (const name of ["bad", "v1"]) {
    const { calls } = all.backends.service(name);
    assert(calls.length >= 10, name);
    for (const { head } of calls)
      assert.deepEqual(head.fields, ["Host", "web.shop", "X-Rule", "1", "X-To", name]);
  }
});

test("a rule's timeouts are kept, its backend's before its own", () => {
  const rule = ruleTo([{ ...backendOf(balancerTo("v1")), attemptTimeoutMs: 100 }]);
  const timeouts = { ...rule.timeouts, attemptMs: 500 };
  const { ask, backends, clock } = rig([routeOf("web", [{ ...rule, timeouts }])]);
  backends.services.set("v1", new ScriptedService());
  const reply = ask(headOf("/"));
  clock.advance(110);
  assert.equal(reply.fault?.code, "TIMEOUT");
  assert.equal(reply.fault.rule, "HTTPRoute/shop/web, rule 1: timeouts.backendRequest");
});

test("each attempt draws its backend anew, and a mirror gets one copy", () => {
  const failing = new ScriptedService((call) => call.answer(503, [], ""));
  const names = ["v1", "v2", "v3"];
  const { ask, backends, clock } = rig([
    routeOf("web", [
      {
        ...ruleTo(names.map((name) => backendOf(balancerTo(name), 1, [mirror("copy")]))),
        retry: { ...RETRY, retriesMax: 3 },
      },
    ]),
  ]);
  for (const name of names) backends.services.set(name, failing);
  const drawn = new Set<string>();
  const hold = backends.hold.bind(backends);
  backends.hold = (backend) => {
    drawn.add(backend.kind === "balancer" ? backend.path.split(".")[0]! : backend.kind);
    return hold(backend);
  };
  for (let asked = 1; asked <= 5; asked++) {
    const reply = ask(headOf("/"));
    clock.advance(1_000); // the floor of the budget: ten a second
    assert.equal(reply.status, 503);
    assert.equal(failing.calls.length, asked * 4, "each attempt at a backend");
    // The service that is mirrored to forgets copies that it has answered.
    assert.equal(backends.service("copy").calls.length, asked);
  }
  assert.deepEqual([...drawn].toSorted(), ["copy", ...names]);
});

/** A service of one endpoint. */
class OneEndpoint extends ScriptedService {
  readonly #had = new WeakSet<TriedEndpoints>();
  override call(
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
    tried: TriedEndpoints | null = null,
  ): RequestSink {
    if (tried !== null) this.#had.add(tried);
    return super.call(head, last, reply);
  }
  hasUntried(tried: TriedEndpoints): boolean {
    return !this.#had.has(tried);
  }
}

test("an attempt goes to a backend that has an endpoint left for it, by their weights where several have", () => {
  const names = ["v1", "v2", "v3"];
  const weights = [8, 1, 1];
  const { ask, backends, clock } = rig([
    routeOf("web", [
      {
        ...ruleTo(names.map((name, i) => backendOf(balancerTo(name), weights[i]!))),
        retry: { ...RETRY, retriesMax: 3 },
      },
    ]),
  ]);
  const order: string[] = [];
  for (const name of names)
    backends.services.set(
      name,
      new OneEndpoint((call) => {
        order.push(name);
        call.answer(503, [], "");
      }),
    );
  for (let i = 0; i < 20; i++) {
    order.length = 0;
    const reply = ask(headOf("/"));
    clock.advance(1_000);
    assert.equal(reply.status, 503);
    assert.equal(order.length, 4);
    assert.deepEqual(order.slice(0, 3).toSorted(), names, "each had it before any has it again");
  }
});

test("a request that is sent again after a change of policy goes on by the rule that it began with", () => {
  const backends = ["v1", "v2"].map((name) => backendOf(balancerTo(name)));
  const all = rig([routeOf("web", [{ ...ruleTo(backends), choice: "first", retry: RETRY }])]);
  for (const name of ["v1", "v2"]) all.backends.services.set(name, new ScriptedService());
  const reply = all.ask(headOf("/"));
  // Nothing of the old policy is given any more.
  const hold = all.backends.hold.bind(all.backends);
  all.backends.hold = (backend) =>
    backend.kind === "balancer" && backend.path.startsWith("v3.") ? hold(backend) : null;
  all.target.table = new RouteTable([routeOf("web", [ruleTo("v3")])]);
  assert.deepEqual(all.backends.holds, {});
  assert.equal(all.ask(headOf("/")).body_, "v3");
  assert.deepEqual(all.backends.holds, { v1: 1, v2: 1 }, "the connection's own hold is gone");
  all.backends.unready.add("v1");
  all.backends.service("v1").calls[0]!.answer(503, [], "");
  all.clock.advance(1_000);
  all.backends.service("v2").calls[0]!.answer(200, [], "");
  assert.equal(reply.status, 200);
  assert.deepEqual(all.backends.holds, { v1: 0, v2: 0 });
  all.layer.close();
  assert.deepEqual(all.backends.holds, { v1: 0, v2: 0 }, "nothing is under way");
});

test("a request that is given up after a change of policy gives its backends back, once", () => {
  const all = rig([routeOf("web", [{ ...ruleTo("v1"), retry: RETRY }])]);
  all.backends.services.set("v1", new ScriptedService());
  const sinks = [0, 1].map(() => all.layer.call(headOf("/"), false, new RecordingReply()));
  all.layer.close();
  const held: number[] = [];
  for (const sink of [...sinks, ...sinks]) {
    held.push(all.backends.holds["v1"]!);
    sink.abort(fault("CANCELLED", "gone"));
  }
  assert.deepEqual([...held, all.backends.holds["v1"]], [1, 1, 0, 0, 0]);
});

test("a rule without a backend is not asked for one again", () => {
  const { ask } = rig([routeOf("web", [{ ...ruleTo([]), retry: { ...RETRY, retriesMax: 3 } }])]);
  assert.equal(ask(headOf("/")).fault?.code, "NO_BACKEND");
});

test("timeouts of a rule are kept, also where the target has no routes", () => {
  const timeouts = { requestMs: 100, attemptMs: null, responseMs: null, idleMs: null };
  for (const kind of ["HTTPRoute", "default"]) {
    const all = rig([routeOf("web", [{ ...ruleTo("v1"), timeouts }], { kind })]);
    all.backends.services.set("v1", new ScriptedService());
    const reply = all.ask(headOf("/"));
    all.clock.advance(99);
    assert.deepEqual(reply.events, []);
    all.clock.advance(30);
    assert.equal(reply.fault?.code, "TIMEOUT");
  }
});

test("requests and answers are counted by route, rule and backend; those of a target without routes are not", () => {
  const all = rig([
    routeOf("web", [ruleTo("v1", [matchOf("/a*")]), { ...ruleTo("bad", [matchOf("/b*")]), name: "canary" }]),
    routeOf("calls", [ruleTo("v1")], { kind: "GRPCRoute" }),
  ]);
  all.backends.services.set("bad", new ScriptedService((call) => call.reply.fail(fault("RESET", "gone"))));
  for (const path of ["/a", "/a", "/b", "/none"]) all.ask(headOf(path));
  all.ask(callOf("a.B/C"));
  const lines = all.registry.render().split("\n");
  const route = (name: string, kind: string): string =>
    `parent_group="gateway.networking.k8s.io",parent_kind="Service",parent_namespace="shop",parent_name="web",` +
    `parent_port="",parent_section_name="",route_group="gateway.networking.k8s.io",route_kind="${kind}",` +
    `route_namespace="shop",route_name="${name}",route_port="",route_section_name=""`;
  const backend = (name: string): string =>
    `backend_group="gateway.networking.k8s.io",backend_kind="Service",backend_namespace="shop",` +
    `backend_name="${name}",backend_port="",backend_section_name=""`;
  for (const line of [
    `outbound_http_route_requests_total{${route("web", "HTTPRoute")},rule="1"} 2`,
    `outbound_http_route_request_statuses_total{${route("web", "HTTPRoute")},rule="1",http_status="200",error=""} 2`,
    `outbound_http_route_backend_requests_total{${route("web", "HTTPRoute")},rule="1",${backend("v1")}} 2`,
    `outbound_http_route_backend_response_statuses_total{${route("web", "HTTPRoute")},rule="canary",${backend("bad")},http_status="",error="RESET"} 1`,
    `outbound_grpc_route_requests_total{${route("calls", "GRPCRoute")},rule="1"} 1`,
  ])
    assert(lines.includes(line), `${line}\n${lines.join("\n")}`);
  const plain = rig([routeOf("http", [ruleTo("v1")], { kind: "default" })]);
  plain.ask(headOf("/"));
  assert.equal(plain.registry.render(), "");
});

test("a fault hits requests by what the client sent, whatever filters make of it, and what it ends is neither sent nor mirrored", () => {
  const fault: HttpFilter = {
    kind: "fault",
    source: sourceNamed("drill", "FaultPolicy"),
    ratio: { numerator: 1, denominator: 1 },
    headers: [{ name: "x-drill", value: { kind: "exact", value: "yes" } }],
    action: { kind: "abort", status: 503, grpcStatus: 14, message: "" },
  };
  const filters: HttpFilter[] = [
    { kind: "request-headers", change: { add: [], set: [], remove: ["x-drill"] } },
    { kind: "mirror", backend: balancerTo("copy"), ratio: { numerator: 1, denominator: 1 } },
    fault,
  ];
  const { ask, backends } = rig([routeOf("web", [ruleTo("v1", [], filters)])]);
  const hit = ask(headOf("/", { fields: ["Host", "web.shop", "X-Drill", "yes"] }));
  assert.equal(hit.fault?.code, "FAULT_INJECTED");
  assert.equal(hit.fault.rule, "FaultPolicy/shop/drill");
  assert.equal(backends.services.size, 0);
  assert.equal(ask(headOf("/")).body_, "v1");
  assert.equal(backends.service("copy").calls.length, 1);
});

test("a fault of one backend hits what is sent there alone", () => {
  const fault: HttpFilter = {
    kind: "fault",
    source: sourceNamed("drill", "FaultPolicy"),
    ratio: { numerator: 1, denominator: 1 },
    headers: [],
    action: { kind: "reset" },
  };
  const backend = [backendOf(balancerTo("v1"), 1, [fault]), backendOf(balancerTo("v2"), 1)];
  const { ask } = rig([routeOf("web", [ruleTo(backend)])]);
  const counts = new Map<string, number>();
  for (let i = 0; i < 200; i++) {
    const reply = ask(headOf("/"));
    const what = reply.fault?.cuts === true ? "cut" : reply.body_;
    counts.set(what, (counts.get(what) ?? 0) + 1);
  }
  assert.deepEqual([...counts.keys()].toSorted(), ["cut", "v2"]);
  for (const count of counts.values()) assert.ok(count > 60, String(count));
});
