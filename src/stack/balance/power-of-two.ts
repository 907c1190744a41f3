import type { Random } from "#/base/random.ts";
import type { Member } from "./member.ts";
import type { Picker, Pool } from "./pool.ts";

/**
 * Power of two choices (M. Mitzenmacher 1996): of two members drawn at random the less loaded one is taken, so that load spreads
 * without every sidecar flocking to the one best endpoint. Load is peak-EWMA latency times requests under way (facts §12), or the
 * requests alone.
 *
 * Members of unequal weights are drawn by weight and put back, and what is under way counts by capacity: where loads are level,
 * shares are the weights'.
 */
export class PowerOfTwo<T> implements Picker<T> {
  readonly #by: "latency" | "requests";
  readonly #random: Random;

  constructor(by: "latency" | "requests", random: Random) {
    this.#by = by;
    this.#random = random;
  }

  reset(): void {}

  pick(pool: Pool<T>, nowMs: number, tried: readonly Member<T>[]): Member<T> | null {
    const { active } = pool;
    const count = active.length;
    if (count === 0) return null;
    let a: Member<T> | null = active[0] as Member<T>;
    let b: Member<T> | null = a;
    if (pool.isUneven || nowMs < pool.warmUntilMs) {
      a = pool.draw(nowMs);
      b = pool.draw(nowMs);
    } else if (count > 1) {
      const first = Math.floor(this.#random.next() * count);
      const step = 1 + Math.floor(this.#random.next() * (count - 1));
      a = active[first] as Member<T>;
      b = active[(first + step) % count] as Member<T>;
    }
    if (tried.length > 0) {
      if (a !== null && tried.includes(a)) a = null;
      if (b !== null && tried.includes(b)) b = null;
    }
    if (a === null || b === null) return a ?? b ?? pool.leastLoaded(nowMs, tried);
    if (a === b) return a;
    if (this.#by === "requests") return b.pending / b.capacity < a.pending / a.capacity ? b : a;
    return b.load(nowMs) < a.load(nowMs) ? b : a;
  }
}
