import type { Flow, Tally, Timeline } from "./figures.ts";
import type { SimPod, SimService, World } from "./world.ts";

/** What a simulation showed. Plain data, the same for the same seed. Numbers are rounded to what they can mean. */
export interface Report {
  readonly seed: number;
  readonly durationMs: number;
  readonly phases: readonly { readonly name: string; readonly fromMs: number; readonly toMs: number }[];
  readonly flows: readonly FlowReport[];
  readonly services: readonly ServiceReport[];
  /** Faults that reached a program, by code and the rule that decided, most first. */
  readonly faults: readonly { readonly what: string; readonly requests: number }[];
  readonly curves: Curves;
  /** What must never happen, and did: an error of Pillion's. */
  readonly violations: readonly string[];
}

/** As programs of one workload saw one service. One entry for each phase, in order. */
export interface FlowReport {
  readonly from: string;
  readonly to: string;
  readonly phases: readonly Outcome[];
}

export interface Outcome {
  readonly requests: number;
  readonly requestsPerSecond: number;
  /** 0 … 1; null without requests. */
  readonly successRate: number | null;
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly failures: Readonly<Record<string, number>>;
}

/** One service, from the side of its endpoints. */
export interface ServiceReport {
  readonly service: string;
  readonly phases: readonly {
    /** Asked by programs. */
    readonly requests: number;
    /** Sent to endpoints by sidecars: the difference is retries. */
    readonly attempts: number;
    readonly attemptsPerSecond: number;
    readonly retries: number;
    /** `attempts / requests`; null without requests. */
    readonly loadFactor: number | null;
  }[];
  /** What sidecars did by the rules of its routes, by name of the event. */
  readonly events: Readonly<Record<string, number>>;
  readonly endpoints: readonly EndpointReport[];
}

export interface EndpointReport {
  readonly pod: string;
  readonly zone: string;
  /** Arrived at its program, by phase. */
  readonly requests: readonly number[];
  readonly busyPeak: number;
  readonly waitingPeak: number;
  /** Answered 503 because too many waited. */
  readonly refused: number;
}

/** One value for each bin of `binMs`. */
export interface Curves {
  readonly binMs: number;
  readonly flows: readonly {
    readonly from: string;
    readonly to: string;
    readonly requestsPerSecond: readonly number[];
    readonly successRate: readonly (number | null)[];
    readonly p50Ms: readonly (number | null)[];
    readonly p99Ms: readonly (number | null)[];
  }[];
  readonly services: readonly { readonly service: string; readonly attemptsPerSecond: readonly number[] }[];
}

export function reportOf(world: World): Report {
  const { timeline, plan, faults, violations } = world;
  const flows = [...world.flows.values()].toSorted((a, b) =>
    compare(`${a.from} ${a.to}`, `${b.from} ${b.to}`),
  );
  const services = [...world.services.values()]
    .filter((service) => service.attempts.total > 0 || flows.some((flow) => flow.to === service.plan.path))
    .toSorted((a, b) => compare(a.plan.path, b.plan.path));
  return {
    seed: plan.seed,
    durationMs: plan.durationMs,
    phases: timeline.phases.map(({ name, fromMs, toMs }) => ({ name, fromMs, toMs })),
    flows: flows.map((flow) => ({
      from: flow.from,
      to: flow.to,
      phases: flow.phases.map((tally, i) =>
        outcomeOf(tally, timeline.phases[i]!.toMs - timeline.phases[i]!.fromMs),
      ),
    })),
    services: services.map((service) => serviceReport(service, flows, timeline)),
    faults: [...faults]
      .map(([what, requests]) => ({ what, requests }))
      .toSorted((a, b) => b.requests - a.requests || compare(a.what, b.what)),
    curves: {
      binMs: timeline.binMs,
      flows: flows.map((flow) => ({
        from: flow.from,
        to: flow.to,
        requestsPerSecond: flow.bins.map((bin) => round((bin.requests * 1_000) / timeline.binMs)),
        successRate: flow.bins.map((bin) => (bin.requests === 0 ? null : round(bin.good / bin.requests, 4))),
        p50Ms: flow.bins.map((bin) => (bin.requests === 0 ? null : quantileMs(bin, 0.5))),
        p99Ms: flow.bins.map((bin) => (bin.requests === 0 ? null : quantileMs(bin, 0.99))),
      })),
      services: services.map((service) => ({
        service: service.plan.path,
        attemptsPerSecond: [...service.attempts.bins].map((count) => round((count * 1_000) / timeline.binMs)),
      })),
    },
    violations: [...violations],
  };
}

function outcomeOf(tally: Tally, durationMs: number): Outcome {
  return {
    requests: tally.requests,
    requestsPerSecond: round((tally.requests * 1_000) / durationMs),
    successRate: tally.requests === 0 ? null : round(tally.good / tally.requests, 6),
    p50Ms: quantileMs(tally, 0.5),
    p90Ms: quantileMs(tally, 0.9),
    p99Ms: quantileMs(tally, 0.99),
    maxMs: round(tally.latency.maxUs / 1_000),
    failures: Object.fromEntries([...tally.bad].toSorted(([a], [b]) => compare(a, b))),
  };
}

function serviceReport(service: SimService, flows: readonly Flow[], timeline: Timeline): ServiceReport {
  const own = flows.filter((flow) => flow.to === service.plan.path);
  return {
    service: service.plan.path,
    phases: [...service.attempts.phases].map((attempts, i) => {
      const requests = own.reduce((sum, flow) => sum + flow.phases[i]!.requests, 0);
      return {
        requests,
        attempts,
        attemptsPerSecond: round(
          (attempts * 1_000) / (timeline.phases[i]!.toMs - timeline.phases[i]!.fromMs),
        ),
        retries: Math.max(0, attempts - requests),
        loadFactor: requests === 0 ? null : round(attempts / requests, 3),
      };
    }),
    events: Object.fromEntries([...service.events.counts].toSorted(([a], [b]) => compare(a, b))),
    endpoints: service.pods.map(endpointReport),
  };
}

function endpointReport(pod: SimPod): EndpointReport {
  const { application, arrivals, plan } = pod;
  return {
    pod: plan.name,
    zone: plan.zone,
    requests: [...arrivals.phases],
    busyPeak: application.busyPeak,
    waitingPeak: application.waitingPeak,
    refused: application.refused,
  };
}

function quantileMs(tally: Tally, q: number): number {
  return round(tally.latency.quantileUs(q) / 1_000);
}

/** Logarithmic buckets are exact to one in a hundred: more digits would only differ from machine to machine. */
function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
