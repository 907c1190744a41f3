import { Histogram } from "#/base/histogram.ts";
import type { RetrySeries, TimeoutKind } from "#/stack/retry/retry-rule.ts";

/** What became of some requests, as their senders saw it. */
export class Tally {
  requests = 0;
  good = 0;
  /** By what went wrong: a status, a code of a fault, "timeout of the client". */
  readonly bad: Map<string, number> = new Map();
  /** From the request to the end of its answer, of all that got one. */
  readonly latency: Histogram = new Histogram();

  ended(outcome: string, tookMs: number): void {
    this.requests++;
    this.latency.record(tookMs * 1_000);
    if (outcome === GOOD) this.good++;
    else this.bad.set(outcome, (this.bad.get(outcome) ?? 0) + 1);
  }
}

/** The outcome of a request that went well. */
export const GOOD = "ok";

/** Counts what sidecars did by their rules and limits, all of them together. */
export class RuleEvents implements RetrySeries {
  readonly counts: Map<string, number> = new Map();

  retried(): void {
    this.#count("retries");
  }
  retrySucceeded(): void {
    this.#count("answered well after a retry");
  }
  retryLimitExceeded(): void {
    this.#count("failed on the last retry that the rule allows");
  }
  retryOverflowed(why: keyof typeof NOT_RETRIED): void {
    this.#count(`not retried: ${NOT_RETRIED[why]}`);
  }
  timedOut(kind: TimeoutKind): void {
    this.#count(`ended by the ${kind} timeout`);
  }
  limitReached(limit: string): void {
    this.#count(`refused at ${limit}`);
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }
}

/** How virtual time is divided: the phases around the failures, and even bins for curves. */
export class Timeline {
  readonly durationMs: number;
  readonly binMs: number;
  readonly bins: number;
  /** Starts of phases, ascending, the first at 0. */
  readonly phases: readonly { readonly name: string; readonly fromMs: number; readonly toMs: number }[];

  constructor(durationMs: number, failures: readonly { atMs: number; forMs: number }[]) {
    this.durationMs = durationMs;
    this.binMs = Math.max(100, durationMs / BINS);
    this.bins = Math.ceil(durationMs / this.binMs);
    const fromMs = Math.min(durationMs, ...failures.map((failure) => failure.atMs));
    const toMs = Math.min(
      durationMs,
      Math.max(0, ...failures.map((failure) => failure.atMs + failure.forMs)),
    );
    this.phases =
      failures.length === 0
        ? [{ name: "all", fromMs: 0, toMs: durationMs }]
        : [
            { name: "before", fromMs: 0, toMs: fromMs },
            { name: "during", fromMs, toMs },
            { name: "after", fromMs: toMs, toMs: durationMs },
          ].filter((phase) => phase.toMs > phase.fromMs);
  }

  phaseAt(atMs: number): number {
    for (let i = this.phases.length - 1; i > 0; i--) if (atMs >= this.phases[i]!.fromMs) return i;
    return 0;
  }

  binAt(atMs: number): number {
    return Math.min(this.bins - 1, Math.floor(atMs / this.binMs));
  }
}

/** Counts by phase and by bin. */
export class Counts {
  readonly phases: Float64Array;
  readonly bins: Float64Array;
  readonly #timeline: Timeline;

  constructor(timeline: Timeline) {
    this.#timeline = timeline;
    this.phases = new Float64Array(timeline.phases.length);
    this.bins = new Float64Array(timeline.bins);
  }

  add(atMs: number): void {
    this.phases[this.#timeline.phaseAt(atMs)]!++;
    this.bins[this.#timeline.binAt(atMs)]!++;
  }

  get total(): number {
    return this.phases.reduce((sum, count) => sum + count, 0);
  }
}

/** Requests from one workload to one service. */
export class Flow {
  readonly from: string;
  readonly to: string;
  readonly phases: readonly Tally[];
  readonly bins: readonly Tally[];
  readonly #timeline: Timeline;

  constructor(from: string, to: string, timeline: Timeline) {
    this.from = from;
    this.to = to;
    this.#timeline = timeline;
    this.phases = timeline.phases.map(() => new Tally());
    this.bins = Array.from({ length: timeline.bins }, () => new Tally());
  }

  /** Counted when they began. */
  ended(startedAtMs: number, outcome: string, tookMs: number): void {
    this.phases[this.#timeline.phaseAt(startedAtMs)]!.ended(outcome, tookMs);
    this.bins[this.#timeline.binAt(startedAtMs)]!.ended(outcome, tookMs);
  }
}

const BINS = 120;

const NOT_RETRIED = {
  budget: "the budget was spent",
  behind: "what failed is out of retries itself",
  body: "the body was not kept",
} as const;
