import type { Fields } from "#/base/fields.ts";
import type { Clock } from "#/base/clock.ts";
import type { RequestSink, ResponseHead, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";
import { fault } from "../http/fault.ts";
import type { DeadlineWheel } from "./deadline-wheel.ts";
import { Deadline } from "./deadline-wheel.ts";

/** Whom an attempt tells, while it is the one that is heard. */
export interface AttemptOwner {
  isHeard(attempt: Attempt): boolean;
  informational(head: ResponseHead): void;
  head(attempt: Attempt, head: ResponseHead, last: boolean): void;
  body(attempt: Attempt, bytes: Uint8Array, start: number, stop: number): void;
  finish(attempt: Attempt, trailers: Fields | null): void;
  fail(cause: Fault): void;
  credited(attempt: Attempt): void;
  release(attempt: Attempt): void;
}

/** A discarded answer that is longer, or takes longer, than this is cut. */
const DRAIN_BYTES_MAX = 65_536;
const DRAIN_MS = 1_000;

/** A request on its way to one endpoint. Once it is replaced, whatever it still says is heard by nobody. */
export class Attempt implements ResponseSink {
  readonly #owner: AttemptOwner;
  sink: RequestSink = SPENT;
  /** Body bytes that the endpoint took. */
  creditedBytes = 0;
  /** It is getting what earlier ones had of the body. */
  isReplaying = false;
  /** A head that waits for what comes with it. */
  held: ResponseHead | null = null;
  #isAttached = false;
  /** Credit for an answer's bytes that came from inside the call, before there was anybody to give it to. */
  #owedBytes = 0;
  /** Given up before it was attached. */
  #abortedFor: Fault | null = null;
  #drain: Drain | null = null;
  /** Nothing more may be said to the endpoint, not even when that happened inside the call. */
  #hasFailed = false;
  /** Both directions have ended well: there is nothing to abort, and credit may still be owed. */
  #isSpent = false;

  constructor(owner: AttemptOwner) {
    this.#owner = owner;
  }

  attach(sink: RequestSink): void {
    if (this.#hasFailed) return;
    this.sink = sink;
    this.#isAttached = true;
    if (this.#abortedFor !== null && !this.#isSpent) sink.abort(this.#abortedFor);
    else if (this.#owedBytes > 0) sink.responseConsumed(this.#owedBytes);
  }

  responseConsumed(bytes: number): void {
    if (this.#isAttached) this.sink.responseConsumed(bytes);
    else this.#owedBytes += bytes;
  }

  abort(cause: Fault): void {
    if (this.#isAttached) this.sink.abort(cause);
    else this.#abortedFor = cause;
  }

  /** `isSent`: the endpoint has all of the request. `isComplete`: its answer has ended. */
  discard(isComplete: boolean, isSent: boolean, room: { clock: Clock; deadlines: DeadlineWheel }): void {
    this.held = null;
    if (isComplete && isSent) return;
    if (isSent) this.#drain = new Drain(this, room);
    else this.abort(DISCARDED);
  }

  soon(): void {
    if (this.#owner.isHeard(this)) this.#owner.release(this);
  }

  // --- from the endpoint ---

  informational(head: ResponseHead): void {
    if (this.#owner.isHeard(this)) this.#owner.informational(head);
  }

  head(head: ResponseHead, last: boolean): void {
    if (this.#owner.isHeard(this)) this.#owner.head(this, head, last);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#owner.isHeard(this)) this.#owner.body(this, bytes, start, stop);
    else this.#drain?.body(stop - start);
  }

  finish(trailers: Fields | null): void {
    if (this.#owner.isHeard(this)) this.#owner.finish(this, trailers);
    else if (this.#drain !== null) {
      // Only what was sent wholly is drained.
      this.#isSpent = true;
      this.#drain.end();
    }
  }

  fail(cause: Fault): void {
    this.#hasFailed = true;
    this.sink = SPENT;
    if (this.#owner.isHeard(this)) this.#owner.fail(cause);
    else this.#drain?.end();
  }

  requestConsumed(bytes: number): void {
    this.creditedBytes += bytes;
    if (!this.isReplaying && this.#owner.isHeard(this)) this.#owner.credited(this);
  }
}

/** Takes the rest of an answer that nobody hears, within bounds. */
class Drain extends Deadline {
  readonly #attempt: Attempt;
  readonly #deadlines: DeadlineWheel;
  #leftBytes = DRAIN_BYTES_MAX;
  #isOver = false;

  constructor(attempt: Attempt, room: { clock: Clock; deadlines: DeadlineWheel }) {
    super();
    this.#attempt = attempt;
    this.#deadlines = room.deadlines;
    this.#deadlines.set(this, room.clock.nowMs() + DRAIN_MS);
  }

  body(bytes: number): void {
    // Also past the bound: where all of it came from inside the call, it ended before it could be cut.
    this.#attempt.responseConsumed(bytes);
    this.#leftBytes -= bytes;
    if (this.#leftBytes < 0) this.expire();
  }

  end(): void {
    this.#isOver = true;
    this.#deadlines.clear(this);
  }

  expire(): void {
    if (this.#isOver) return;
    this.end();
    this.#attempt.abort(DISCARDED);
  }
}

const DISCARDED: Fault = fault("CANCELLED", "another attempt was made in place of this one");
