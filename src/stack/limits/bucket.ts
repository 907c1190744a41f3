/** How fast requests may come, and how many at once. */
export interface Rate {
  /** One request is earned in this time; Infinity: none ever. */
  readonly intervalMs: number;
  /** Requests that may come at once, at least 1. */
  readonly burst: number;
}

export function rateOf(requests: number, windowMs: number, burst: number): Rate {
  return { intervalMs: requests > 0 ? windowMs / requests : Infinity, burst: Math.max(1, burst) };
}

/**
 * A token bucket kept as one number, by the generic cell rate algorithm (ITU-T I.371, virtual scheduling): the time at which
 * all that was taken will have been earned. A bucket that was never used is full, and so is each whose time has come: it may
 * be forgotten without anybody getting more.
 */
export interface Bucket {
  /** On the clock of whoever asks. */
  earnedAtMs: number;
}

/** How long until one more request fits; 0: now. */
export function waitMs({ earnedAtMs }: Bucket, rate: Rate, nowMs: number): number {
  const { intervalMs, burst } = rate;
  if (intervalMs === Infinity) return Infinity;
  const waitMs = Math.max(earnedAtMs, nowMs) + intervalMs - burst * intervalMs - nowMs;
  return waitMs <= ROUNDING_MS ? 0 : waitMs;
}

/** Takes one, whether or not it fits. */
export function take(bucket: Bucket, rate: Rate, nowMs: number): void {
  if (rate.intervalMs === Infinity) return;
  bucket.earnedAtMs = Math.max(bucket.earnedAtMs, nowMs) + rate.intervalMs;
}

/** Keeps how many were taken where the rate has changed. */
export function convert(bucket: Bucket, before: Rate, after: Rate, nowMs: number): void {
  const owedMs = bucket.earnedAtMs - nowMs;
  if (owedMs <= 0 || before.intervalMs === Infinity || after.intervalMs === Infinity) return;
  bucket.earnedAtMs = nowMs + Math.min(owedMs / before.intervalMs, after.burst) * after.intervalMs;
}

export function isFull({ earnedAtMs }: Bucket, nowMs: number): boolean {
  return earnedAtMs <= nowMs;
}

/** Sums of thirds of milliseconds do not come out even. */
const ROUNDING_MS = 1e-6;
