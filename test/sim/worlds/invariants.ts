/** What must hold in every world, whatever happens in it. */
import { fieldValue } from "#/base/fields.ts";
import type { RetryBudget } from "#/model/traffic.ts";
import { REQUEST_NUMBER } from "#/sim/plan.ts";
import type { Observer, Sent, SimPod, World } from "#/sim/world.ts";
import type { RandomWorld, Split } from "./random-world.ts";
import { MIRROR } from "./random-world.ts";

/** How often standing state is looked at. */
const LOOK_MS = 50;
/** A split is judged when it was drawn so often. */
const DRAWS_MIN = 200;
/** … and its share may be so many standard deviations off: once in two million splits by chance. */
const DEVIATIONS_MAX = 5.1;
/** Between the decision to retry and the retry: backoff, and the wait for an endpoint. */
const DECIDED_MS = 5_000;

/**
 * Watches a world and reports what breaks its promises:
 *
 * - every request is answered exactly once, and nothing is left when all is over (the world itself sees to that);
 * - no answer comes later than the route's timeout and its resolution (`CallPlan.boundMs`);
 * - a client's retries to a service stay within its budget, over any interval;
 * - never more endpoints are set aside for their failures than the ejection floor leaves;
 * - a client has at most as many requests under way to a service as its limit says;
 * - a pod takes in what its rate limit says, and as much at once as its concurrency limit says;
 * - requests go where a rule that takes them leads, and are split as the weights say.
 */
export class Invariants implements Observer {
  readonly #world: World;
  readonly #made: RandomWorld;
  readonly #budgets = new Map<string, BudgetWatch>();
  /** By request and service: whether its last attempt there came back untouched. */
  readonly #attempts = new Map<string, { isGivenBack: boolean }>();
  /** When requests came in at pods with a rate limit. */
  readonly #arrivals = new Map<SimPod, number[]>();
  readonly #splits: SplitWatch[];
  /** Prints each event; null: nobody wants to know. */
  readonly #trace: ((line: string) => void) | null;
  /** From which service's request each number came: for the splits. */
  readonly #target = new Map<string, string>();

  constructor(world: World, made: RandomWorld, trace: ((line: string) => void) | null) {
    this.#world = world;
    this.#made = made;
    this.#trace = trace;
    this.#splits = made.splits.map((split) => new SplitWatch(split));
    world.observer = this;
    this.#look();
  }

  /** To be called when the world has come to its end. */
  finish(): void {
    for (const split of this.#splits) {
      const complaint = split.complaint();
      if (complaint !== null) this.#world.violated(complaint);
    }
  }

  called(from: SimPod, to: string, head: Sent["head"]): void {
    this.#tell(`${from.plan.name} → ${to} #${numberOf(head)}`);
    this.#target.set(numberOf(head), to);
    // Which backend it is drawn for shows later, or never: it is counted for each.
    for (const path of this.#made.backends.get(to)!) this.#budgetOf(from, path).request(this.#world.nowMs);
  }

  ended(from: SimPod, to: string, head: Sent["head"], outcome: string, tookMs: number): void {
    this.#tell(`${from.plan.name} → ${to} #${numberOf(head)}: ${outcome} after ${tookMs.toFixed(3)} ms`);
  }

  sent(sent: Sent): void {
    const { from, head, service, to } = sent;
    const { path } = service.plan;
    const number = numberOf(head);
    this.#tell(`  ${from.plan.name} sends #${number} to ${to.plan.name}`);
    const { requestsMax } = this.#made.traffic.get(path)!.limits;
    const underWay = from.underWayTo.get(path)!;
    if (requestsMax > 0 && underWay > requestsMax)
      this.#world.violated(
        `${from.plan.name}: ${underWay} requests under way to ${path}, at most ${requestsMax} allowed`,
      );
    // A copy is no attempt of the request.
    if (path === MIRROR) return;
    const target = this.#target.get(number);
    if (target !== undefined && !this.#made.backends.get(target)!.includes(path))
      this.#world.violated(
        `#${number}, meant for ${target}, went to ${path}, where no rule that takes it leads`,
      );
    const request = `${number} ${path}`;
    const before = this.#attempts.get(request);
    if (before === undefined) {
      this.#attempts.set(request, { isGivenBack: false });
      for (const split of this.#splits) if (split.split.path === target) split.drawn(number, path);
      return;
    }
    // An endpoint that gave it back untouched is exchanged for another, which is no retry: nobody saw the request.
    const isRetry = !before.isGivenBack;
    before.isGivenBack = false;
    const complaint = isRetry ? this.#budgetOf(from, path).retry(this.#world.nowMs) : null;
    if (complaint !== null) this.#world.violated(`${from.plan.name} to ${path}: ${complaint}`);
  }

  arrived(at: SimPod, head: Sent["head"]): void {
    this.#tell(`  ${at.plan.name} has #${numberOf(head)}`);
    const rate = at.workload.plan.inbound?.rates[0];
    if (rate === undefined) return;
    const times = this.#arrivals.get(at) ?? [];
    if (times.length === 0) this.#arrivals.set(at, times);
    times.push(this.#world.nowMs);
    const count = countSince(times, this.#world.nowMs - rate.windowMs);
    const allowed = rate.burst + rate.requests + 1;
    if (count > allowed)
      this.#world.violated(
        `${at.plan.name} took in ${count} requests within ${rate.windowMs} ms, at most ${allowed} allowed`,
      );
  }

  givenBack(service: Sent["service"], head: Sent["head"]): void {
    this.#tell(`  #${numberOf(head)} is given back`);
    const attempt = this.#attempts.get(`${numberOf(head)} ${service.plan.path}`);
    if (attempt !== undefined) attempt.isGivenBack = true;
  }

  noted(what: string): void {
    this.#tell(what);
  }

  #budgetOf(from: SimPod, path: string): BudgetWatch {
    const key = `${from.plan.name} ${path}`;
    let budget = this.#budgets.get(key);
    if (budget === undefined) {
      budget = new BudgetWatch(this.#made.traffic.get(path)!.retryBudget);
      this.#budgets.set(key, budget);
    }
    return budget;
  }

  #look(): void {
    const { clock, plan } = this.#world;
    for (const pod of this.#world.pods) {
      const underWay = pod.limits?.concurrency?.underWay ?? 0;
      const most = pod.workload.plan.inbound?.concurrency?.limitMax ?? 0;
      if (underWay > most)
        this.#world.violated(
          `${pod.plan.name}: ${underWay} requests are admitted at once, at most ${most} allowed`,
        );
      for (const [path, { dispatch }] of pod.outbound.dispatches) {
        const { members } = dispatch.balancer;
        const aside = members.filter(({ standing }) => standing.aside === "failing").length;
        const left = Math.ceil(members.length * this.#made.traffic.get(path)!.ejectionFloor);
        if (members.length > 0 && members.length - aside < left)
          this.#world.violated(
            `${pod.plan.name}: ${aside} of ${members.length} endpoints of ${path} are set aside, at least ${left} must not be`,
          );
      }
    }
    if (clock.nowMs() < plan.durationMs) clock.after(LOOK_MS, () => this.#look());
  }

  #tell(line: string): void {
    this.#trace?.(`${this.#world.nowMs.toFixed(3).padStart(10)} ${line}`);
  }
}

