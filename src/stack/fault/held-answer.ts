import type { Clock, Timer } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import type { RequestSink, ResponseHead, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";

/**
 * Stands between an application and its client and lets the answer through later than it comes. What is held is bounded by
 * credit: bytes count as consumed once the client has taken them. A client that leaves ends the wait.
 */
export abstract class HeldAnswer implements RequestSink, ResponseSink {
  protected readonly reply: ResponseSink;
  protected isOver = false;
  readonly #clock: Clock;
  readonly #released: () => void;
  #sink: RequestSink = SPENT;
  #timer: Timer | null = null;
  /** The application wants no more of the request, and its whole answer is still being let through. */
  #lateFault: Fault | null = null;

  /** `released` is called once, when nothing is held any more. */
  constructor(reply: ResponseSink, clock: Clock, released: () => void) {
    this.reply = reply;
    this.#clock = clock;
    this.#released = released;
  }

  begin(sink: RequestSink): RequestSink {
    this.#sink = sink;
    return this;
  }

  /** Whether the answer has come to its end, and that end is still held. */
  protected abstract readonly isEnding: boolean;
  /** Forgets what is held. */
  protected abstract drop(): void;

  protected get nowMs(): number {
    return this.#clock.nowMs();
  }

  protected later(afterMs: number, then: () => void): void {
    this.#timer = this.#clock.after(afterMs, then);
  }

  /** The answer's end has been let through. */
  protected ended(): void {
    if (this.isOver) return;
    this.#leave();
    if (this.#lateFault !== null) this.reply.fail(this.#lateFault);
  }

  #leave(): void {
    this.isOver = true;
    this.#timer?.cancel();
    this.drop();
    this.#released();
  }

  // --- from the client ---

  data(bytes: Uint8Array, start: number, stop: number): void {
    this.#sink.data(bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    this.#sink.end(trailers);
  }

  abort(cause: Fault): void {
    if (!this.isOver) this.#leave();
    this.#sink.abort(cause);
  }

  responseConsumed(bytes: number): void {
    this.#sink.responseConsumed(bytes);
  }

  // --- from the application ---

  informational(head: ResponseHead): void {
    this.reply.informational(head);
  }

  abstract head(head: ResponseHead, last: boolean): void;
  abstract body(bytes: Uint8Array, start: number, stop: number): void;
  abstract finish(trailers: Fields | null): void;

  fail(cause: Fault): void {
    if (!this.isOver && this.isEnding) {
      this.#lateFault = cause;
      return;
    }
    if (!this.isOver) this.#leave();
    this.reply.fail(cause);
  }

  requestConsumed(bytes: number): void {
    this.reply.requestConsumed(bytes);
  }
}
