import type { Random } from "#/base/random.ts";
import type { Member } from "./member.ts";
import type { Picker, Pool } from "./pool.ts";

/**
 * One after the other, smoothly by weight: each has its next turn one over its weight after its last, and the earliest turn is
 * taken (earliest deadline first). Logarithmic in the number of members. Each sidecar begins at a place of its own, or all would ask
 * the same endpoint at once.
 */
export class RoundRobin<T> implements Picker<T> {
  readonly #random: Random;
  /** A heap: nobody's turn is before its parent's. */
  #heap: Member<T>[] = [];
  #nowTurn = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  reset(pool: Pool<T>): void {
    for (const member of pool.members) {
      const step = 1 / member.capacity;
      // Whoever comes, or comes back from elsewhere, has its first turn within one round, and none to catch up on.
      if (!(member.turn >= this.#nowTurn && member.turn <= this.#nowTurn + step))
        member.turn = this.#nowTurn + step * this.#random.next();
    }
    this.#heap = [...pool.members].sort((a, b) => a.turn - b.turn);
  }

  pick(pool: Pool<T>, nowMs: number, tried: readonly Member<T>[]): Member<T> | null {
    const isCold = nowMs < pool.warmUntilMs;
    // Whoever is set aside, or was tried, loses its turn. A new one may take ten rounds to have the first that counts.
    for (let i = 0; i < this.#heap.length * 2; i++) {
      const member = this.#heap[0] as Member<T>;
      this.#nowTurn = member.turn;
      member.turn += 1 / (member.capacity * (isCold ? pool.warmth(member, nowMs) : 1));
      this.#sink();
      if (member.place !== -1 && (tried.length === 0 || !tried.includes(member))) return member;
    }
    return pool.leastLoaded(nowMs, tried);
  }

  /** The first's turn is later now. */
  #sink(): void {
    const heap = this.#heap;
    const member = heap[0] as Member<T>;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && (heap[right] as Member<T>).turn < (heap[child] as Member<T>).turn)
        child = right;
      const under = heap[child] as Member<T>;
      if (member.turn <= under.turn) break;
      heap[at] = under;
      at = child;
    }
    heap[at] = member;
  }
}