function numberOf(head: Sent["head"]): string {
  return fieldValue(head.fields, REQUEST_NUMBER) ?? "?";
}

/** Retries of one client to one service, over any interval. */
class BudgetWatch {
  readonly #budget: RetryBudget;
  readonly #requests: number[] = [];
  readonly #retries: number[] = [];

  constructor(budget: RetryBudget) {
    this.#budget = budget;
  }

  request(nowMs: number): void {
    this.#requests.push(nowMs);
  }

  /** Null: it may be. */
  retry(nowMs: number): string | null {
    this.#retries.push(nowMs);
    return this.#complaint(nowMs, this.#budget.intervalMs) ?? this.#complaint(nowMs, nowMs);
  }

  /**
   * The last retry that the share allowed had, with all of the interval up to it, at most that share of the interval's requests. So
   * had the last one before that interval, and so on: intervals that do not overlap. Whatever lies in none of them came from the floor.
   */
  #complaint(nowMs: number, withinMs: number): string | null {
    const { floorCount, floorIntervalMs, intervalMs, percent } = this.#budget;
    const retries = countSince(this.#retries, nowMs - withinMs);
    const requests = countSince(this.#requests, nowMs - withinMs - DECIDED_MS - intervalMs);
    const floor = floorCount * (Math.ceil((withinMs + DECIDED_MS) / floorIntervalMs) + 1);
    const allowed = Math.floor((percent * requests) / 100) + floor;
    if (retries <= allowed) return null;
    return `${retries} retries within ${withinMs.toFixed(0)} ms, at most ${allowed} allowed (${percent} % of ${requests} requests, and ${floor})`;
  }
}

function countSince(times: readonly number[], sinceMs: number): number {
  let from = times.length;
  while (from > 0 && times[from - 1]! > sinceMs) from--;
  return times.length - from;
}

/** The first draw of each request, whatever became of it. */
class SplitWatch {
  readonly split: Split;
  readonly #drawn = new Map<string, number>();
  readonly #seen = new Set<string>();
  #draws = 0;

  constructor(split: Split) {
    this.split = split;
  }

  drawn(number: string, path: string): void {
    // A retry may be drawn anew: it is no draw of its own here.
    if (this.#seen.has(number)) return;
    this.#seen.add(number);
    this.#draws++;
    this.#drawn.set(path, (this.#drawn.get(path) ?? 0) + 1);
  }

  complaint(): string | null {
    const { path: target, weights } = this.split;
    const draws = this.#draws;
    if (draws < DRAWS_MIN) return null;
    const sum = [...weights.values()].reduce((total, weight) => total + weight, 0);
    for (const [path, weight] of weights) {
      const share = weight / sum;
      const count = this.#drawn.get(path) ?? 0;
      const deviation = Math.sqrt(draws * share * (1 - share));
      if (Math.abs(count - draws * share) > DEVIATIONS_MAX * deviation)
        return `${path} got ${count} of ${draws} requests to ${target}, where its weight says ${(draws * share).toFixed(0)}`;
    }
    return null;
  }
}
