import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { InboundLimits, RateLimit } from "#/model/traffic.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "../http/exchange.ts";
import { lendBody, lendData, SPENT } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";
import { fault } from "../http/fault.ts";
import { isGrpc } from "../http/mesh-answer.ts";
import { PendingRequest } from "../http/pending-request.ts";
import { headerValue } from "../route/candidate.ts";
import type { Bucket } from "./bucket.ts";
import { rateOf, take, waitMs } from "./bucket.ts";
import { ConcurrencyLimiter, priorityOf } from "./concurrency.ts";
import type { QuotaShare } from "./quota-share.ts";
import type { QuotaShares } from "./quota-shares.ts";
import { RateLimiter } from "./rate-limiter.ts";
import { RequestMatch } from "./request-match.ts";

export interface PortLimitsParts {
  readonly clock: Clock;
  readonly quota: QuotaShares;
  /** A request was refused; for the metrics. */
  limited(limit: RateLimit): void;
  shed(source: PolicySource): void;
}

/** Once a request has waited so often for the control plane, it is refused. */
const ASKED_MAX = 3;
/** When one who was shed may ask again. */
const SHED_RETRY_MS = 1_000;
/** Probes come about once a second; more than this is no probe. */
const EXEMPT = rateOf(20, 1_000, 20);

/**
 * What one port takes in: rate limits first, then adaptive concurrency. Stands after authorization, so that whom policy
 * refuses takes nothing from others, and before the application. One for each port for as long as it is watched: what was
 * counted outlasts changes of policy.
 */
export class PortLimits {
  readonly #parts: PortLimitsParts;
  readonly #rates: RateLimiter;
  readonly #exempted: Bucket = { earnedAtMs: 0 };
  #limits: InboundLimits | null = null;
  #exempt: readonly RequestMatch[] = [];
  #concurrency: ConcurrencyLimiter | null = null;

  constructor(port: number, parts: PortLimitsParts) {
    this.#parts = parts;
    this.#rates = new RateLimiter(port, parts.quota);
  }

  /** Null until a policy has asked for one. */
  get concurrency(): ConcurrencyLimiter | null {
    return this.#concurrency;
  }

