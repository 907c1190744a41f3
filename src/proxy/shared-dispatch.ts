import type { Clock } from "#/base/clock.ts";
import type { Dispatch } from "#/stack/http/dispatch.ts";

/** A dispatch that no connection uses is kept this long, with its connections and what it learned of its endpoints. */
const IDLE_MS = 30_000;

/** A dispatch and how many connections use it. */
export class SharedDispatch {
  readonly dispatch: Dispatch;
  readonly #clock: Clock;
  readonly #dropped: () => void;
  #users = 0;
  #idleRun = 0;

  /** `dropped` is called when nobody has used it for long. */
  constructor(dispatch: Dispatch, clock: Clock, dropped: () => void) {
    this.dispatch = dispatch;
    this.#clock = clock;
    this.#dropped = dropped;
  }

  acquire(): void {
    this.#users++;
    this.#idleRun++;
  }

  release(): void {
    if (--this.#users > 0) return;
    const run = ++this.#idleRun;
    this.#clock.after(IDLE_MS, () => {
      if (this.#users > 0 || run !== this.#idleRun) return;
      this.#dropped();
      this.dispatch.close();
    });
  }
}
