/** A world drawn from a seed: services, routes, policies, load and failures. */
import { SeededRandom } from "#/base/random.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import type {
  Backend,
  FaultAction,
  HttpFilter,
  HttpMatch,
  HttpRule,
  RetryPolicy,
  RouteBackend,
} from "#/model/route.ts";
import type { BackendTraffic, InboundLimits, RateLimit } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { Latency } from "#/sim/latency.ts";
import type { CallPlan, FailurePlan, LoadPlan, ServicePlan, WorkloadPlan, WorldPlan } from "#/sim/plan.ts";
import { call, pathOf, SOURCE, workload } from "#/sim/testing.ts";

/** A world drawn for its seed, and what its settings promise. */
export interface RandomWorld {
  readonly plan: WorldPlan;
  /** By service: how its clients use it. */
  readonly traffic: ReadonlyMap<string, BackendTraffic>;
  /** By service: those that its requests may be drawn for. */
  readonly backends: ReadonlyMap<string, readonly string[]>;
  /** Splits whose shares can be told from outside: those of services whose every request is drawn by weight. */
  readonly splits: readonly Split[];
}

export interface Split {
  /** Requests were made for this service … */
  readonly path: string;
  /** … and go to these, by weight. */
  readonly weights: ReadonlyMap<string, number>;
}

const ZONES = ["a", "b", "c"];

export function randomWorld(seed: number): RandomWorld {
  return new Draw(seed).world(seed);
}

/** A timeout is noticed at most so much later: one tick of its wheel. */
const RESOLUTION_MS = 10;

class Draw {
  readonly #random: SeededRandom;
  readonly #traffic = new Map<string, BackendTraffic>();
  readonly #backends = new Map<string, readonly string[]>();
  readonly #splits: Split[] = [];

  constructor(seed: number) {
    this.#random = new SeededRandom(seed);
  }

