import type { Clock, Timer } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type {
  HttpService,
  RequestHead,
  RequestSink,
  ResponseHead,
  ResponseSink,
} from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import type { Fault } from "#/stack/http/fault.ts";
import { fault } from "#/stack/http/fault.ts";
import type { Flow } from "./figures.ts";
import { GOOD } from "./figures.ts";
import type { CallPlan } from "./plan.ts";

/** What callers share: who watches them, and how many are under way. */
export interface CallWatch {
  begun(): void;
  ended(): void;
  /** A rule of the exchange, or a bound, was broken. */
  violated(what: string): void;
  /** The request never left this sidecar, or which rule ended it: counted by code and rule. */
  faulted(cause: Fault): void;
}

/** Told once of each call, at its end. */
export type CallEnd = (isGood: boolean, outcome: string, tookMs: number) => void;

/**
 * One request as a program makes it, watched: exactly one answer, nothing after it, and none later than the settings allow.
 */
export class Caller implements ResponseSink {
  readonly #clock: Clock;
  readonly #watch: CallWatch;
  readonly #flow: Flow;
  readonly #plan: CallPlan;
  readonly #done: CallEnd;
  readonly #startedAtMs: number;
  #sink: RequestSink = SPENT;
  #timer: Timer | null = null;
  #status = 0;
  #isOver = false;

  constructor(parts: { clock: Clock; watch: CallWatch; flow: Flow; plan: CallPlan; done: CallEnd }) {
    this.#clock = parts.clock;
    this.#watch = parts.watch;
    this.#flow = parts.flow;
    this.#plan = parts.plan;
    this.#done = parts.done;
    this.#startedAtMs = parts.clock.nowMs();
  }

  start(service: HttpService, head: RequestHead): void {
    const { bodyBytes, timeoutMs } = this.#plan;
    this.#watch.begun();
    if (timeoutMs > 0)
      this.#timer = this.#clock.after(timeoutMs, () => {
        this.#timer = null;
        this.#giveUp("the client's own timeout");
      });
    const sink = service.call(head, bodyBytes === 0, this);
    if (this.#isOver) return;
    this.#sink = sink;
    if (bodyBytes === 0) return;
    const bytes = BODY.subarray(0, Math.min(bodyBytes, BODY.length));
    for (let left = bodyBytes; left > 0 && !this.#isOver; left -= bytes.length)
      sink.data(bytes, 0, Math.min(left, bytes.length));
    // Answered already: what is left of the request is nobody's business.
    if (!this.#isOver) sink.end(null);
  }

  /** Who asked is gone. */
  cancel(): void {
    this.#giveUp("the caller ended");
  }

  informational(): void {}
  requestConsumed(): void {}
  body(): void {
    if (this.#isOver) this.#watch.violated("a body after the answer's end");
  }

  head(head: ResponseHead, last: boolean): void {
    if (this.#status !== 0 || this.#isOver) this.#watch.violated("a second answer to one request");
    this.#status = head.status;
    if (!last) return;
    this.#answered(fieldValue(head.fields, "grpc-status"));
  }

  finish(trailers: Fields | null): void {
    this.#answered(trailers === null ? null : fieldValue(trailers, "grpc-status"));
  }

  fail(cause: Fault): void {
    if (this.#isOver) {
      this.#watch.violated(`${cause.code} after the answer's end`);
      return;
    }
    this.#watch.faulted(cause);
    this.#end(cause.code);
  }

  /** Whom a limit turned away was not served. */
  #answered(grpcStatus: string | null): void {
    const isGood = this.#status < 500 && this.#status !== 429 && (grpcStatus === null || grpcStatus === "0");
    this.#end(isGood ? GOOD : String(this.#status));
  }

  #giveUp(outcome: string): void {
    if (this.#isOver) return;
    const sink = this.#sink;
    this.#end(outcome);
    sink.abort(fault("CANCELLED", outcome));
  }

  #end(outcome: string): void {
    if (this.#isOver) {
      this.#watch.violated("a second end of one answer");
      return;
    }
    this.#isOver = true;
    this.#timer?.cancel();
    const tookMs = this.#clock.nowMs() - this.#startedAtMs;
    const { boundMs } = this.#plan;
    if (boundMs > 0 && tookMs > boundMs)
      this.#watch.violated(`an answer after ${tookMs.toFixed(3)} ms where the settings allow ${boundMs} ms`);
    this.#flow.ended(this.#startedAtMs, outcome, tookMs);
    this.#watch.ended();
    this.#done(outcome === GOOD, outcome, tookMs);
  }
}

const BODY = new Uint8Array(16_384);
