import assert from "node:assert/strict";
import { test } from "node:test";
import type { PodPlan } from "#/model/pod-plan.ts";
import type { HttpFilter } from "#/model/route.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import type { KnownPod } from "../services/compile.ts";
import { inboundLimitsFor } from "./policy.ts";
import { gatewayObject, parent, PolicyWorld, service } from "./testing.ts";

const WEB = '{group: "", kind: Service, name: web}';

function ours(kind: string, name: string, spec: string, more = ""): string {
  return `---\napiVersion: pillion.dev/v1alpha1\nkind: ${kind}\nmetadata: {name: ${name}, namespace: shop${more}}\nspec: ${spec}\n`;
}

function standard(name: string, spec: string): string {
  return `---\napiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {name: ${name}, namespace: shop}\nspec: ${spec}\n`;
}

function trafficOf(world: PolicyWorld, port = 80): BackendTraffic | null {
  const { backend } = world.ask("shop/web", port);
  assert.ok(backend.kind === "balancer");
  return backend.traffic;
}

test("without a policy nothing is said of a backend", () => {
  assert.equal(trafficOf(new PolicyWorld(service("web"))), null);
});

test("a TrafficPolicy says how a Service is balanced, broken off and bounded", () => {
  const world = new PolicyWorld(
    service("web") +
      ours(
        "TrafficPolicy",
        "p",
        `{targetRefs: [${WEB}],
          balancing: {algorithm: ConsistentHash, hashOn: [{header: X-User}, {cookie: Sid}, {source: true}], boundedLoadPercent: 150, slowStart: 30s, subsetSize: 20, overloadPenalty: 2s},
          zone: {spillAtPending: 8},
          circuitBreaking: {consecutiveFailures: 5, successRate: {percentMin: 80, requestsMin: 50, window: 20s}, backoff: {min: 2s}, ejectedPercentMax: 30, panicPercent: 10},
          limits: {pendingMax: 100}, connectTimeout: 500ms,
          retryConstraint: {budget: {percent: 5}}}`,
      ),
  );
  assert.deepEqual(trafficOf(world), {
    balancing: {
      algorithm: "consistent-hash",
      hashOn: [{ kind: "header", name: "x-user" }, { kind: "cookie", name: "Sid" }, { kind: "source" }],
      boundedLoad: 1.5,
    },
    persistence: null,
    zone: { spillAtPending: 8, healthyShareMin: 0.7 },
    slowStartMs: 30_000,
    subsetSize: 20,
    accrual: {
      consecutiveFailures: 5,
      successRateMin: 0.8,
      windowMs: 20_000,
      requestsMin: 50,
      backoff: { minMs: 2000, maxMs: 60_000, jitterRatio: 0.5 },
      respectsRetryAfter: false,
    },
    ejectionFloor: 0.7,
    panicThreshold: 0.1,
    limits: { requestsMax: 0, pendingMax: 100, connectionsMax: 0 },
    retryBudget: { percent: 5, intervalMs: 10_000, floorCount: 10, floorIntervalMs: 1000 },
    overloadPenaltyMs: 2000,
    connectTimeoutMs: 500,
  });
  assert.deepEqual(world.conditions("TrafficPolicy", "shop/p"), [""]);
});

test("Linkerd's failure accrual is read from the Service's annotations", () => {
  const annotations =
    'balancer.linkerd.io/failure-accrual: consecutive, balancer.linkerd.io/failure-accrual-consecutive-max-failures: "3", balancer.linkerd.io/failure-accrual-consecutive-min-penalty: 5s, balancer.alpha.linkerd.io/failure-accrual-honor-retry-after: "true"';
  const world = new PolicyWorld(service("web", "shop", "{port: 80}", annotations));
  assert.deepEqual(trafficOf(world), {
    ...BACKEND_TRAFFIC_DEFAULTS,
    accrual: {
      consecutiveFailures: 3,
      successRateMin: 0,
      windowMs: 10_000,
      requestsMin: 5,
      backoff: { minMs: 5000, maxMs: 60_000, jitterRatio: 0.5 },
      respectsRetryAfter: true,
    },
  });
});

