import type { Member } from "./member.ts";
import type { Picker, Pool } from "./pool.ts";

/** Any member, by weight. */
export class RandomPick<T> implements Picker<T> {
  reset(): void {}

  pick(pool: Pool<T>, nowMs: number, tried: readonly Member<T>[]): Member<T> | null {
    // A request has tried few, so few draws meet them.
    for (let i = 0; i <= tried.length; i++) {
      const member = pool.draw(nowMs);
      if (member !== null && !tried.includes(member)) return member;
    }
    return pool.leastLoaded(nowMs, tried);
  }
}
