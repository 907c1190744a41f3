import type { Clock } from "#/base/clock.ts";
import type { RetryBudget } from "#/model/traffic.ts";
import type { Dispatch } from "#/stack/http/dispatch.ts";
import { RetryBudgetWindow } from "#/stack/retry/retry-budget.ts";

/** A dispatch that no connection uses is kept this long, with its connections and what it learned of its endpoints. */
const IDLE_MS = 30_000;

/** A dispatch and how many connections use it. */
export class SharedDispatch {
  readonly dispatch: Dispatch;
  readonly #clock: Clock;
  readonly #dropped: () => void;
  #users = 0;
  #idleRun = 0;
  /** Made when the first rule with retries asks for it. */
  #budget: RetryBudgetWindow | null = null;

  /** `dropped` is called when nobody has used it for long. */
  constructor(dispatch: Dispatch, clock: Clock, dropped: () => void) {
    this.dispatch = dispatch;
    this.#clock = clock;
    this.#dropped = dropped;
  }

  /** What retries of all its users draw on. Other settings begin it anew. */
  budgetOf(settings: RetryBudget): RetryBudgetWindow {
    if (this.#budget === null || !isEqual(this.#budget.settings, settings))
      this.#budget = new RetryBudgetWindow(settings);
    return this.#budget;
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

function isEqual(a: RetryBudget, b: RetryBudget): boolean {
  return (
    a === b ||
    (a.percent === b.percent &&
      a.intervalMs === b.intervalMs &&
      a.floorCount === b.floorCount &&
      a.floorIntervalMs === b.floorIntervalMs)
  );
}