test("the standard's policy goes before ours where both say the same, and that is all it takes", () => {
  const world = new PolicyWorld(
    service("web") +
      ours(
        "TrafficPolicy",
        "p",
        `{targetRefs: [${WEB}], balancing: {algorithm: RoundRobin}, retryConstraint: {budget: {percent: 5}}}`,
      ) +
      standard(
        "x",
        `{targetRefs: [${WEB}], retryConstraint: {budget: {percent: 50, interval: 20s}, minRetryRate: {count: 3, interval: 2s}}, sessionPersistence: {type: Header, sessionName: s}}`,
      ),
  );
  const traffic = trafficOf(world);
  assert.equal(traffic?.balancing.algorithm, "round-robin");
  assert.deepEqual(traffic?.retryBudget, {
    percent: 50,
    intervalMs: 20_000,
    floorCount: 3,
    floorIntervalMs: 2000,
  });
  assert.deepEqual(traffic?.persistence?.kind, "header");
});

test("of two policies about one target the older counts, and the other is told so (GEP-713)", () => {
  const policy = (name: string, algorithm: string, more = ""): string =>
    ours("TrafficPolicy", name, `{targetRefs: [${WEB}], balancing: {algorithm: ${algorithm}}}`, more);
  const world = new PolicyWorld(
    service("web") +
      policy("a", "Random") +
      policy("b", "RoundRobin", ', creationTimestamp: "2026-01-01T00:00:00Z"'),
  );
  assert.equal(trafficOf(world)?.balancing.algorithm, "round-robin");
  assert.deepEqual(world.conditions("TrafficPolicy", "shop/a"), ["Accepted=False (Conflicted)"]);
  assert.deepEqual(world.conditions("TrafficPolicy", "shop/b"), [""]);
  assert.match(
    world.problems.join("\n"),
    /^f\.yaml:10: TrafficPolicy shop\/a: spec\.targetRefs\[0\] TrafficPolicy shop\/b is about the same target/,
  );
});

test("a policy about one port goes before one about the whole Service", () => {
  const world = new PolicyWorld(
    service("web", "shop", "{name: http, port: 80}, {name: alt, port: 81}") +
      ours("TrafficPolicy", "whole", `{targetRefs: [${WEB}], balancing: {algorithm: Random}}`) +
      ours(
        "TrafficPolicy",
        "part",
        '{targetRefs: [{group: "", kind: Service, name: web, sectionName: alt}], balancing: {algorithm: RoundRobin}}',
      ),
  );
  assert.deepEqual(
    [80, 81].map((port) => trafficOf(world, port)?.balancing.algorithm),
    ["random", "round-robin"],
  );
});

test("a policy whose target is not there, or in another namespace, is told so", () => {
  const world = new PolicyWorld(
    service("web", "other") +
      service("api") +
      ours("TrafficPolicy", "p", `{targetRefs: [${WEB}], balancing: {algorithm: Random}}`) +
      ours(
        "FaultPolicy",
        "f",
        "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], faults: [{reset: {}}]}",
      ) +
      ours(
        "RateLimitPolicy",
        "l",
        '{targetRefs: [{group: "", kind: Service, name: api, sectionName: x}], rates: [{requests: 1}]}',
      ),
  );
  for (const [kind, name] of [
    ["TrafficPolicy", "shop/p"],
    ["FaultPolicy", "shop/f"],
    ["RateLimitPolicy", "shop/l"],
  ] as const)
    assert.deepEqual(world.conditions(kind, name), ["Accepted=False (TargetNotFound)"]);
  assert.equal(world.problems.length, 3);
});

