import type { Clock } from "#/base/clock.ts";

/** Something that may have to be ended because nothing happens on it. */
export interface Patrolled {
  look(nowMs: number): void;
}

const ROUND_MS = 1_000;

/**
 * Goes by every connection once a second. Limits of seconds need no timer each: a connection notes nothing on its byte path, and
 * compares at each look what it counts anyway with what it was at the last. Bounded by the bound on connections.
 */
export class Patrol {
  readonly #clock: Clock;
  readonly #members = new Set<Patrolled>();
  #isWalking = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(member: Patrolled): void {
    this.#members.add(member);
    if (!this.#isWalking) this.#nextRound();
  }

  remove(member: Patrolled): void {
    this.#members.delete(member);
  }

  #nextRound(): void {
    this.#isWalking = this.#members.size > 0;
    if (!this.#isWalking) return;
    this.#clock.after(ROUND_MS, () => {
      const nowMs = this.#clock.nowMs();
      for (const member of this.#members) member.look(nowMs);
      this.#nextRound();
    });
  }
}

/** For how long a count has grown by less than it should, as seen at each look. */
export class Lag {
  #what = 0;
  #mark = 0;
  #sinceMs = -1;

  /**
   * Milliseconds since `count` last grew by `least`; counted anew when `what`, any number for what is waited for, is
   * another than at the last look. At most one round of the patrol less than it is.
   */
  look(nowMs: number, what: number, count: number, least: number): number {
    if (this.#sinceMs < 0 || what !== this.#what || count - this.#mark >= least) {
      this.#what = what;
      this.#mark = count;
      this.#sinceMs = nowMs;
    }
    return nowMs - this.#sinceMs;
  }

  /** Nothing is waited for. */
  clear(): void {
    this.#sinceMs = -1;
  }
}
