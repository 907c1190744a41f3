import type { Clock } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import type { FaultAction, HttpFilter } from "#/model/route.ts";
import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import { fault } from "../http/fault.ts";
import { PendingRequest } from "../http/pending-request.ts";
import { FieldTest, headerValue } from "../route/candidate.ts";
import { LateEnd } from "./late-end.ts";
import { PacedAnswer } from "./paced-answer.ts";

export type FaultFilter = Extract<HttpFilter, { kind: "fault" }>;

/** Requests of one sidecar that a delay, a pace or a late end may hold at a time. Beyond, requests are spared. */
export const HELD_MAX = 10_000;

export interface FaultInjectorParts {
  readonly clock: Clock;
  readonly random: Random;
  /** A request was hit. */
  injected(source: PolicySource, kind: FaultAction["kind"]): void;
}

/** Does to requests what FaultPolicies ask for. One for all routes of a sidecar. */
export class FaultInjector {
  readonly #parts: FaultInjectorParts;
  readonly #tests = new WeakMap<FaultFilter, readonly FieldTest[]>();
  /** Requests held at this moment. */
  #held = 0;

  constructor(parts: FaultInjectorParts) {
    this.#parts = parts;
  }

  get held(): number {
    return this.#held;
  }

  /**
   * The service with those faults before it that hit this request: chance is asked now, once for each. `service` itself
   * when none does. Filters of other kinds are passed over; the first fault is the outermost.
   */
  around(service: HttpService, filters: readonly HttpFilter[], head: RequestHead): HttpService {
    let hit = service;
    for (let i = filters.length - 1; i >= 0; i--) {
      const filter = filters[i] as HttpFilter;
      if (filter.kind === "fault" && this.#hits(filter, head)) hit = this.#with(filter, hit);
    }
    return hit;
  }

  #hits(filter: FaultFilter, head: RequestHead): boolean {
    const { numerator, denominator } = filter.ratio;
    // 1 of 1 asks no chance, so that a run without others is the same with any seed.
    if (numerator <= 0 || denominator <= 0) return false;
    if (!this.#matches(filter, head)) return false;
    return numerator >= denominator || this.#parts.random.next() * denominator < numerator;
  }

  /** Expressions are compiled once for each filter, of which there are as many as policies say. */
  #matches(filter: FaultFilter, head: RequestHead): boolean {
    if (filter.headers.length === 0) return true;
    let tests = this.#tests.get(filter);
    if (tests === undefined) {
      tests = filter.headers.map((match) => new FieldTest(match));
      this.#tests.set(filter, tests);
    }
    return tests.every((test) => test.holds(headerValue(head, test.name)));
  }

  #with(filter: FaultFilter, inner: HttpService): HttpService {
    return { call: (head, last, reply) => this.#call(filter, inner, head, last, reply) };
  }

  #call(
    { action, source }: FaultFilter,
    inner: HttpService,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const isEnd = action.kind === "abort" || action.kind === "reset";
    if (!isEnd && this.#held >= HELD_MAX) return inner.call(head, last, reply);
    this.#parts.injected(source, action.kind);
    head.trace?.add("fault", [
      ["kind", action.kind],
      ["policy", ruleOf(source)],
    ]);
    const rule = ruleOf(source);
    switch (action.kind) {
      case "abort": {
        const { status, grpcStatus, message } = action;
        const what = message === "" ? "an injected abort" : message;
        reply.fail(fault("FAULT_INJECTED", what, { rule, status, grpcStatus }));
        return SPENT;
      }
      case "reset":
        reply.fail(fault("FAULT_INJECTED", "an injected reset", { rule, cuts: true }));
        return SPENT;
      case "delay":
        return this.#delay(action.delayMs + this.#jitter(action.jitterMs), inner, head, last, reply);
      case "bandwidth": {
        const paced = new PacedAnswer(reply, this.#parts.clock, action.bytesPerSecond, this.#hold());
        return paced.begin(inner.call(head, last, paced));
      }
      case "slow-close": {
        const late = new LateEnd(reply, this.#parts.clock, action.delayMs, this.#hold());
        return late.begin(inner.call(head, last, late));
      }
    }
  }

  #delay(
    delayMs: number,
    inner: HttpService,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ): RequestSink {
    const released = this.#hold();
    const pending = new PendingRequest(reply);
    const timer = this.#parts.clock.after(delayMs, () => {
      released();
      pending.proceed((to) => inner.call(head, last, to));
    });
    pending.onCancel = () => {
      timer.cancel();
      released();
    };
    return pending;
  }

  #jitter(jitterMs: number): number {
    return jitterMs === 0 ? 0 : this.#parts.random.next() * jitterMs;
  }

  #hold(): () => void {
    this.#held++;
    return () => void this.#held--;
  }
}
