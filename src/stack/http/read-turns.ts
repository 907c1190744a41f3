import type { Clock, Timer } from "#/base/clock.ts";

/** Whose bytes leave by a connection that others share. */
export interface TurnTaker {
  /** Its source may bring more. */
  goOn(): void;
}

/** A turn that nothing came of within this shows that the connection has room to spare. */
const UNUSED_MS = 1;

/**
 * Whose source is read next, of those whose bytes leave by one connection. What is read while the connection is busy has to be copied and kept,
 * so that with several sources nearly all would be: instead one is read at a time, and the next when the connection has taken that.
 *
 * A source that has nothing to bring must not hold up the others: if nothing came of a turn within `UNUSED_MS`, all go on at once. Bound: a
 * stream waits here once.
 */
export class ReadTurns {
  readonly #clock: Clock;
  #waiting: TurnTaker[] = [];
  /** Has the turn and has brought nothing yet. */
  holder: TurnTaker | null = null;
  /** Turns so far. */
  #turns = 0;
  #turnsSeen = 0;
  #timer: Timer | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Bytes of `taker` are on their way. Whether its source may go on at once; if not, `goOn` will be called. Once, until then. */
  took(taker: TurnTaker, isFree: boolean): boolean {
    if (isFree && this.#waiting.length === 0) return true;
    this.#waiting.push(taker);
    return false;
  }

  /** The source of `taker` has brought something: whether that was its turn, and the next is due. */
  brought(taker: TurnTaker): boolean {
    if (this.holder !== taker) return false;
    this.holder = null;
    return true;
  }

  /** Gives the next turn, unless one is under way. Only while the connection is free. */
  next(): void {
    if (this.holder !== null) return;
    const taker = this.#waiting.shift();
    if (taker === undefined) return;
    this.#turns++;
    if (this.#waiting.length > 0) {
      this.holder = taker;
      this.#watch();
    }
    taker.goOn();
  }

  /** `taker` brings no more: whether it had the turn, and the next is due. */
  leave(taker: TurnTaker): boolean {
    const at = this.#waiting.indexOf(taker);
    if (at >= 0) this.#waiting.splice(at, 1);
    return this.brought(taker);
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#waiting = [];
    this.holder = null;
  }

  /** One timer while anybody waits, and not one for each turn. */
  #watch(): void {
    if (this.#timer !== null) return;
    this.#turnsSeen = this.#turns;
    this.#timer = this.#clock.after(UNUSED_MS, this.#look);
  }

  readonly #look = (): void => {
    this.#timer = null;
    if (this.holder === null) return;
    if (this.#turns !== this.#turnsSeen) {
      this.#watch();
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    this.holder = null;
    for (const taker of waiting) taker.goOn();
  };
}
