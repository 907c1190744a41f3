import type { Clock, Timer } from "#/base/clock.ts";

/** Something with a moment at which it has to be looked at. It is its own entry in the wheel. */
export abstract class Deadline {
  /** When it is due on the wheel; Infinity while it is on none. For the wheel alone to write. */
  dueAtMs = Infinity;
  slot = -1;
  before: Deadline | null = null;
  after: Deadline | null = null;

  /** Called once for each time that it was set, off the wheel again, at `dueAtMs` or up to a tick later. */
  abstract expire(nowMs: number): void;
}

/** As fine as what people write into timeouts; a wake-up costs nothing beside that. */
const TICK_MS = 10;
/** One turn is 5.12 s. What is due later stays in its slot for as many turns. */
const SLOTS = 512;

/**
 * Deadlines of any number of requests behind one timer: a hashed wheel (Varghese and Lauck, 1987, scheme 6). To set, move and
 * clear one is a matter of a few links; nearly all are cleared before they are due, and cost no timer of their own. Never early, and
 * at most a tick of 10 ms late, beside what the clock adds. Its bound is that of the requests under way.
 */
export class DeadlineWheel {
  readonly #clock: Clock;
  readonly #slots: (Deadline | null)[] = Array.from({ length: SLOTS }, () => null);
  /** Slots up to this tick were emptied of what was due. */
  #doneTick = 0;
  #timer: Timer | null = null;
  /** For which tick the timer is set; Infinity: none. */
  #wakeTick = Infinity;
  #size = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#size;
  }

  /** Sets or moves. A moment that has passed is due at the next tick, never from inside. */
  set(deadline: Deadline, atMs: number): void {
    if (deadline.slot >= 0) this.#unlink(deadline);
    else this.#size++;
    if (this.#wakeTick === Infinity) this.#doneTick = Math.floor(this.#clock.nowMs() / TICK_MS);
    const tick = Math.max(Math.ceil(atMs / TICK_MS), this.#doneTick + 1);
    deadline.dueAtMs = atMs;
    this.#link(deadline, tick % SLOTS);
    if (tick < this.#wakeTick) this.#wakeAt(tick);
  }

  clear(deadline: Deadline): void {
    deadline.dueAtMs = Infinity;
    if (deadline.slot < 0) return;
    this.#unlink(deadline);
    this.#size--;
  }

  #wakeAt(tick: number): void {
    this.#timer?.cancel();
    this.#wakeTick = tick;
    this.#timer = this.#clock.after(Math.max(0, tick * TICK_MS - this.#clock.nowMs()), this.#turn);
  }

  readonly #turn = (): void => {
    const nowMs = this.#clock.nowMs();
    const nowTick = Math.floor(nowMs / TICK_MS);
    // Off the wheel first: what one does may set or clear any other.
    const due: Deadline[] = [];
    const stop = Math.min(nowTick, this.#doneTick + SLOTS);
    for (let tick = this.#doneTick + 1; tick <= stop; tick++) this.#takeDue(tick % SLOTS, nowMs, due);
    this.#doneTick = nowTick;
    for (const each of due) {
      if (each.slot >= 0 || each.dueAtMs > nowMs) continue;
      each.dueAtMs = Infinity;
      each.expire(nowMs);
    }
    this.#timer = null;
    this.#wakeTick = Infinity;
    for (let tick = nowTick + 1; tick <= nowTick + SLOTS; tick++) {
      if (this.#slots[tick % SLOTS] === null) continue;
      this.#wakeAt(tick);
      return;
    }
  };

  #takeDue(slot: number, nowMs: number, due: Deadline[]): void {
    for (let each = this.#slots[slot] as Deadline | null; each !== null;) {
      const next = each.after;
      if (each.dueAtMs <= nowMs) {
        this.#unlink(each);
        this.#size--;
        due.push(each);
      }
      each = next;
    }
  }

  #link(deadline: Deadline, slot: number): void {
    const first = this.#slots[slot] as Deadline | null;
    deadline.slot = slot;
    deadline.before = null;
    deadline.after = first;
    if (first !== null) first.before = deadline;
    this.#slots[slot] = deadline;
  }

  #unlink(deadline: Deadline): void {
    const { before, after, slot } = deadline;
    if (before !== null) before.after = after;
    else this.#slots[slot] = after;
    if (after !== null) after.before = before;
    deadline.before = null;
    deadline.after = null;
    deadline.slot = -1;
  }
}
