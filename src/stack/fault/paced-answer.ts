import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import type { ResponseHead, ResponseSink } from "../http/exchange.ts";
import { HeldAnswer } from "./held-answer.ts";

/** Bytes leave so often at most. */
const TICK_MS = 50;

/** Lets a body through no faster than so many bytes in a second. The head is not held. */
export class PacedAnswer extends HeldAnswer {
  readonly #bytesPerMs: number;
  readonly #kept = new KeptBytes();
  /** Bytes that may leave at once, as of `#countedAtMs`. */
  #allowedBytes = 0;
  #countedAtMs: number;
  #isWaiting = false;
  #isPassing = false;
  #hasEnded = false;
  #trailers: Fields | null = null;

  constructor(reply: ResponseSink, clock: Clock, bytesPerSecond: number, released: () => void) {
    super(reply, clock, released);
    this.#bytesPerMs = Math.max(1, bytesPerSecond) / 1_000;
    this.#countedAtMs = clock.nowMs();
  }

  protected get isEnding(): boolean {
    return this.#hasEnded;
  }

  protected drop(): void {
    this.#kept.take();
  }

  head(head: ResponseHead, last: boolean): void {
    this.reply.head(head, last);
    if (last) this.ended();
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    if (this.isOver) return;
    this.#kept.push(bytes, start, stop);
    this.#pass();
  }

  finish(trailers: Fields | null): void {
    if (this.isOver) return;
    this.#hasEnded = true;
    this.#trailers = trailers;
    this.#pass();
  }

  #pass(): void {
    // What is taken gives credit, for which more may come from inside.
    if (this.#isWaiting || this.#isPassing || this.isOver) return;
    this.#isPassing = true;
    this.#count();
    const { chunks } = this.#kept;
    while (!this.isOver && chunks.length > 0 && this.#allowedBytes >= 1) {
      const chunk = chunks[0] as Uint8Array;
      const bytes = Math.min(chunk.length, Math.floor(this.#allowedBytes));
      if (bytes === chunk.length) chunks.shift();
      else chunks[0] = chunk.subarray(bytes);
      this.#allowedBytes -= bytes;
      this.reply.body(chunk, 0, bytes);
    }
    this.#isPassing = false;
    if (this.isOver) return;
    if (!this.#kept.isEmpty) {
      this.#isWaiting = true;
      this.later(Math.max(TICK_MS, 1 / this.#bytesPerMs), () => {
        this.#isWaiting = false;
        this.#pass();
      });
    } else if (this.#hasEnded) {
      this.reply.finish(this.#trailers);
      this.ended();
    }
  }

  /**
   * What was not used while the application was slow is lost, for a pace has no bursts; but for two ticks' worth, for timers
   * fire late, and the part of a byte that is left over.
   */
  #count(): void {
    const nowMs = this.nowMs;
    const mostBytes = 2 * TICK_MS * this.#bytesPerMs + 1;
    const earnedBytes = (nowMs - this.#countedAtMs) * this.#bytesPerMs;
    this.#allowedBytes = Math.min(mostBytes, this.#allowedBytes + earnedBytes);
    this.#countedAtMs = nowMs;
  }
}
