import type { Random } from "#/base/random.ts";
import type { FailureAccrual } from "#/model/traffic.ts";

/**
 * Why an endpoint is set aside: no connection to it can be made, or its answers failed (`FailureAccrual`). The first is a fact, and
 * known at once; the second a judgement, so the ejection floor bounds it.
 */
export type Aside = "no" | "unreachable" | "failing";

const RECONNECT_MS_MIN = 100;
const RECONNECT_MS_MAX = 10_000;
const DOUBLINGS_MAX = 20;

/** How one endpoint stands: in use, or set aside until a time, after which one request may try it. */
export class Standing {
  aside: Aside = "no";
  /** Not to be preferred before this time. 0: it is in use. */
  untilMs = 0;
  /** When it was set aside, or failed again since. Only answers to requests begun later say how it is now. */
  sinceMs = 0;
  /** When the request began that tries it; -1: none does. */
  probedAtMs = -1;
  failuresInARow = 0;
  /** Null until it is needed. */
  #window: OutcomeWindow | null = null;
  /** Times that it was set aside since its last success. */
  #times = 0;

  /** Set aside for 100 ms, doubling to 10 s, a quarter more or less by chance. */
  unreachable(nowMs: number, random: Random): void {
    const backoffMs = Math.min(
      RECONNECT_MS_MAX,
      RECONNECT_MS_MIN * 2 ** Math.min(this.#times, DOUBLINGS_MAX),
    );
    this.#setAside(
      this.aside === "failing" ? "failing" : "unreachable",
      nowMs,
      backoffMs * (0.75 + 0.5 * random.next()),
    );
  }

  /** `pauseMs`: what the endpoint itself asked for; 0: nothing. */
  failing(nowMs: number, { backoff }: FailureAccrual, pauseMs: number, random: Random): void {
    const backoffMs = Math.min(backoff.maxMs, backoff.minMs * 2 ** Math.min(this.#times, DOUBLINGS_MAX));
    const jitteredMs = backoffMs * (1 + backoff.jitterRatio * random.next());
    this.#setAside("failing", nowMs, Math.max(jitteredMs, pauseMs));
  }

  /** A success begins everything anew. */
  readmit(): void {
    this.aside = "no";
    this.untilMs = 0;
    this.probedAtMs = -1;
    this.failuresInARow = 0;
    this.#times = 0;
    this.#window?.clear();
  }

  /** In use again, but one more failure is one too many, and the pause goes on doubling: no success has been seen yet. */
  readmitOnTrial(): void {
    this.aside = "no";
    this.untilMs = 0;
    this.probedAtMs = -1;
  }

  /** Counts an answer and says whether it is one failure too many. */
  counts(isFailure: boolean, accrual: FailureAccrual, nowMs: number): boolean {
    if (isFailure) this.failuresInARow++;
    else {
      this.failuresInARow = 0;
      this.#times = 0;
    }
    let isTooMany =
      isFailure && accrual.consecutiveFailures > 0 && this.failuresInARow >= accrual.consecutiveFailures;
    if (accrual.successRateMin > 0) {
      this.#window ??= new OutcomeWindow();
      this.#window.add(isFailure, nowMs, accrual.windowMs);
      isTooMany ||= isFailure && this.#window.isBelow(accrual.successRateMin, accrual.requestsMin);
    }
    return isTooMany;
  }

  #setAside(aside: Aside, nowMs: number, pauseMs: number): void {
    this.aside = aside;
    this.sinceMs = nowMs;
    this.untilMs = nowMs + pauseMs;
    this.probedAtMs = -1;
    this.#times++;
  }
}

const BUCKETS = 10;

/** Successes and failures of the last while, in ten steps. */
class OutcomeWindow {
  readonly #failures = new Uint32Array(BUCKETS);
  readonly #all = new Uint32Array(BUCKETS);
  /** Number of the newest bucket since time began. */
  #newest = 0;

  add(isFailure: boolean, nowMs: number, windowMs: number): void {
    const bucket = Math.floor((nowMs * BUCKETS) / Math.max(1, windowMs));
    const passed = bucket - this.#newest;
    if (passed < 0 || passed >= BUCKETS) this.clear();
    else for (let at = this.#newest + 1; at <= bucket; at++) this.#empty(at % BUCKETS);
    this.#newest = bucket;
    const at = bucket % BUCKETS;
    this.#all[at] = (this.#all[at] as number) + 1;
    if (isFailure) this.#failures[at] = (this.#failures[at] as number) + 1;
  }

  isBelow(successRateMin: number, requestsMin: number): boolean {
    let all = 0;
    let failures = 0;
    for (let at = 0; at < BUCKETS; at++) {
      all += this.#all[at] as number;
      failures += this.#failures[at] as number;
    }
    return all >= Math.max(1, requestsMin) && all - failures < successRateMin * all;
  }

  clear(): void {
    this.#failures.fill(0);
    this.#all.fill(0);
  }

  #empty(at: number): void {
    this.#failures[at] = 0;
    this.#all[at] = 0;
  }
}