  /** What holds from now on; null: nothing. Cheap where nothing has changed. */
  update(limits: InboundLimits | null): void {
    if (limits === this.#limits) return;
    this.#limits = limits;
    const nowMs = this.#parts.clock.nowMs();
    this.#rates.update(limits?.rates ?? [], nowMs);
    this.#exempt = (limits?.exempt ?? []).map((match) => new RequestMatch(match));
    const concurrency = limits?.concurrency ?? null;
    if (concurrency === null) this.#concurrency = null;
    else if (this.#concurrency === null) this.#concurrency = new ConcurrencyLimiter(concurrency, nowMs);
    else this.#concurrency.update(concurrency);
  }

  /** `client`: proven name; null for a plaintext client. */
  call(
    inner: HttpService,
    client: string | null,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    if (this.#isExempt(head, client)) return inner.call(head, last, reply);
    if (this.#rates.isEmpty) return this.#serve(inner, head, last, reply);
    const decision = this.#rates.decide(head, client, this.#parts.clock.nowMs(), true);
    if (decision.kind === "admit") return this.#serve(inner, head, last, reply);
    if (decision.kind === "refuse") {
      reply.fail(this.#rateFault(decision));
      return SPENT;
    }
    const pending = new PendingRequest(reply);
    this.#ask(pending, decision.share, client, head, (to) => this.#serve(inner, head, last, to), 1);
    return pending;
  }

  /** Waits until the control plane has answered, and decides again. */
  #ask(
    pending: PendingRequest,
    share: QuotaShare,
    client: string | null,
    head: RequestHead,
    serve: (reply: ResponseSink) => RequestSink,
    times: number,
  ): void {
    const { limit } = share;
    const leave = this.#parts.quota.wait(share, () => {
      const decision = this.#rates.decide(head, client, this.#parts.clock.nowMs(), false);
      if (decision.kind === "admit") pending.proceed(serve);
      else if (decision.kind === "refuse") pending.fail(this.#rateFault(decision));
      else if (times >= ASKED_MAX) pending.fail(this.#unsure(limit));
      else this.#ask(pending, decision.share, client, head, serve, times + 1);
    });
    if (leave === null) pending.fail(this.#unsure(limit));
    else pending.onCancel = leave;
  }

  #serve(inner: HttpService, head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const limiter = this.#concurrency;
    const settings = this.#limits?.concurrency ?? null;
    if (limiter === null || settings === null) return inner.call(head, last, reply);
    const { priorityHeader, source } = settings;
    const priority = priorityOf(priorityHeader === "" ? null : headerValue(head, priorityHeader));
    if (limiter.begin(priority)) {
      const admitted = new Admitted(limiter, this.#parts.clock, head, reply);
      return admitted.begin(inner.call(head, last, admitted));
    }
    this.#parts.shed(source);
    const message = `${limiter.underWay} requests are under way, and the workload serves ${limiter.limit} well (priority ${priority})`;
    reply.fail(fault("SHED", message, { rule: ruleOf(source), retryAfterMs: SHED_RETRY_MS }));
    return SPENT;
  }

  /** Only so many, or the probe's path would be the way around every limit. */
  #isExempt(head: RequestHead, client: string | null): boolean {
    if (this.#exempt.length === 0 || client !== null) return false;
    if (!this.#exempt.some((match) => match.holds(head))) return false;
    const nowMs = this.#parts.clock.nowMs();
    if (waitMs(this.#exempted, EXEMPT, nowMs) > 0) return false;
    take(this.#exempted, EXEMPT, nowMs);
    return true;
  }

  #rateFault(refused: { readonly limit: RateLimit; readonly waitMs: number; readonly why: string }): Fault {
    const { limit, why } = refused;
    this.#parts.limited(limit);
    // A limit of nothing never has room; whoever asks may as well wait for its window.
    const retryAfterMs = Math.min(refused.waitMs, Math.max(limit.windowMs, 1_000));
    return fault("RATE_LIMITED", why, { rule: ruleOf(limit.source), retryAfterMs });
  }

  #unsure(limit: RateLimit): Fault {
    const why = "too many requests at once for the control plane to be asked about each";
    return this.#rateFault({ limit, waitMs: 1_000, why });
  }
}

/** A request that the concurrency limiter has let in: tells it of the latency, and when it is over. */
class Admitted implements RequestSink, ResponseSink {
  readonly #limiter: ConcurrencyLimiter;
  readonly #clock: Clock;
  readonly #reply: ResponseSink;
  readonly #startedAtMs: number;
  readonly #isCall: boolean;
  readonly #mayTunnel: boolean;
  #sink: RequestSink = SPENT;
  #isOver = false;

  constructor(limiter: ConcurrencyLimiter, clock: Clock, head: RequestHead, reply: ResponseSink) {
    this.#limiter = limiter;
    this.#clock = clock;
    this.#reply = reply;
    this.#startedAtMs = clock.nowMs();
    this.#isCall = isGrpc(head);
    this.#mayTunnel = head.method === "CONNECT";
  }

  begin(sink: RequestSink): RequestSink {
    this.#sink = sink;
    return this;
  }

  data(bytes: Uint8Array, start: number, stop: number): void {
    this.#sink.data(bytes, start, stop);
  }

  dataLent(bytes: Uint8Array, start: number, stop: number): void {
    lendData(this.#sink, bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    this.#sink.end(trailers);
  }

  abort(cause: Fault): void {
    this.#over();
    this.#sink.abort(cause);
  }

  responseConsumed(bytes: number): void {
    this.#sink.responseConsumed(bytes);
  }

  informational(head: ResponseHead): void {
    this.#reply.informational(head);
  }

  head(head: ResponseHead, last: boolean): void {
    const { status } = head;
    // A gRPC answer that is all trailers is nearly always an error; one of HTTP says so itself.
    if (!this.#isOver && status < 500 && !(this.#isCall && last)) {
      const nowMs = this.#clock.nowMs();
      this.#limiter.observe(nowMs - this.#startedAtMs, nowMs);
    }
    // A connection that was handed over may stay for days, and the application's work for the request is done.
    if (last || status === 101 || (this.#mayTunnel && status < 300)) this.#over();
    this.#reply.head(head, last);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    this.#reply.body(bytes, start, stop);
  }

  bodyLent(bytes: Uint8Array, start: number, stop: number): void {
    lendBody(this.#reply, bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    this.#over();
    this.#reply.finish(trailers);
  }

  fail(cause: Fault): void {
    this.#over();
    this.#reply.fail(cause);
  }

  requestConsumed(bytes: number): void {
    this.#reply.requestConsumed(bytes);
  }

  #over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#limiter.over();
  }
}
