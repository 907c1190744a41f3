import type { Random } from "#/base/random.ts";

/** From the beginning of the first attempt to that of the last. */
export const RECONNECT_WAIT_MS = 1_000;
const BACKOFF_MS_MIN = 50;
/** A rest that is shorter is none: timers are not finer. */
const LEFT_MS_MIN = 1;

/**
 * How long a request, or a connection, that no endpoint has taken yet waits before it is tried once more: 50 ms, doubling, with
 * jitter, up to its deadline, when it is tried for the last time. Endpoints that restart, and changes of the set that are on their
 * way to us, are over in less.
 */
export class ReconnectWait {
  readonly #random: Random;
  readonly #deadlineMs: number;
  #waits = 0;

  constructor(random: Random, deadlineMs: number) {
    this.#random = random;
    this.#deadlineMs = deadlineMs;
  }

  /** Milliseconds until the next attempt; null once the deadline is over. */
  nextMs(nowMs: number): number | null {
    const leftMs = this.#deadlineMs - nowMs;
    if (leftMs < LEFT_MS_MIN) return null;
    const backoffMs = BACKOFF_MS_MIN * 2 ** this.#waits++ * (0.75 + 0.5 * this.#random.next());
    return Math.min(backoffMs, leftMs);
  }
}