test("faults come first in the rules that they are for, and only for the clients that they name", () => {
  const world = new PolicyWorld(
    service("web") +
      gatewayObject(
        "HTTPRoute",
        "r",
        `{parentRefs: [${parent("web")}], rules: [{name: a, backendRefs: [{name: web, port: 80}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}]}, {name: b, backendRefs: [{name: web, port: 80}]}]}`,
      ) +
      ours(
        "FaultPolicy",
        "slow",
        `{targetRefs: [${WEB}], from: [{namespace: desk}, {serviceAccount: probe}], faults: [{percent: 10, delay: {duration: 2s, jitter: 100ms}, headers: [{name: X-Test, value: "1"}]}]}`,
      ) +
      ours(
        "FaultPolicy",
        "broken",
        "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r, sectionName: b}], faults: [{abort: {httpStatus: 500}}, {fraction: {numerator: 1, denominator: 1000}, slowClose: {duration: 1s}}]}",
      ),
  );
  assert.deepEqual(world.problems, []);
  const kinds = (client: string, account = "default"): string[][] =>
    world
      .ask("shop/web", 80, client, account)
      .http[0]!.rules.map((rule) =>
        rule.filters.map((each) => (each.kind === "fault" ? each.action.kind : each.kind)),
      );
  assert.deepEqual(kinds("elsewhere"), [["request-headers"], ["abort", "slow-close"]]);
  assert.deepEqual(kinds("desk"), [
    ["delay", "request-headers"],
    ["delay", "abort", "slow-close"],
  ]);
  assert.deepEqual(kinds("shop", "probe"), kinds("desk"));
  assert.deepEqual(kinds("shop"), kinds("elsewhere"));
  const delay = world.ask("shop/web", 80, "desk").http[0]!.rules[0]!.filters[0] as Extract<
    HttpFilter,
    { kind: "fault" }
  >;
  assert.deepEqual(delay, {
    kind: "fault",
    source: {
      group: "pillion.dev",
      kind: "FaultPolicy",
      namespace: "shop",
      name: "slow",
      section: "",
      port: 0,
    },
    ratio: { numerator: 10, denominator: 100 },
    headers: [{ name: "x-test", value: { kind: "exact", value: "1" } }],
    action: { kind: "delay", delayMs: 2000, jitterMs: 100 },
  });
  const withoutRoute = new PolicyWorld(
    service("web") + ours("FaultPolicy", "f", `{targetRefs: [${WEB}], faults: [{reset: {}}]}`),
  );
  assert.equal(withoutRoute.ask("shop/web").http[0]!.rules[0]!.filters[0]!.kind, "fault");
});

test("limits are kept on the pods and ports that a policy is for", () => {
  const pod = {
    plan: {
      uid: "u",
      name: "web-0",
      namespace: "shop",
      labels: { app: "web" },
      owner: "Deployment/shop/web",
      serviceAccount: "default",
      containers: [
        {
          ports: [{ name: "http", containerPort: 8080, protocol: "TCP" }],
          startupProbe: null,
          livenessProbe: null,
          readinessProbe: { action: { kind: "http", path: "/ready", port: 8080 } },
        },
      ],
      initContainers: [],
      sidecar: null,
    } as unknown as PodPlan,
    status: null,
    isLeaving: false,
    opaquePorts: [],
  } satisfies KnownPod;
  const world = new PolicyWorld(
    service(
      "web",
      "shop",
      "{name: http, port: 80, targetPort: http}, {name: admin, port: 81, targetPort: 9000}",
    ) +
      ours(
        "RateLimitPolicy",
        "a",
        '{targetRefs: [{group: "", kind: Service, name: web, sectionName: http}], rates: [{requests: 100, scope: Global}, {requests: 5, window: 1m, burst: 2, per: {header: X-Key}, matches: [{path: {type: PathPrefix, value: /login}}]}]}',
      ) +
      ours(
        "RateLimitPolicy",
        "b",
        "{selector: {matchLabels: {app: web}}, concurrency: {max: 50, priorityHeader: X-Prio}}",
      ) +
      ours("RateLimitPolicy", "c", "{selector: {matchLabels: {app: api}}, rates: [{requests: 1}]}"),
    [pod],
  );
  assert.deepEqual(world.problems, []);
  const [seen] = world.view.podsByName.values();
  const limits = inboundLimitsFor(world.view, seen!, 8080);
  assert.deepEqual(limits?.exempt, [
    { path: { kind: "exact", value: "/ready" }, headers: [], query: [], method: "GET" },
  ]);
  assert.deepEqual(
    limits?.rates.map(({ key, requests, windowMs, burst, scope, matches }) => [
      key,
      requests,
      windowMs,
      burst,
      scope,
      matches.length,
    ]),
    [
      [{ kind: "total" }, 100, 1000, 100, "global", 0],
      [{ kind: "header", name: "x-key" }, 5, 60_000, 2, "local", 1],
    ],
  );
  assert.deepEqual(
    [limits?.concurrency?.limitMin, limits?.concurrency?.limitMax, limits?.concurrency?.priorityHeader],
    [4, 50, "x-prio"],
  );
  assert.deepEqual(inboundLimitsFor(world.view, seen!, 9000)?.rates, [], "another port");
  assert.deepEqual(world.conditions("RateLimitPolicy", "shop/b"), [""]);
});
