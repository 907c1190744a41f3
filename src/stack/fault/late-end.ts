import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type { ResponseHead, ResponseSink } from "../http/exchange.ts";
import { HeldAnswer } from "./held-answer.ts";

/**
 * Holds an answer's end back. Where a client counts bytes to know the end (Content-Length), the last byte is the end, and is
 * held with it. An answer without a body is its own end, and comes late as a whole.
 */
export class LateEnd extends HeldAnswer {
  readonly #delayMs: number;
  /** Bytes until the last one; Infinity where nobody counts. */
  #untilLastBytes = Infinity;
  #lastByte: Uint8Array | null = null;
  #isEnding = false;

  constructor(reply: ResponseSink, clock: Clock, delayMs: number, released: () => void) {
    super(reply, clock, released);
    this.#delayMs = delayMs;
  }

  protected get isEnding(): boolean {
    return this.#isEnding;
  }

  protected drop(): void {
    this.#lastByte = null;
  }

  head(head: ResponseHead, last: boolean): void {
    if (this.isOver) return;
    if (last) {
      this.#endLate(() => this.reply.head(head, true));
      return;
    }
    const length = Number(fieldValue(head.fields, "content-length") ?? Infinity);
    if (length > 0) this.#untilLastBytes = length - 1;
    this.reply.head(head, false);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    if (this.isOver) return;
    const size = stop - start;
    if (size <= this.#untilLastBytes) {
      this.#untilLastBytes -= size;
      this.reply.body(bytes, start, stop);
      return;
    }
    const lastAt = start + this.#untilLastBytes;
    this.#lastByte = bytes.subarray(lastAt, stop);
    this.#untilLastBytes = Infinity;
    if (lastAt > start) this.reply.body(bytes, start, lastAt);
  }

  finish(trailers: Fields | null): void {
    if (this.isOver) return;
    this.#endLate(() => {
      const bytes = this.#lastByte;
      if (bytes !== null) this.reply.body(bytes, 0, bytes.length);
      if (!this.isOver) this.reply.finish(trailers);
    });
  }

  #endLate(end: () => void): void {
    this.#isEnding = true;
    this.later(this.#delayMs, () => {
      end();
      this.ended();
    });
  }
}
