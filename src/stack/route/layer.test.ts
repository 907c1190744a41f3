import assert from "node:assert/strict";
import { test } from "node:test";
import type { SocketAddress } from "#/base/address.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Backend, HttpFilter, HttpRoute, RetryPolicy } from "#/model/route.ts";
import { policyTo } from "#/model/policy.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { HttpService, RequestHead } from "../http/exchange.ts";
import { ManualClock, RecordingReply, ScriptedService } from "../http/testing.ts";
import { RetryBudgetWindow } from "../retry/retry-budget.ts";
import { RetryLayer } from "../retry/retry-layer.ts";
import type { RetrySeries } from "../retry/retry-rule.ts";
import { RouteLayer, type BackendServices, type RoutedTarget } from "./layer.ts";
import { Mirrors } from "./mirror.ts";
import { RouteTable } from "./table.ts";
import { backendOf, balancerTo, callOf, headOf, matchOf, routeOf, ruleTo, sourceNamed } from "./testing.ts";

/** Backends by the name of their service. Each answers 200 with its name at once, unless it was made otherwise. */
class Backends implements BackendServices {
  readonly services = new Map<string, ScriptedService>();
  readonly unready = new Set<string>();
  releases = 0;
  readonly budget = new RetryBudgetWindow(BACKEND_TRAFFIC_DEFAULTS.retryBudget);

  service(name: string): ScriptedService {
    let service = this.services.get(name);
    if (service === undefined) {
      service = new ScriptedService((call) => call.answer(200, ["Server", name], name));
      this.services.set(name, service);
    }
    return service;
  }
  budgetOf(): RetryBudgetWindow | null {
    return this.budget;
  }
  serviceOf(backend: Backend): HttpService | null {
    return backend.kind === "balancer" ? this.service(nameOf(backend)) : null;
  }
  isReady(backend: Backend): boolean {
    return backend.kind === "balancer" && !this.unready.has(nameOf(backend));
  }
  releaseAll(): void {
    this.releases++;
  }
}

function nameOf(backend: Backend): string {
  return backend.kind === "balancer" ? backend.path.split(".")[0]! : backend.kind;
}

function rig(routes: readonly HttpRoute[]): {
  target: { -readonly [K in keyof RoutedTarget]: RoutedTarget[K] };
  backends: Backends;
  mirrors: Mirrors;
  layer: RouteLayer;
  clock: ManualClock;
  ask: (head: RequestHead) => RecordingReply;
} {
  const target = {
    table: new RouteTable(routes),
    authority: "web.shop.svc.cluster.local:80",
    address: { ip: "10.0.0.1", port: 8080 } as SocketAddress,
    policy: policyTo(balancerTo("web"), sourceNamed("web", "Service"), "http1"),
  };
  const backends = new Backends();
  const mirrors = new Mirrors(4, 1_000);
  const clock = new ManualClock();
  const random = new SeededRandom(1);
  const layer = new RouteLayer({
    target,
    backends,
    random,
    mirrors,
    retries: new RetryLayer({ clock, random }),
    retrySeries: () => NO_SERIES,
  });
  const ask = (head: RequestHead): RecordingReply => {
    const reply = new RecordingReply();
    layer.call(head, true, reply);
    return reply;
  };
  return { target, backends, mirrors, layer, clock, ask };
}

const NO_SERIES: RetrySeries = {
  retried: () => {},
  retrySucceeded: () => {},
  retryLimitExceeded: () => {},
  retryOverflowed: () => {},
  timedOut: () => {},
};

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

const RETRY: RetryPolicy = {
  retriesMax: 3,
  statusRanges: [[500, 599]],
  grpcCodes: [],
  onConnectionError: true,
  attemptTimeoutMs: null,
  bodyBytesMax: 1_000,
  backoff: { minMs: 10, maxMs: 10, jitterRatio: 0 },
  respectsRetryAfter: true,
};

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
  const mirror: HttpFilter = {
    kind: "mirror",
    backend: balancerTo("copy"),
    ratio: { numerator: 1, denominator: 1 },
  };
  const failing = new ScriptedService((call) => call.answer(503, [], ""));
  const names = ["v1", "v2", "v3"];
  const { ask, backends, clock } = rig([
    routeOf("web", [
      { ...ruleTo(names.map((name) => backendOf(balancerTo(name), 1, [mirror]))), retry: RETRY },
    ]),
  ]);
  for (const name of names) backends.services.set(name, failing);
  const drawn = new Set<string>();
  const serviceOf = backends.serviceOf.bind(backends);
  backends.serviceOf = (backend) => {
    drawn.add(nameOf(backend));
    return serviceOf(backend);
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

test("a rule without a backend is not asked for one again", () => {
  const { ask } = rig([routeOf("web", [{ ...ruleTo([]), retry: RETRY }])]);
  assert.equal(ask(headOf("/")).fault?.code, "NO_BACKEND");
});
