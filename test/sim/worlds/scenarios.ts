/** What the mesh promises under a failure, shown with and without the means for it. Each has its bounds. */
import { fieldValue } from "#/base/fields.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { policyTo } from "#/model/policy.ts";
import type { RetryPolicy } from "#/model/route.ts";
import type { BackendTraffic, RetryBudget } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { WorldPlan } from "#/sim/plan.ts";
import { simulate } from "#/sim/simulate.ts";
import { call, pathOf, service, SOURCE, workload, world } from "#/sim/testing.ts";
import type { Observer, Sent, World } from "#/sim/world.ts";

export interface Outcome {
  readonly isMet: boolean;
  readonly lines: readonly string[];
}

export const SCENARIOS: Readonly<Record<string, () => Outcome>> = {
  "retry-storm": retryStorm,
  "slow-replica": slowReplica,
  "failing-replica": failingReplica,
  hashing,
  "zone-spill": zoneSpill,
};

/**
 * 320 pods: load → front → middle → backend, retries of 5xx on both inner edges. Half of what the backend answers is an error. A retry on
 * one edge is a request on the next; who is out of retries tells those before it, so that shares do not multiply (decision 12).
 */
function retryStorm(): Outcome {
  const retry: RetryPolicy = {
    retriesMax: 3,
    statusRanges: [[500, 599]],
    grpcCodes: [],
    onConnectionError: true,
    attemptTimeoutMs: null,
    bodyBytesMax: 65_536,
    backoff: { minMs: 5, maxMs: 50, jitterRatio: 0.5 },
    respectsRetryAfter: true,
  };
  const play = (budget: RetryBudget | null): { load: number; success: number } => {
    const traffic = { ...BACKEND_TRAFFIC_DEFAULTS, retryBudget: budget ?? NO_BUDGET };
    const policy = (name: string): OutboundPolicy => retrying(name, traffic, budget === NONE ? null : retry);
    const plan = world(
      [
        workload("load", 1, 20),
        workload("front", 2, 100, { calls: [call("middle")] }),
        workload("middle", 3, 100, { calls: [call("backend")] }),
        workload("backend", 4, 100),
      ],
      {
        services: [
          service("front"),
          ...["middle", "backend"].map((name) => service(name, { policy: policy(name) })),
        ],
        failures: [
          {
            atMs: 10_000,
            forMs: 20_000,
            what: { kind: "errors", workload: "backend", pods: 100, rate: 0.5 },
          },
        ],
        durationMs: 30_000,
      },
      2_000,
    );
    const played = simulate(plan);
    const calm = played.service(pathOf("backend")).attempts.phases;
    const tally = played.flow("load", pathOf("front")).phases[1]!;
    // Of twice the time, against what came when all was well.
    return { load: calm[1]! / (2 * calm[0]!), success: tally.good / tally.requests };
  };
  const within = play({ percent: 15, intervalMs: 10_000, floorCount: 1, floorIntervalMs: 10_000 });
  const byDefault = play(BACKEND_TRAFFIC_DEFAULTS.retryBudget);
  const without = play(NO_BUDGET);
  const none = play(NONE);
  const line = (what: string, { load, success }: { load: number; success: number }): string =>
    `${what.padEnd(42)} load on the backend ${load.toFixed(2)} ×, ${(100 * success).toFixed(1)} % answered well`;
  return {
    isMet: within.load <= 1.2 && without.load >= 1.8,
    lines: [
      line("no retries", none),
      line("budget of 15 %, floor 1 in 10 s", within),
      line("default budget, 20 % and 10 a second", byDefault),
      line("no budget", without),
      "bounds: at most 1.20 × with the budget, at least 1.80 × without (else there was no storm)",
    ],
  };
}

