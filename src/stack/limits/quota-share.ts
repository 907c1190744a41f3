import type { RateLimit } from "#/model/traffic.ts";
import type { Bucket, Rate } from "./bucket.ts";
import { isFull, rateOf, take, waitMs } from "./bucket.ts";

/** What a sidecar says of one share, in one report. All counts are of requests. */
export interface ShareReport {
  /** Given before and not used yet. */
  readonly held: number;
  /** Given before and handed back herewith; not part of `held`. */
  readonly returned: number;
  /** Wanted on top of `held`. */
  readonly wanted: number;
  /** Arriving, whether or not admitted. */
  readonly demandPerSecond: number;
  /** Admitted since the last report without having been given. */
  readonly overdraft: number;
}

export interface ShareGrant {
  readonly granted: number;
  /** When `granted` is less than wanted: earliest time from now at which there may be more. */
  readonly waitMs: number;
  /** Pods that share the limit at this moment, at least 1. */
  readonly replicas: number;
}

/** What was given and not used is void so long after the report that it was given for was sent. */
export const LEASE_MS = 1_000;
/** How quickly the demand that is reported follows the one that is. */
const DEMAND_MEMORY_MS = 1_000;
/** Stock, in the time between two reports: what comes until the next answer. More is asked for when it comes. */
const STOCK_INTERVALS = 1.25;
/** Below this nothing is asked for, and the share is idle. */
const IDLE_PER_SECOND = 0.01;

/** An equal part may be used unevenly over this time, as the bucket of all may. */
const ALONE_BURST_MS = 400;

/** `look` says so where only the control plane can tell. */
export const ASK = -1;

/**
 * One sidecar's part of a global rate limit, for one key. The control plane gives requests in advance, a few at a time,
 * from one bucket for all sidecars, and what is not used goes back soon: so the sum stays within the bucket however the
 * load is spread. Where it cannot be asked, the sidecar keeps to an equal part of the limit by itself.
 */
export class QuotaShare {
  #limit: RateLimit;
  #held = 0;
  #voidAtMs = 0;
  #noneUntilMs = 0;
  #replicas = 1;
  #arrivals = 0;
  #demandPerMs = 0;
  #reportedAtMs: number;
  #overdraft = 0;
  #overdraftReported = 0;
  /** Since when it goes by its equal part, which is kept in `#local`; null: the control plane gives. */
  #aloneSinceMs: number | null = null;
  readonly #local: Bucket = { earnedAtMs: 0 };
  /** Requests that wait for an answer. */
  waiting = 0;

  constructor(limit: RateLimit, nowMs: number) {
    this.#limit = limit;
    this.#reportedAtMs = nowMs;
  }

  get limit(): RateLimit {
    return this.#limit;
  }

  set limit(limit: RateLimit) {
    this.#limit = limit;
  }

  get isAlone(): boolean {
    return this.#aloneSinceMs !== null;
  }

  arrived(nowMs: number): void {
    // The quiet before the first one says nothing of what is coming.
    if (this.#arrivals === 0 && this.#demandPerMs === 0) this.#reportedAtMs = nowMs;
    this.#arrivals++;
  }

  /** 0: one more request fits; `ASK`: the control plane has to be asked; else how long until one may fit. */
  look(nowMs: number): number {
    if (nowMs >= this.#voidAtMs) this.#held = 0;
    if (this.#held >= 1) return 0;
    if (this.#aloneSinceMs !== null) return waitMs(this.#local, this.#equalPart, nowMs);
    return nowMs < this.#noneUntilMs ? this.#noneUntilMs - nowMs : ASK;
  }

  /** Admits one, after `look` has said 0. */
  take(nowMs: number): void {
    if (this.#held >= 1) {
      this.#held--;
      return;
    }
    take(this.#local, this.#equalPart, nowMs);
    this.#overdraft++;
  }

  /** The control plane does not answer, or does not know this limit. */
  leftAlone(nowMs: number): void {
    if (this.#aloneSinceMs !== null) return;
    this.#aloneSinceMs = nowMs;
    const { intervalMs, burst } = this.#equalPart;
    // No burst on top of what was given before; but a sidecar that never heard anything has had none.
    if (this.#voidAtMs > 0 && intervalMs !== Infinity)
      this.#local.earnedAtMs = Math.max(this.#local.earnedAtMs, nowMs + (burst - 1) * intervalMs);
  }

  /** There is nothing to say or to ask. */
  isIdle(nowMs: number): boolean {
    return (
      this.#arrivals === 0 &&
      this.waiting === 0 &&
      this.#overdraft === 0 &&
      (this.#held < 1 || nowMs >= this.#voidAtMs) &&
      this.#demandPerMs * 1_000 < IDLE_PER_SECOND
    );
  }

  /** Idle, and as if it had just been made. */
  isFresh(nowMs: number): boolean {
    return this.isIdle(nowMs) && isFull(this.#local, nowMs) && nowMs >= this.#noneUntilMs;
  }

  /** `intervalMs`: until the next report. */
  report(nowMs: number, intervalMs: number): ShareReport {
    this.#observe(nowMs);
    if (nowMs >= this.#voidAtMs) this.#held = 0;
    const stock = Math.ceil(this.waiting + this.#demandPerMs * STOCK_INTERVALS * intervalMs);
    const returned = Math.max(0, this.#held - stock);
    this.#held -= returned;
    this.#overdraftReported = this.#overdraft;
    return {
      held: this.#held,
      returned,
      wanted: Math.max(0, stock - this.#held),
      demandPerSecond: this.#demandPerMs * 1_000,
      overdraft: this.#overdraft,
    };
  }

  /** What was answered to the report sent at `sentAtMs`. */
  granted({ granted, waitMs, replicas }: ShareGrant, wanted: number, sentAtMs: number, nowMs: number): void {
    this.#aloneSinceMs = null;
    this.#overdraft -= this.#overdraftReported;
    this.#overdraftReported = 0;
    this.#held += granted;
    // From when it was sent, so that it ends here before the control plane takes it to have ended.
    this.#voidAtMs = sentAtMs + LEASE_MS;
    this.#noneUntilMs = granted < wanted ? nowMs + waitMs : 0;
    this.#replicas = Math.max(1, replicas);
  }

  #observe(nowMs: number): void {
    const elapsedMs = nowMs - this.#reportedAtMs;
    if (elapsedMs <= 0) return;
    const weight = 1 - Math.exp(-elapsedMs / DEMAND_MEMORY_MS);
    this.#demandPerMs += weight * (this.#arrivals / elapsedMs - this.#demandPerMs);
    this.#arrivals = 0;
    this.#reportedAtMs = nowMs;
    if (this.#demandPerMs * 1_000 < IDLE_PER_SECOND) this.#demandPerMs = 0;
  }

  get #equalPart(): Rate {
    const { requests, windowMs, burst } = this.#limit;
    const size = Math.max(burst, (requests / windowMs) * ALONE_BURST_MS);
    return rateOf(requests / this.#replicas, windowMs, size / this.#replicas);
  }
}
