import type { ConcurrencyLimit } from "#/model/traffic.ts";

/** "high" before "normal" before "low"; anything else is "normal". */
export type Priority = "high" | "normal" | "low";

/** So much of the limit each may fill: what is above is kept for those who come before. */
const SHARES: Readonly<Record<Priority, number>> = { high: 1, normal: 0.9, low: 0.7 };

/** A window of latencies is over after so long, once it has so many; and at any rate after the longest time. */
const WINDOW_MS = 100;
const WINDOW_SAMPLES_MIN = 10;
const WINDOW_MS_MAX = 1_000;
/** Latencies kept of one window, evenly over all that came. */
const SAMPLES_MAX = 128;
/** Latency may rise by so much over the baseline before the limit falls. */
const TOLERANCE = 1.25;
const TOLERANCE_MS = 2;
/** The limit falls in one window to half at the most, and moves this part of the way. */
const GRADIENT_MIN = 0.5;
const SMOOTHING = 0.3;
/**
 * The baseline is taken anew so often: one window at a quarter of the limit lets the queue of our own making go, and in the next,
 * still at a quarter, is measured.
 */
const BASELINE_MS = 30_000;
const BASELINE_FIRST_MS = 1_000;
const BASELINE_WINDOWS = 2;
const BASELINE_SHARE = 1 / 4;

/**
 * How many requests an application can have under way before they only queue, found from its latency: the gradient algorithm
 * of Netflix's concurrency-limits and of Envoy's adaptive concurrency filter. In each window the median latency is held
 * against a baseline, the median when there was no queue:
 *
 *     gradient = tolerated baseline / median, between 1/2 and 1        limit ← limit · gradient + √limit
 *
 * so that the limit grows while latency stays near the baseline and falls in proportion once requests queue; √limit is the
 * queue that is accepted, and what lets the limit grow again. It does not grow while less than half of it is in use.
 *
 * Pure: time and latencies come in as arguments. Always within `limitMin` and `limitMax`.
 */
export class ConcurrencyLimiter {
  #settings: ConcurrencyLimit;
  #limit: number;
  #underWay = 0;
  /** Largest number under way in this window. */
  #peak = 0;
  #samples: number[] = [];
  #seen = 0;
  #windowAtMs: number;
  #baselineMs = 0;
  #baselineAtMs: number;
  /** Of the limit that holds while the baseline is taken; null at other times. */
  #before: number | null = null;
  #baselineWindows = 0;

  constructor(settings: ConcurrencyLimit, nowMs: number) {
    this.#settings = settings;
    this.#limit = clamp(LIMIT_FIRST, settings);
    this.#windowAtMs = nowMs;
    this.#baselineAtMs = nowMs + BASELINE_FIRST_MS - BASELINE_MS;
  }

  get limit(): number {
    return Math.floor(this.#limit);
  }

  get underWay(): number {
    return this.#underWay;
  }

  /** 0 until it is known. */
  get baselineMs(): number {
    return this.#baselineMs;
  }

  /** What was learnt stays, within the new bounds. */
  update(settings: ConcurrencyLimit): void {
    this.#settings = settings;
    this.#limit = clamp(this.#limit, settings);
    if (this.#before !== null) this.#before = clamp(this.#before, settings);
  }

  /** Begins a request if it may; then `over` has to be called once. */
  begin(priority: Priority): boolean {
    // One may always be under way, or nothing would ever be learnt.
    if (this.#underWay >= Math.max(1, this.#limit * SHARES[priority])) return false;
    this.#underWay++;
    if (this.#underWay > this.#peak) this.#peak = this.#underWay;
    return true;
  }

  over(): void {
    this.#underWay--;
  }

  /** How long an application took to answer. Failures are no measure: they may be quick because nothing was done. */
  observe(latencyMs: number, nowMs: number): void {
    this.#seen++;
    if (this.#samples.length < SAMPLES_MAX) this.#samples.push(latencyMs);
    // Later ones take the places in turn, so that the whole window is represented.
    else this.#samples[this.#seen % SAMPLES_MAX] = latencyMs;
    const elapsedMs = nowMs - this.#windowAtMs;
    if (elapsedMs < WINDOW_MS || (this.#seen < WINDOW_SAMPLES_MIN && elapsedMs < WINDOW_MS_MAX)) return;
    this.#adjust(nowMs);
    this.#samples = [];
    this.#seen = 0;
    this.#peak = this.#underWay;
    this.#windowAtMs = nowMs;
  }

  #adjust(nowMs: number): void {
    const medianMs = median(this.#samples);
    if (this.#before !== null) {
      if (++this.#baselineWindows < BASELINE_WINDOWS) return;
      this.#baselineMs = medianMs;
      this.#limit = this.#before;
      this.#before = null;
      return;
    }
    if (this.#baselineMs === 0 || medianMs < this.#baselineMs) this.#baselineMs = medianMs;
    if (nowMs - this.#baselineAtMs >= BASELINE_MS) {
      this.#baselineAtMs = nowMs;
      this.#before = this.#limit;
      this.#baselineWindows = 0;
      this.#limit = clamp(this.#limit * BASELINE_SHARE, this.#settings);
      return;
    }
    const tolerated = this.#baselineMs * TOLERANCE + TOLERANCE_MS;
    const gradient = Math.max(GRADIENT_MIN, Math.min(1, tolerated / Math.max(medianMs, 0.001)));
    const next = this.#limit * gradient + Math.sqrt(this.#limit);
    if (next > this.#limit && this.#peak < this.#limit / 2) return;
    this.#limit = clamp(this.#limit + SMOOTHING * (next - this.#limit), this.#settings);
  }
}

function clamp(limit: number, { limitMin, limitMax }: ConcurrencyLimit): number {
  return Math.max(1, limitMin, Math.min(limitMax, limit));
}

function median(samples: readonly number[]): number {
  return samples.toSorted((a, b) => a - b)[samples.length >> 1] as number;
}

export function priorityOf(value: string | null): Priority {
  return value === "high" || value === "low" ? value : "normal";
}

/** Before anything was measured. */
const LIMIT_FIRST = 20;