/** One of ten replicas takes ten times as long. */
function slowReplica(): Outcome {
  const play = (
    algorithm: BackendTraffic["balancing"]["algorithm"],
  ): { p50: number; p99: number; share: number } => {
    const traffic: BackendTraffic = {
      ...BACKEND_TRAFFIC_DEFAULTS,
      balancing: { algorithm, hashOn: [], boundedLoad: 1.25 },
    };
    const latency = { kind: "log-normal", medianMs: 10, p99Ms: 40 } as const;
    const plan = world(
      [workload("load", 1, 10), workload("a", 2, 10, { latency, workersMax: 8 })],
      {
        services: [service("a", { traffic })],
        failures: [{ atMs: 0, forMs: 60_000, what: { kind: "slow", workload: "a", pods: 1, factor: 10 } }],
        durationMs: 30_000,
      },
      1_000,
    );
    const played = simulate(plan);
    const { latency: seen, requests } = played.flow("load", pathOf("a")).phases[0]!;
    const slow = played.workloads.get("a")!.pods[0]!.application.arrived;
    return { p50: seen.quantileUs(0.5) / 1_000, p99: seen.quantileUs(0.99) / 1_000, share: slow / requests };
  };
  const ewma = play("p2c-ewma");
  const others = (["round-robin", "random", "least-request"] as const).map(
    (name) => [name, play(name)] as const,
  );
  const roundRobin = others[0]![1];
  const line = (name: string, { p50, p99, share }: typeof ewma): string =>
    `${name.padEnd(14)} p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(0)} ms, ${(100 * share).toFixed(1)} % of requests went to the slow one`;
  return {
    isMet: ewma.p99 <= roundRobin.p99 / 2,
    lines: [
      line("p2c-ewma", ewma),
      ...others.map(([name, result]) => line(name, result)),
      `p99 is ${(roundRobin.p99 / ewma.p99).toFixed(1)} times better than round robin's; bound: at least 2`,
    ],
  };
}

/** One of ten replicas answers nothing but errors. */
function failingReplica(): Outcome {
  const play = (accrual: BackendTraffic["accrual"]): number => {
    const plan = world(
      [workload("load", 1, 10), workload("a", 2, 10)],
      {
        services: [service("a", { traffic: { ...BACKEND_TRAFFIC_DEFAULTS, accrual } })],
        failures: [{ atMs: 0, forMs: 60_000, what: { kind: "errors", workload: "a", pods: 1, rate: 1 } }],
        durationMs: 30_000,
      },
      500,
    );
    const { good, requests } = simulate(plan).flow("load", pathOf("a")).phases[0]!;
    return good / requests;
  };
  const within = play({
    consecutiveFailures: 5,
    successRateMin: 0,
    windowMs: 10_000,
    requestsMin: 10,
    backoff: { minMs: 1_000, maxMs: 60_000, jitterRatio: 0.5 },
    respectsRetryAfter: true,
  });
  const without = play(null);
  return {
    isMet: within >= 0.98,
    lines: [
      `set aside after 5 failures in a row: ${(100 * within).toFixed(2)} % answered well; bound: at least 98 %`,
      `never set aside: ${(100 * without).toFixed(2)} %`,
    ],
  };
}

/** Keys of 2,000 users over ten replicas, of which one goes and comes back, seen from five clients. */
function hashing(): Outcome {
  const replicas = 10;
  const traffic: BackendTraffic = {
    ...BACKEND_TRAFFIC_DEFAULTS,
    balancing: {
      algorithm: "consistent-hash",
      hashOn: [{ kind: "header", name: "x-user" }],
      boundedLoad: 10,
    },
  };
  const plan: WorldPlan = world(
    [workload("load", 1, 5), workload("a", 2, replicas)],
    {
      services: [service("a", { traffic })],
      failures: [{ atMs: 20_000, forMs: 20_000, what: { kind: "death", workload: "a", pods: 1 } }],
      durationMs: 60_000,
    },
    1_000,
  );
  plan.loads.forEach((load) => Object.assign(load, { keys: { header: "x-user", count: 2_000 } }));
  // By key, where it went last in each phase.
  const places: Map<string, string>[] = [new Map(), new Map(), new Map()];
  let split = 0;
  const watch = (made: World): void => {
    made.observer = observing((sent) => {
      // Until discovery has told of the change, and connections are made, requests look for their way.
      const phase =
        made.nowMs < 20_000
          ? 0
          : made.nowMs > 23_000 && made.nowMs < 40_000
            ? 1
            : made.nowMs > 43_000
              ? 2
              : -1;
      if (phase < 0) return;
      const key = fieldValue(sent.head.fields, "x-user")!;
      const before = places[phase]!.get(key);
      if (before !== undefined && before !== sent.to.plan.name) split++;
      places[phase]!.set(key, sent.to.plan.name);
    });
  };
  simulate(plan, watch);
  const moved = (from: Map<string, string>, to: Map<string, string>): number => {
    const both = [...from.keys()].filter((key) => to.has(key));
    return both.filter((key) => from.get(key) !== to.get(key)).length / both.length;
  };
  const gone = moved(places[0]!, places[1]!);
  const back = moved(places[1]!, places[2]!);
  const home = moved(places[0]!, places[2]!);
  const bound = 1 / replicas + EPSILON;
  return {
    isMet: gone <= bound && back <= bound && home === 0 && split === 0 && gone > 0,
    lines: [
      `one of ${replicas} goes: ${(100 * gone).toFixed(1)} % of keys move; it comes back: ${(100 * back).toFixed(1)} %; bound: ${(100 * bound).toFixed(0)} %`,
      `keys elsewhere than at first when all are back: ${(100 * home).toFixed(1)} %; requests of one key to two replicas at one time: ${split}; bound: 0`,
    ],
  };
}

