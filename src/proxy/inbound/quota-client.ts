import type { Clock, Timer } from "#/base/clock.ts";
import type { Log } from "#/net/log.ts";
import type { Cancel } from "#/stack/discovery.ts";
import type { QuotaDriver, QuotaShares, Reported } from "#/stack/limits/quota-shares.ts";
import type { ControlApi, QuotaAnswer } from "../control/control-api.ts";

/** Until the control plane has said another. */
const INTERVAL_MS = 100;
/** Between two questions, also when requests wait: what comes meanwhile is asked for together. */
const HURRY_MS = 5;
/** Without an answer for so long the sidecar goes by itself; requests may be waiting. */
const ANSWER_MS = 300;
/** A control plane that is not there, or refuses, is asked again so often; one that was only slow, at once. */
const RETRY_MS = 500;

/** Reports to the control plane while limits for all pods of the workload have traffic here, one report at a time. */
export class QuotaClient implements QuotaDriver {
  readonly #shares: QuotaShares;
  readonly #control: ControlApi;
  readonly #clock: Clock;
  readonly #log: Log;
  #intervalMs = INTERVAL_MS;
  #timer: Timer | null = null;
  #dueAtMs = Infinity;
  #sentAtMs = -Infinity;
  #call: Cancel | null = null;
  #isAlone = false;

  constructor(shares: QuotaShares, control: ControlApi, clock: Clock, log: Log) {
    this.#shares = shares;
    this.#control = control;
    this.#clock = clock;
    this.#log = log;
    shares.driver = this;
  }

  begin(): void {
    this.#schedule(this.#isAlone ? 0 : this.#intervalMs);
  }

  hurry(): void {
    if (this.#call === null) this.#schedule(Math.max(0, this.#sentAtMs + HURRY_MS - this.#clock.nowMs()));
  }

  #schedule(afterMs: number): void {
    const dueAtMs = this.#clock.nowMs() + afterMs;
    if (this.#call !== null || dueAtMs >= this.#dueAtMs) return;
    this.#timer?.cancel();
    this.#dueAtMs = dueAtMs;
    this.#timer = this.#clock.after(afterMs, () => {
      this.#timer = null;
      this.#dueAtMs = Infinity;
      this.#report();
    });
  }

  #report(): void {
    const sentAtMs = this.#clock.nowMs();
    this.#sentAtMs = sentAtMs;
    const reports = this.#shares.report(sentAtMs, this.#intervalMs);
    // With the first request that comes it begins again. Who waits does so for a limit that was taken away meanwhile.
    if (reports.length === 0) {
      this.#shares.wake();
      return;
    }
    if (!this.#control.isConnected) {
      this.#failed("it is not connected", RETRY_MS);
      return;
    }
    const call = this.#control.leaseQuota(reports, (answer) => {
      this.#call = null;
      deadline.cancel();
      if (answer === null) {
        this.#failed("it refused, or its answer cannot be read", RETRY_MS);
        return;
      }
      this.#intervalMs = answer.intervalMs;
      this.#apply(reports, answer, sentAtMs);
      this.#shares.wake();
      this.#schedule(this.#shares.waitingCount > 0 ? HURRY_MS : this.#intervalMs);
    });
    this.#call = call;
    const deadline = this.#clock.after(ANSWER_MS, () => {
      this.#call = null;
      call.cancel();
      this.#failed(`it did not answer within ${ANSWER_MS} ms`, HURRY_MS);
    });
  }

  #apply(reports: readonly Reported[], { grants }: QuotaAnswer, sentAtMs: number): void {
    const nowMs = this.#clock.nowMs();
    if (this.#isAlone) this.#log.info("the control plane gives again what limits for all pods have left");
    this.#isAlone = false;
    this.#shares.setAlone(false, nowMs);
    for (const [i, { share, report }] of reports.entries()) {
      const grant = grants[i] ?? null;
      if (grant === null) share.leftAlone(nowMs);
      else share.granted(grant, report.wanted, sentAtMs, nowMs);
    }
  }

  #failed(why: string, retryMs: number): void {
    if (!this.#isAlone)
      this.#log.warn(
        `the control plane cannot be asked about limits for all pods, and each keeps to an equal part: ${why}; check that it runs`,
      );
    this.#isAlone = true;
    this.#shares.setAlone(true, this.#clock.nowMs());
    this.#shares.wake();
    this.#schedule(retryMs);
  }
}
