import type { Clock, Timer } from "#/base/clock.ts";
import { turn } from "./turn.ts";

/** Timers of at least this length fire up to `COARSE_STEP_MS` late, so that thousands of them share few of Node's lists. */
const COARSE_FROM_MS = 400;
const COARSE_STEP_MS = 50;

/** Real time. */
export class SystemClock implements Clock {
  nowMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  after(afterMs: number, fire: () => void): Timer {
    const coarseMs =
      afterMs < COARSE_FROM_MS ? afterMs : Math.ceil(afterMs / COARSE_STEP_MS) * COARSE_STEP_MS;
    return new SystemTimer(setTimeout(fire, Math.min(coarseMs, TIMEOUT_MS_MAX)));
  }

  soon(task: () => void, onlySends = false): void {
    turn.soon(task, onlySends);
  }
}

/** Node fires at once what is longer. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

class SystemTimer implements Timer {
  readonly #timeout: NodeJS.Timeout;
  constructor(timeout: NodeJS.Timeout) {
    this.#timeout = timeout;
  }
  cancel(): void {
    clearTimeout(this.#timeout);
  }
}