/** All clients in one of three zones: four local replicas, eight elsewhere. Load that the zone bears, then twice as much. */
function zoneSpill(): Outcome {
  const play = (zone: BackendTraffic["zone"]): { remote: number[]; p99: number[] } => {
    const remote: number[] = [];
    const p99: number[] = [];
    // A replica bears 8 / 10 ms = 800 requests a second.
    for (const perSecond of [600, 6_000]) {
      const clients = workload("load", 1, 4, {}, ["a"]);
      const servers = workload("a", 2, 12, { latency: { kind: "exponential", meanMs: 10 }, workersMax: 8 }, [
        "a",
        "b",
        "c",
      ]);
      const plan = world(
        [clients, servers],
        {
          services: [service("a", { traffic: { ...BACKEND_TRAFFIC_DEFAULTS, zone } })],
          network: { latencyMs: 0.25, zoneLatencyMs: 2, discoveryMs: 1_000 },
          durationMs: 10_000,
        },
        perSecond,
      );
      const played = simulate(plan);
      const { latency, requests } = played.flow("load", pathOf("a")).phases[0]!;
      const far = played.workloads
        .get("a")!
        .pods.filter((pod) => pod.plan.zone !== "a")
        .reduce((sum, pod) => sum + pod.application.arrived, 0);
      remote.push(far / requests);
      p99.push(latency.quantileUs(0.99) / 1_000);
    }
    return { remote, p99 };
  };
  const within = play({ spillAtPending: 4, healthyShareMin: 0.5 });
  const without = play(null);
  const line = (what: string, { p99, remote }: typeof within): string =>
    `${what.padEnd(20)} leaves the zone: ${(100 * remote[0]!).toFixed(1)} % at ease, ${(100 * remote[1]!).toFixed(1)} % overloaded; p99 ${p99[0]!.toFixed(0)} ms and ${p99[1]!.toFixed(0)} ms`;
  return {
    isMet: within.remote[0]! <= 0.01 && within.remote[1]! >= 0.2 && within.p99[1]! <= 500,
    lines: [
      line("zone preferred", within),
      line("zone no matter", without),
      "bounds: at most 1 % leaves it at ease; at least 20 % when 6,000 a second meet 3,200 of the zone's own, within 500 ms",
    ],
  };
}

function observing(sent: (sent: Sent) => void): Observer {
  const nothing = (): void => undefined;
  return { called: nothing, ended: nothing, arrived: nothing, givenBack: nothing, noted: nothing, sent };
}

/** All to one balancer, tried again as `retry` says. */
function retrying(name: string, traffic: BackendTraffic, retry: RetryPolicy | null): OutboundPolicy {
  const plain = policyTo(
    { kind: "balancer", source: SOURCE, path: pathOf(name), defaultRttMs: 30, decayMs: 10_000, traffic },
    SOURCE,
    "http2",
  );
  return {
    ...plain,
    http: plain.http.map((route) => ({ ...route, rules: route.rules.map((rule) => ({ ...rule, retry })) })),
  };
}

/** As good as none: all retries are within it. */
const NO_BUDGET: RetryBudget = {
  percent: 1_000_000,
  intervalMs: 10_000,
  floorCount: 0,
  floorIntervalMs: 1_000,
};
/** Stands for no retries at all. */
const NONE: RetryBudget = { ...NO_BUDGET };
/** What a hash of some hundred keys a replica spreads unevenly. */
const EPSILON = 0.03;
