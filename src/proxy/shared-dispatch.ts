import type { Clock } from "#/base/clock.ts";
import type { BackendTraffic, RetryBudget } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { Dispatch } from "#/stack/http/dispatch.ts";
import { RetryBudgetWindow } from "#/stack/retry/retry-budget.ts";

/** A dispatch that nobody uses is kept this long, with its connections and what it learned of its endpoints. */
const IDLE_MS = 30_000;

/** A dispatch and how many use it: client connections, and requests that outlive the policy which sent them there. */
export class SharedDispatch {
  readonly dispatch: Dispatch;
  readonly #clock: Clock;
  readonly #dropped: () => void;
  #users = 0;
  /** Until when it is kept although nobody uses it. */
  #keptUntilMs = 0;
  #isWatched = false;
  #budget: RetryBudgetWindow | null = null;
  #budgetSettings: RetryBudget = BACKEND_TRAFFIC_DEFAULTS.retryBudget;

  /** `dropped` is called when nobody has used it for long. */
  constructor(dispatch: Dispatch, clock: Clock, dropped: () => void) {
    this.dispatch = dispatch;
    this.#clock = clock;
    this.#dropped = dropped;
  }

  get isReady(): boolean {
    return this.dispatch.balancer.isReachable;
  }

  /** Made when first asked for: few rules retry. */
  get budget(): RetryBudgetWindow {
    return (this.#budget ??= new RetryBudgetWindow(this.#budgetSettings));
  }

  /** Takes other settings for the requests that come. A budget that changes begins anew. */
  configure(traffic: BackendTraffic): void {
    this.dispatch.configure(traffic);
    const { retryBudget } = traffic;
    if (isSameBudget(this.#budgetSettings, retryBudget)) return;
    this.#budgetSettings = retryBudget;
    this.#budget = null;
  }

  acquire(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users > 0) return;
    this.#keptUntilMs = this.#clock.nowMs() + IDLE_MS;
    if (!this.#isWatched) this.#lookAfter(IDLE_MS);
  }

  /** One timer at a time: with a connection for each request, it is left and taken up again thousands of times a second. */
  #lookAfter(waitMs: number): void {
    this.#isWatched = true;
    this.#clock.after(waitMs, () => {
      this.#isWatched = false;
      if (this.#users > 0) return;
      const leftMs = this.#keptUntilMs - this.#clock.nowMs();
      if (leftMs > 0) this.#lookAfter(leftMs);
      // What is under way may still have to go to another endpoint.
      else if (this.dispatch.isBusy) this.#lookAfter(IDLE_MS);
      else {
        this.#dropped();
        this.dispatch.close();
      }
    });
  }
}

function isSameBudget(a: RetryBudget, b: RetryBudget): boolean {
  return (
    a === b ||
    (a.percent === b.percent &&
      a.intervalMs === b.intervalMs &&
      a.floorCount === b.floorCount &&
      a.floorIntervalMs === b.floorIntervalMs)
  );
}