  world(seed: number): RandomWorld {
    const durationMs = this.#between(3_000, 8_000);
    const zones = this.#chance(0.5) ? ZONES.slice(0, this.#whole(2, 3)) : [""];
    const tiers = this.#whole(1, 3);
    const perSecond = this.#between(30, 250);
    const workloads: WorkloadPlan[] = [workload("mirror", 99, 2)];
    this.#traffic.set(MIRROR, BACKEND_TRAFFIC_DEFAULTS);
    const services: ServicePlan[] = [this.#service("mirror", this.#plainPolicy("mirror"))];
    let next: CallPlan | null = null;
    // From the last tier to the first, since each calls the one behind it.
    for (let tier = tiers; tier >= 1; tier--) {
      const versions = this.#chance(0.4) ? this.#whole(2, 3) : 1;
      const names = Array.from(
        { length: versions },
        (_, i) => `t${tier}${versions === 1 ? "" : `v${i + 1}`}`,
      );
      const calls = next === null ? [] : [next];
      for (const name of names) {
        workloads.push(this.#workload(name, workloads.length + 2, zones, calls));
        this.#traffic.set(pathOf(name), this.#backendTraffic());
      }
      const target = `t${tier}`;
      const rule = this.#rule(names);
      // A second rule for some paths, to one version alone: either may be the one that is asked for.
      const other = this.#chance(0.4) ? { ...this.#rule([names[0]!]), matches: [OTHER] } : null;
      const isOther = other !== null && this.#chance(0.5);
      const asked = isOther ? other : rule;
      this.#backends.set(
        pathOf(target),
        asked.backends.map(({ backend }) => (backend.kind === "balancer" ? backend.path : "")),
      );
      if (versions > 1) {
        this.#traffic.set(pathOf(target), BACKEND_TRAFFIC_DEFAULTS);
        services.push(...names.map((name) => this.#service(name, this.#plainPolicy(name))));
        if (!isOther)
          this.#splits.push({
            path: pathOf(target),
            weights: new Map(names.map((name, i) => [pathOf(name), rule.backends[i]!.weight])),
          });
      }
      const rules = other === null ? [rule] : [rule, other];
      services.push({ ...this.#service(target, this.#policy(target, rules)), workloads: names });
      next = this.#call(target, asked, isOther ? "/other/one" : "/some");
    }
    const load = workload("load", 1, this.#whole(1, 6), {}, zones);
    workloads.push(load);
    const failures = this.#failures(workloads, zones, durationMs);
    const plan: WorldPlan = {
      seed,
      durationMs,
      workloads,
      services,
      loads: [this.#load(next!, perSecond)],
      failures,
      network: {
        latencyMs: this.#between(0.05, 2),
        zoneLatencyMs: this.#between(1, 10),
        discoveryMs: this.#between(50, 2_000),
      },
    };
    // A draw is only seen where it can become a request.
    const isSeen = ([path]: readonly [string, number]): boolean => {
      const { accrual, limits } = this.#traffic.get(path)!;
      return accrual === null && limits.requestsMax === 0 && limits.pendingMax === 0;
    };
    const isReached = failures.every(({ what }) => what.kind !== "death" && what.kind !== "zone");
    const splits = this.#splits.filter((split) => isReached && [...split.weights].every(isSeen));
    return { plan, traffic: this.#traffic, backends: this.#backends, splits };
  }

  #workload(
    name: string,
    number: number,
    zones: readonly string[],
    calls: readonly CallPlan[],
  ): WorkloadPlan {
    return workload(
      name,
      number,
      this.#whole(1, 8),
      {
        latency: this.#latency(),
        errorRate: this.#chance(0.3) ? this.#between(0, 0.6) : 0,
        workersMax: this.#whole(1, 64),
        waitingMax: this.#whole(0, 100),
        noticesAbort: this.#chance(0.5),
        calls: calls.map((one) => ({ ...one, isOptional: this.#chance(0.3) })),
      },
      zones,
      this.#inbound(),
    );
  }

  #latency(): Latency {
    const medianMs = this.#between(1, 20);
    return this.#chance(0.3)
      ? { kind: "exponential", meanMs: medianMs }
      : { kind: "log-normal", medianMs, p99Ms: medianMs * this.#between(1, 20) };
  }

  #service(name: string, policy: OutboundPolicy): ServicePlan {
    return { path: pathOf(name), workloads: [name], policyFor: () => policy };
  }

  #backend(name: string): Backend {
    const path = pathOf(name);
    const traffic = this.#traffic.get(path) ?? null;
    return { kind: "balancer", source: SOURCE, path, defaultRttMs: 30, decayMs: 10_000, traffic };
  }

  #plainPolicy(name: string): OutboundPolicy {
    const backends = [{ weight: 1, backend: this.#backend(name), filters: [], attemptTimeoutMs: null }];
    return this.#policy(name, [{ ...NO_RULE, backends }]);
  }

  #policy(name: string, rules: readonly HttpRule[]): OutboundPolicy {
    const source = {
      ...SOURCE,
      group: "gateway.networking.k8s.io",
      kind: "HTTPRoute",
      namespace: "test",
      name,
    };
    return {
      source: SOURCE,
      protocol: "http2",
      http: [{ source, hosts: [], rules }],
      tcp: [],
      backend: this.#backend(name),
    };
  }

  #rule(names: readonly string[]): HttpRule {
    const backends = names.map((name): RouteBackend => ({
      weight: this.#whole(1, 10),
      backend: this.#backend(name),
      filters: [],
      attemptTimeoutMs: null,
    }));
    return {
      ...NO_RULE,
      filters: this.#filters(),
      choice: "random",
      backends,
      timeouts: {
        requestMs: this.#chance(0.5) ? this.#whole(20, 1_500) : null,
        attemptMs: this.#chance(0.3) ? this.#whole(20, 500) : null,
        responseMs: null,
        idleMs: null,
      },
      retry: this.#chance(0.7) ? this.#retry() : null,
    };
  }

  #filters(): HttpFilter[] {
    const ratio = { numerator: this.#whole(1, 30), denominator: 100 };
    const filters: HttpFilter[] = [];
    if (this.#chance(0.15)) filters.push({ kind: "mirror", backend: this.#backend("mirror"), ratio });
    if (this.#chance(0.15)) {
      const action: FaultAction = this.#chance(0.5)
        ? { kind: "reset" }
        : { kind: "abort", status: 503, grpcStatus: 14, message: "" };
      filters.push({ kind: "fault", source: SOURCE, ratio, headers: [], action });
    }
    return filters;
  }

  #inbound(): InboundLimits | null {
    if (!this.#chance(0.3)) return null;
    const rate: RateLimit = {
      source: SOURCE,
      matches: [],
      key: { kind: "total" },
      requests: this.#whole(1, 100),
      windowMs: 1_000,
      burst: this.#whole(1, 50),
      scope: "local",
    };
    const limitMin = this.#whole(1, 10);
    const concurrency = {
      source: SOURCE,
      limitMin,
      limitMax: limitMin + this.#whole(0, 50),
      priorityHeader: "",
    };
    return {
      rates: this.#chance(0.6) ? [rate] : [],
      exempt: [],
      concurrency: this.#chance(0.6) ? concurrency : null,
    };
  }

  #retry(): RetryPolicy {
    return {
      retriesMax: this.#whole(1, 5),
      statusRanges: [[500, 599]],
      grpcCodes: [],
      onConnectionError: this.#chance(0.5),
      attemptTimeoutMs: this.#chance(0.3) ? this.#whole(20, 300) : null,
      bodyBytesMax: this.#whole(0, 65_536),
      backoff: { minMs: this.#whole(1, 50), maxMs: this.#whole(50, 500), jitterRatio: this.#between(0, 1) },
      respectsRetryAfter: this.#chance(0.5),
    };
  }

  #backendTraffic(): BackendTraffic {
    const limit = (): number => (this.#chance(0.2) ? this.#whole(1, 50) : 0);
    const algorithms = ["p2c-ewma", "round-robin", "random", "least-request", "consistent-hash"] as const;
    return {
      ...BACKEND_TRAFFIC_DEFAULTS,
      balancing: {
        algorithm: algorithms[this.#whole(0, algorithms.length - 1)]!,
        hashOn: [{ kind: "header", name: "x-user" }],
        boundedLoad: this.#between(1.1, 2),
      },
      zone: this.#chance(0.3)
        ? { spillAtPending: this.#whole(1, 20), healthyShareMin: this.#between(0, 1) }
        : null,
      slowStartMs: this.#chance(0.2) ? this.#whole(100, 3_000) : 0,
      subsetSize: this.#chance(0.1) ? this.#whole(1, 5) : 0,
      accrual: this.#chance(0.5)
        ? {
            consecutiveFailures: this.#chance(0.7) ? this.#whole(1, 7) : 0,
            successRateMin: this.#chance(0.5) ? this.#between(0.3, 0.99) : 0,
            windowMs: this.#whole(500, 5_000),
            requestsMin: this.#whole(1, 20),
            backoff: { minMs: this.#whole(50, 500), maxMs: this.#whole(500, 5_000), jitterRatio: 0.2 },
            respectsRetryAfter: this.#chance(0.5),
          }
        : null,
      ejectionFloor: this.#between(0, 1),
      panicThreshold: this.#between(0, 0.5),
      limits: { requestsMax: limit(), pendingMax: limit(), connectionsMax: 0 },
      retryBudget: {
        percent: this.#whole(0, 40),
        intervalMs: this.#whole(500, 4_000),
        floorCount: this.#whole(0, 3),
        floorIntervalMs: this.#whole(500, 2_000),
      },
    };
  }

  #call(target: string, rule: HttpRule, path: string): CallPlan {
    const { requestMs } = rule.timeouts;
    return call(target, {
      head: { ...call(target).head, path },
      bodyBytes: this.#chance(0.3) ? this.#whole(1, 100_000) : 0,
      timeoutMs: this.#chance(0.2) ? this.#whole(10, 2_000) : 0,
      boundMs: requestMs === null ? 0 : requestMs + RESOLUTION_MS,
      isNumbered: true,
    });
  }

  #load(call: CallPlan, perSecond: number): LoadPlan {
    const base = {
      from: "load",
      call,
      keys: this.#chance(0.5) ? { header: "x-user", count: this.#whole(1, 200) } : null,
      retriesMax: this.#chance(0.2) ? 1 : 0,
    };
    if (this.#chance(0.3))
      return {
        ...base,
        kind: "closed",
        users: this.#whole(1, 60),
        think: { kind: "exponential", meanMs: 200 },
      };
    return { ...base, kind: "open", steps: [{ atMs: 0, perSecond }] };
  }

  #failures(workloads: readonly WorkloadPlan[], zones: readonly string[], durationMs: number): FailurePlan[] {
    return Array.from({ length: this.#whole(0, 2) }, () => {
      const { name, pods } = workloads[this.#whole(1, workloads.length - 2)]!;
      const some = { workload: name, pods: this.#whole(1, pods.length) };
      const what = (
        [
          { kind: "slow", ...some, factor: this.#between(2, 50) },
          { kind: "errors", ...some, rate: this.#between(0.1, 1) },
          { kind: "capacity", ...some, share: this.#between(0, 0.9) },
          { kind: "death", ...some },
          { kind: "zone", zone: zones[this.#whole(0, zones.length - 1)]! },
        ] as const
      )[this.#whole(0, zones.length > 1 ? 4 : 3)]!;
      return { atMs: this.#between(0, durationMs), forMs: this.#between(10, durationMs), what };
    });
  }

  #chance(share: number): boolean {
    return this.#random.next() < share;
  }

  #between(from: number, to: number): number {
    return from + this.#random.next() * (to - from);
  }

  /** Both ends included. */
  #whole(from: number, to: number): number {
    return from + Math.floor(this.#random.next() * (to - from + 1));
  }
}

/** Copies go there: to what no request is meant for. */
export const MIRROR = pathOf("mirror");

const OTHER: HttpMatch = { path: { kind: "prefix", value: "/other" }, headers: [], query: [], method: null };

const NO_RULE: HttpRule = {
  name: "",
  matches: [],
  filters: [],
  choice: "first",
  backends: [],
  timeouts: { requestMs: null, attemptMs: null, responseMs: null, idleMs: null },
  retry: null,
  allowsRequestHeaders: false,
};
