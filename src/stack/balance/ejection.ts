import type { Random } from "#/base/random.ts";

const BACKOFF_MS_MIN = 100;
const BACKOFF_MS_MAX = 10_000;

/**
 * Passive ejection of an endpoint that could not be connected to: set aside for 100 ms, doubling to 10 s, with jitter;
 * the first success takes it back in. Setting aside is a preference, never a verdict: when nobody else is left, an
 * ejected endpoint is tried all the same.
 */
export class Ejection {
  readonly #random: Random;
  #failures = 0;
  /** Not to be preferred before this time. 0: in. */
  untilMs = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Failures while it is set aside are the same one: many requests may have waited for one connection. */
  failed(nowMs: number): void {
    if (nowMs < this.untilMs) return;
    const backoffMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(this.#failures, 10));
    this.#failures++;
    this.untilMs = nowMs + backoffMs * (0.75 + 0.5 * this.#random.next());
  }

  succeeded(): void {
    this.#failures = 0;
    this.untilMs = 0;
  }
}
