import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import type { ResponseHead, ResponseSink } from "../http/exchange.ts";
import { HeldAnswer } from "./held-answer.ts";

/** Holds an answer's end back. One without a body is its own end, and comes late as a whole. */
export class LateEnd extends HeldAnswer {
  readonly #delayMs: number;
  #isEnding = false;

  constructor(reply: ResponseSink, clock: Clock, delayMs: number, released: () => void) {
    super(reply, clock, released);
    this.#delayMs = delayMs;
  }

  protected get isEnding(): boolean {
    return this.#isEnding;
  }

  protected drop(): void {}

  head(head: ResponseHead, last: boolean): void {
    if (this.isOver) return;
    if (last) this.#endLate(() => this.reply.head(head, true));
    else this.reply.head(head, false);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    if (!this.isOver) this.reply.body(bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    if (!this.isOver) this.#endLate(() => this.reply.finish(trailers));
  }

  #endLate(end: () => void): void {
    this.#isEnding = true;
    this.later(this.#delayMs, () => {
      end();
      this.ended();
    });
  }
}
