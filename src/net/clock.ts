import type { Clock, Timer } from "#/base/clock.ts";

/** Timers of at least this length fire up to `COARSE_STEP_MS` late, so that thousands of them share few of Node's lists. */
const COARSE_FROM_MS = 400;
const COARSE_STEP_MS = 50;

/**
 * What a `soon` task puts off in turn is still done in the same turn, so often: a turn more costs two system calls and would part
 * a connection's machine from its socket. The rest waits for the next turn, so that no task can keep the loop from its sockets.
 */
export const SOON_ROUNDS_MAX = 4;

/** Real time. `soon` tasks run once per turn of the event loop, after all sockets that were ready have been read. */
export class SystemClock implements Clock {
  #tasks: (() => void)[] = [];
  /** The list of the round before, empty again. */
  #spare: (() => void)[] = [];
  #isScheduled = false;

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

  soon(task: () => void): void {
    this.#tasks.push(task);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(this.#run);
  }

  readonly #run = (): void => {
    try {
      for (let round = 0; round < SOON_ROUNDS_MAX && this.#tasks.length > 0; round++) {
        const tasks = this.#tasks;
        this.#tasks = this.#spare;
        for (let i = 0; i < tasks.length; i++) (tasks[i] as () => void)();
        tasks.length = 0;
        this.#spare = tasks;
      }
    } finally {
      this.#isScheduled = this.#tasks.length > 0;
      if (this.#isScheduled) setImmediate(this.#run);
    }
  };
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
