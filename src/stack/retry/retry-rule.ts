import type { HttpRule } from "#/model/route.ts";
import type { TriedEndpoints } from "../http/dispatch.ts";
import type { RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import type { RetryBudgetWindow } from "./retry-budget.ts";

/** What this layer needs to know of the rule that a request matched. Made once per rule. */
export interface RetryRule extends Pick<HttpRule, "timeouts" | "retry" | "allowsRequestHeaders"> {
  /** Names the rule in answers: "HTTPRoute/shop/web", and its name if it has one. */
  readonly label: string;
  readonly series: RetrySeries;
}

/** Where an attempt goes: a backend of the rule. Lives as long as the rule, and is not made per request. */
export interface Destination {
  /** Of the backend's service; the same for all rules and connections of this sidecar. Null: nothing is ever sent there again. */
  readonly budget: RetryBudgetWindow | null;
  /** The backend's own; null: the rule's. */
  readonly attemptTimeoutMs: number | null;
  /** As `HttpService.call`. Of endpoints in `tried` it takes one only when there is no other; null where no second attempt is made. */
  call(head: RequestHead, last: boolean, reply: ResponseSink, tried: TriedEndpoints | null): RequestSink;
}

/** Draws a backend for each attempt, by weight. A rule that has none gives a destination that fails. */
export interface Destinations {
  /** Until it is released as often, whatever it draws has its endpoints, also when the rule is gone. */
  hold(): void;
  release(): void;
  /** `tried`: null for the first attempt; later ones go to a backend that has an endpoint not in it, where there is one. */
  draw(head: RequestHead, tried: TriedEndpoints | null): Destination;
}

export type TimeoutKind = "request" | "response" | "attempt" | "idle";

/** What happened to a rule's requests, by Linkerd's names where it has one (facts §17.2). */
export interface RetrySeries {
  /** `…_retry_requests_total`: an attempt after the first was begun. */
  retried(): void;
  /** `…_retry_successes_total`: after a retry came an answer that the policy is content with. */
  retrySucceeded(): void;
  /** `…_retry_limit_exceeded_total`: after the last retry that is allowed came one that it is not content with. */
  retryLimitExceeded(): void;
  /**
   * `…_retry_overflow_total`: not retried for want of budget, here or `behind` (at the workload that failed), or because the
   * body was longer than what is kept.
   */
  retryOverflowed(why: "budget" | "behind" | "body"): void;
  timedOut(kind: TimeoutKind): void;
}

/** Whether requests of a rule have to pass this layer at all. `attemptTimeoutsMs`: those of its backends. */
export function needsRetryLayer(
  rule: Pick<HttpRule, "timeouts" | "retry" | "allowsRequestHeaders">,
  attemptTimeoutsMs: readonly (number | null)[],
): boolean {
  const { requestMs, responseMs, attemptMs, idleMs } = rule.timeouts;
  return (
    rule.retry !== null ||
    rule.allowsRequestHeaders ||
    requestMs !== null ||
    responseMs !== null ||
    attemptMs !== null ||
    idleMs !== null ||
    attemptTimeoutsMs.some((each) => each !== null)
  );
}
