import type { Clock } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";

/** Renew at this share of a certificate's life, less up to `JITTER` of it so that a fleet does not come at once. */
const RENEW_AT = 0.7;
const JITTER = 0.1;
/** However short a life is. */
const RENEW_MS_MIN = 1000;
/** How soon a jump of the wall clock is noticed. */
export const LOOK_EVERY_MS = 30_000;

/**
 * How much of a certificate's life is left, and when to renew it. Peers go by the calendar, which may be set forward (then it ends
 * sooner than we had reckoned) or back (then the peers' calendars need not be): so the lesser of what the wall clock and the monotonic
 * one leave counts. A jump brings one renewal forward at most, for the next certificate is measured anew.
 */
export class CertificateLife {
  readonly #clock: Clock;
  readonly #random: Random;
  #notAfterMs = 0;
  #lifeMs = 0;
  /** By the monotonic clock. */
  #endsAtMs = 0;
  #beganAtMs = 0;
  #renewBelowMs = 0;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** A certificate has come. Its life is what is left of it now: it may have begun in the past, for clocks that are behind. */
  begin(notAfterMs: number): void {
    const nowMs = this.#clock.nowMs();
    this.#notAfterMs = notAfterMs;
    this.#lifeMs = Math.max(1, notAfterMs - this.#clock.wallMs());
    this.#beganAtMs = nowMs;
    this.#endsAtMs = nowMs + this.#lifeMs;
    this.#renewBelowMs = this.#lifeMs * (1 - RENEW_AT * (1 - JITTER * this.#random.next()));
  }

  /** Wall-clock end; 0 before the first. */
  get notAfterMs(): number {
    return this.#notAfterMs;
  }

  /** Below 0 past the end. */
  get leftMs(): number {
    return Math.min(this.#notAfterMs - this.#clock.wallMs(), this.#endsAtMs - this.#clock.nowMs());
  }

  /** 1 at the beginning, 0 or less past the end. */
  get leftShare(): number {
    return this.#lifeMs === 0 ? 0 : this.leftMs / this.#lifeMs;
  }

  /** 0 when it is time to renew. */
  get dueInMs(): number {
    const youngMs = this.#beganAtMs + RENEW_MS_MIN - this.#clock.nowMs();
    return Math.max(0, this.leftMs - this.#renewBelowMs, youngMs);
  }
}
