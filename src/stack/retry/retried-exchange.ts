import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import type { Random } from "#/base/random.ts";
import type { RetryPolicy, Timeouts } from "#/model/route.ts";
import { TriedEndpoints } from "../http/dispatch.ts";
import type { RequestHead, RequestSink, ResponseHead, ResponseSink } from "../http/exchange.ts";
import type { Fault } from "../http/fault.ts";
import { fault } from "../http/fault.ts";
import { asSeen, isGrpc } from "../http/mesh-answer.ts";
import { Request } from "../http/translate.ts";
import type { AttemptOwner } from "./attempt.ts";
import { Attempt } from "./attempt.ts";
import type { DeadlineWheel } from "./deadline-wheel.ts";
import { Deadline } from "./deadline-wheel.ts";
import { grpcTimeoutMs, withGrpcTimeout } from "./grpc-deadline.ts";
import type { Overridden } from "./request-overrides.ts";
import type { Destination, Destinations, RetryRule, TimeoutKind } from "./retry-rule.ts";
import type { RetryPressure } from "./retry-pressure.ts";
import { isWithheldBehind, WITHHELD, withWithheld } from "./retry-pressure.ts";
import {
  awaitsTrailers,
  backoffMs,
  hintMs,
  isRetryableAnswer,
  isRetryableFault,
  isRetryableTrailers,
} from "./retry-verdict.ts";

/** What exchanges of a sidecar share. */
export interface RetryRoom {
  readonly clock: Clock;
  readonly random: Random;
  readonly deadlines: DeadlineWheel;
  readonly keptBytesMax: number;
  readonly pressure: RetryPressure;
  /** Of all bodies that are kept now. */
  keptBytes: number;
  /** Runs it at the end of this turn. One task of the clock for all of them. */
  soon(task: SoonTask): void;
}

export interface SoonTask {
  soon(): void;
}

/** A server's wish to be left alone for longer is not waited for where the request has no timeout of its own. */
const HINT_MS_MAX = 30_000;

/** One request from its head to its end, over all its attempts. */
export class RetriedExchange extends Deadline implements RequestSink, AttemptOwner, SoonTask {
  readonly #room: RetryRoom;
  readonly #rule: RetryRule;
  readonly #own: Overridden | null;
  readonly #timeouts: Timeouts;
  readonly #policy: RetryPolicy | null;
  readonly #destinations: Destinations;
  readonly #head: RequestHead;
  readonly #last: boolean;
  readonly #reply: ResponseSink;
  readonly #isCall: boolean;
  /** The client's own deadline; null without one. */
  readonly #callTimeoutMs: number | null;
  readonly #tried: TriedEndpoints | null;

  /** The one that is heard; null between two, and when all is over. */
  #attempt: Attempt | null = null;
  /** Where the next one goes, while its time has not come. */
  #next: Destination | null = null;
  /** Attempts after the first, the one that `#next` awaits included. */
  #retries = 0;

  /** The body so far, while it may have to be sent again; null once it may not, and for requests without one. */
  #kept: KeptBytes | null;
  #keptBytes = 0;
  #ended: boolean;
  #trailers: Fields | null = null;
  /** The most that any attempt has reported as consumed: so much the client got credit for. */
  #creditedBytes = 0;
  #continued = false;
  /** The final answer's head was passed on: no other attempt can follow. */
  #answered = false;
  /** The final answer has ended. */
  #isDone = false;
  #isOver = false;
  /** There may be another attempt: where it can go is held. */
  #isHolding = false;
  /** Why an answer that the policy would have sent again was not; "" otherwise. */
  #withheld = "";

  #requestAtMs = Infinity;
  /** Set once the request has been received. */
  #responseAtMs = Infinity;
  /** Of the attempt under way, or the last. */
  #attemptMs = Infinity;
  #attemptAtMs = Infinity;
  /** When an attempt that has no head yet is given up in favour of another. */
  #headAtMs = Infinity;
  #retryAtMs = Infinity;
  #activeAtMs = 0;

  constructor(
    room: RetryRoom,
    rule: RetryRule,
    own: Overridden | null,
    destinations: Destinations,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
  ) {
    super();
    this.#room = room;
    this.#rule = rule;
    this.#own = own;
    const { timeouts, retry } = own ?? rule;
    this.#timeouts = timeouts;
    this.#policy = retry !== null && retry.retriesMax > 0 ? retry : null;
    this.#destinations = destinations;
    this.#head = head;
    this.#last = last;
    this.#reply = reply;
    this.#isCall = isGrpc(head);
    this.#callTimeoutMs = this.#isCall ? grpcTimeoutMs(head.fields) : null;
    this.#tried = this.#policy === null ? null : new TriedEndpoints();
    this.#kept = last || this.#policy === null ? null : new KeptBytes(0);
    this.#ended = last;
  }

  begin(): void {
    const nowMs = this.#room.clock.nowMs();
    const requestMs = Math.min(this.#timeouts.requestMs ?? Infinity, this.#callTimeoutMs ?? Infinity);
    this.#requestAtMs = nowMs + requestMs;
    if (this.#last) this.#awaitEnd();
    const destination = this.#destinations.draw(this.#head, null);
    if (this.#policy !== null) {
      this.#isHolding = true;
      this.#destinations.hold();
      destination.budget?.request(nowMs);
      this.#room.pressure.isPossible = true;
    }
    this.#start(destination, nowMs);
  }

  #start(destination: Destination, nowMs: number): void {
    this.#attemptMs = destination.attemptTimeoutMs ?? this.#timeouts.attemptMs ?? Infinity;
    this.#attemptAtMs = nowMs + this.#attemptMs;
    const policy = this.#policy;
    const mayFollow = policy !== null && this.#retries < policy.retriesMax;
    this.#headAtMs = mayFollow ? nowMs + (policy.attemptTimeoutMs ?? Infinity) : Infinity;
    this.#activeAtMs = nowMs;
    const attempt = new Attempt(this);
    const kept = this.#kept;
    attempt.isReplaying = this.#retries > 0 && kept !== null;
    this.#attempt = attempt;
    this.#arm();
    if (this.#tried !== null) this.#tried.attempts++;
    attempt.attach(destination.call(this.#headFor(nowMs), this.#last, attempt, this.#tried));
    if (attempt.isReplaying && kept !== null) this.#replay(attempt, kept);
  }

  #replay(attempt: Attempt, kept: KeptBytes): void {
    if (this.#attempt !== attempt) return;
    // What comes meanwhile is kept, and may be joined to the last chunk.
    let at = 0;
    let startBytes = 0;
    for (let chunk = kept.chunks[at]; chunk !== undefined; chunk = kept.chunks[at]) {
      if (startBytes < chunk.length) {
        const stop = chunk.length;
        attempt.sink.data(chunk, startBytes, stop);
        if (this.#attempt !== attempt) return;
        startBytes = stop;
      } else {
        at++;
        startBytes = 0;
      }
    }
    if (this.#ended) attempt.sink.end(this.#trailers);
    attempt.isReplaying = false;
    if (this.#attempt !== attempt) return;
    if (this.#answered || this.#keptBytes > (this.#policy?.bodyBytesMax ?? 0)) this.#unkeep();
    this.#credit(attempt);
  }

  /** gRPC over HTTP2, "Timeout": what is left, so that no server works on for a client that has gone. */
  #headFor(nowMs: number): RequestHead {
    if (!this.#isCall) return this.#head;
    const leftMs = Math.min(this.#requestAtMs, this.#attemptAtMs) - nowMs;
    if (leftMs === Infinity || (this.#retries === 0 && leftMs === this.#callTimeoutMs)) return this.#head;
    return new Request({ ...this.#head, fields: withGrpcTimeout(this.#head.fields, leftMs) });
  }

  // --- from the client ---

  data(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#isOver) return;
    this.#touch();
    const attempt = this.#attempt;
    const isHeldUp = attempt === null || attempt.isReplaying;
    if (this.#kept !== null) this.#keep(this.#kept, bytes, start, stop, isHeldUp);
    if (!isHeldUp) attempt.sink.data(bytes, start, stop);
  }

  /** `isNeeded`: nobody has it yet. More than its bound is then kept, at most the client's window. */
  #keep(kept: KeptBytes, bytes: Uint8Array, start: number, stop: number, isNeeded: boolean): void {
    const size = stop - start;
    const room = this.#room;
    const bytesMax = this.#policy?.bodyBytesMax ?? 0;
    if (!isNeeded && (this.#keptBytes + size > bytesMax || room.keptBytes + size > room.keptBytesMax)) {
      this.#unkeep();
      return;
    }
    kept.push(bytes, start, stop);
    this.#keptBytes += size;
    room.keptBytes += size;
  }

  end(trailers: Fields | null): void {
    if (this.#isOver || this.#ended) return;
    this.#ended = true;
    this.#trailers = trailers;
    this.#touch();
    if (!this.#answered) this.#awaitEnd();
    const attempt = this.#attempt;
    if (attempt !== null && !attempt.isReplaying) attempt.sink.end(trailers);
  }

  abort(cause: Fault): void {
    if (this.#isOver) return;
    const attempt = this.#attempt;
    this.#close();
    attempt?.abort(cause);
  }

  responseConsumed(bytes: number): void {
    if (this.#isOver) return;
    this.#touch();
    this.#attempt?.responseConsumed(bytes);
  }

  // --- from an attempt ---

  isHeard(attempt: Attempt): boolean {
    return this.#attempt === attempt;
  }

  /**
   * RFC 9110 §15.2: an interim answer is none, so it is passed on at once and another attempt may follow. The body is asked
   * for (100) only once.
   */
  informational(head: ResponseHead): void {
    this.#touch();
    if (head.status === 100) {
      if (this.#continued) return;
      this.#continued = true;
    }
    this.#reply.informational(head);
  }

  head(attempt: Attempt, head: ResponseHead, last: boolean): void {
    this.#touch();
    this.#headAtMs = Infinity;
    const policy = this.#policy;
    if (policy === null) this.#pass(head, last);
    else if (isRetryableAnswer(policy, this.#isCall, head.status, head.fields)) {
      if (isWithheldBehind(head.fields)) {
        // What failed is out of retries itself. Whoever waits for us is to know it as well.
        this.#room.pressure.withheld(this.#room.clock.nowMs());
        this.#rule.series.retryOverflowed("behind");
        this.#pass(head, last);
      } else if (this.#retryAnswer(policy, head.fields)) this.#discard(attempt, last);
      else this.#pass(this.#signed(head), last);
    } else if (!last && this.#isCall && awaitsTrailers(policy, head.status, head.fields)) {
      // Trailers may have come with it, and say that it is none to be passed on. Not a turn longer: a stream may begin so.
      attempt.held = head;
      this.#room.soon(attempt);
    } else this.#settle(head, last);
  }

  body(attempt: Attempt, bytes: Uint8Array, start: number, stop: number): void {
    this.release(attempt);
    if (this.#attempt !== attempt) return;
    this.#touch();
    this.#reply.body(bytes, start, stop);
  }

  finish(attempt: Attempt, trailers: Fields | null): void {
    const { held } = attempt;
    const policy = this.#policy;
    if (held !== null && policy !== null && trailers !== null && isRetryableTrailers(policy, trailers)) {
      attempt.held = null;
      if (this.#retryAnswer(policy, trailers)) {
        this.#discard(attempt, true);
        return;
      }
      this.#pass(this.#signed(held), false);
    } else this.release(attempt);
    if (this.#attempt !== attempt) return;
    this.#rest();
    this.#reply.finish(trailers);
  }

  /** A head that was held back for its trailers is passed on. */
  release(attempt: Attempt): void {
    const { held } = attempt;
    if (held === null) return;
    attempt.held = null;
    this.#settle(held, false);
  }

  fail(cause: Fault): void {
    const policy = this.#policy;
    if (!this.#answered && policy !== null && isRetryableFault(policy, this.#isCall, cause)) {
      const askedMs = cause.explanation?.retryAfterMs ?? cause.retryAfterMs;
      if (this.#retry(policy.respectsRetryAfter ? Math.max(0, askedMs) : 0)) return;
    }
    this.#close();
    // That an endpoint does not want the rest is no news to a client which has sent it.
    if (this.#isDone && this.#ended) return;
    this.#reply.fail(this.#answered ? cause : this.#explained(this.#retries > 0 ? asSeen(cause) : cause));
  }

  credited(attempt: Attempt): void {
    this.#touch();
    this.#credit(attempt);
  }

  /** What an earlier attempt already took is not credited again. */
  #credit(attempt: Attempt): void {
    const bytes = attempt.creditedBytes - this.#creditedBytes;
    if (bytes <= 0) return;
    this.#creditedBytes = attempt.creditedBytes;
    this.#reply.requestConsumed(bytes);
  }

  // --- answers ---

  /** An answer that the policy is content with. */
  #settle(head: ResponseHead, last: boolean): void {
    if (this.#retries > 0) this.#rule.series.retrySucceeded();
    this.#pass(head, last);
  }

  #pass(head: ResponseHead, last: boolean): void {
    this.#answered = true;
    this.#letGo();
    this.#unkeep();
    this.#awaitEnd();
    // A tunnel is an answer for as long as both sides like, and only silence ends it.
    if (head.status === 101 || (this.#head.method === "CONNECT" && head.status < 300)) {
      this.#requestAtMs = Infinity;
      this.#responseAtMs = Infinity;
      this.#attemptAtMs = Infinity;
    }
    if (last) this.#rest();
    this.#reply.head(head, last);
  }

  /** The answer is complete; the request may still go on. */
  #rest(): void {
    this.#isDone = true;
    this.#requestAtMs = Infinity;
    this.#responseAtMs = Infinity;
    this.#attemptAtMs = Infinity;
    this.#activeAtMs = Infinity;
    this.#room.deadlines.clear(this);
  }

  #signed(head: ResponseHead): ResponseHead {
    return this.#withheld === "" ? head : withWithheld(head, "client", this.#withheld);
  }

  #explained(cause: Fault): Fault {
    if (this.#withheld === "") return cause;
    const { explanation } = cause;
    return {
      ...cause,
      message: `${cause.message}; ${this.#withheld}`,
      explanation:
        explanation === null
          ? null
          : {
              ...explanation,
              line: `${explanation.line}; ${this.#withheld}`,
              proxyStatus: `${explanation.proxyStatus};${WITHHELD}`,
            },
    };
  }

  // --- retries ---

  /** … of an answer, which may ask to be left alone for a while. */
  #retryAnswer(policy: RetryPolicy, fields: Fields): boolean {
    return this.#retry(hintMs(policy, this.#isCall, fields, this.#room.clock.wallMs()));
  }

  /** Whether there will be another attempt in place of this one. `askedMs`: a pause that the server asks for. */
  #retry(askedMs: number): boolean {
    const policy = this.#policy as RetryPolicy;
    const { series } = this.#rule;
    const { clock, random } = this.#room;
    if (this.#retries >= policy.retriesMax) {
      series.retryLimitExceeded();
      this.#head.trace?.add("retry-withheld", [["why", `the rule allows ${policy.retriesMax}`]]);
      return false;
    }
    if (this.#kept === null && !this.#last) {
      series.retryOverflowed("body");
      this.#head.trace?.add("retry-withheld", [["why", "the body is longer than is kept"]]);
      return false;
    }
    const delayMs = Math.max(askedMs, backoffMs(policy.backoff, this.#retries + 1, random.next()));
    const nowMs = clock.nowMs();
    const overAtMs = Math.min(this.#requestAtMs, this.#responseAtMs);
    if (nowMs + delayMs >= overAtMs || (overAtMs === Infinity && askedMs > HINT_MS_MAX)) return false;
    const destination = this.#destinations.draw(this.#head, this.#tried);
    const { budget } = destination;
    if (budget === null) return false;
    if (!budget.tryRetry(nowMs)) {
      const { percent, intervalMs } = budget.settings;
      this.#withheld = `not sent again: retries are at ${percent}% of requests within ${intervalMs} ms`;
      this.#room.pressure.withheld(nowMs);
      series.retryOverflowed("budget");
      this.#head.trace?.add("retry-withheld", [["why", this.#withheld]]);
      return false;
    }
    this.#withheld = "";
    this.#retries++;
    this.#next = destination;
    this.#attempt = null;
    this.#attemptAtMs = Infinity;
    this.#headAtMs = Infinity;
    this.#retryAtMs = nowMs + delayMs;
    const { percent, intervalMs } = budget.settings;
    this.#head.trace?.add("retry", [
      ["n", this.#retries],
      ["after", delayMs],
      ["budget", `within ${percent}% in ${intervalMs} ms`],
    ]);
    // Never from inside the attempt that it replaces.
    if (delayMs === 0) this.#room.soon(this);
    else this.#arm();
    return true;
  }

  /** The pause before an attempt is over. */
  soon(): void {
    const destination = this.#next;
    if (destination === null) return;
    this.#next = null;
    this.#retryAtMs = Infinity;
    this.#rule.series.retried();
    this.#start(destination, this.#room.clock.nowMs());
  }

  /** An answer nobody hears: it is read to its end where it has one in sight, so that the connection can be used again. */
  #discard(attempt: Attempt, isComplete: boolean): void {
    attempt.discard(isComplete, this.#ended && !attempt.isReplaying, this.#room);
  }

  // --- time ---

  expire(nowMs: number): void {
    if (this.#isOver) return;
    if (this.#requestAtMs <= nowMs) this.#timeOut("request");
    else if (this.#responseAtMs <= nowMs) this.#timeOut("response");
    else if (this.#retryAtMs <= nowMs) this.soon();
    else if (this.#attemptAtMs <= nowMs) this.#giveUp("attempt");
    else if (this.#idleAtMs <= nowMs) this.#giveUp("idle");
    else if (this.#headAtMs <= nowMs) this.#preferAnother();
    if (!this.#isOver) this.#arm();
  }

  /** The attempt is over, whether or not there can be another. */
  #giveUp(kind: TimeoutKind): void {
    const attempt = this.#attempt as Attempt;
    if (this.#answered || this.#policy === null || !this.#retry(0)) this.#timeOut(kind);
    else this.#drop(attempt, kind);
  }

  /** The attempt is over if there can be another; else its answer may still come. */
  #preferAnother(): void {
    const attempt = this.#attempt as Attempt;
    this.#headAtMs = Infinity;
    if (this.#retry(0)) this.#drop(attempt, "attempt");
  }

  #drop(attempt: Attempt, kind: TimeoutKind): void {
    this.#rule.series.timedOut(kind);
    attempt.abort(fault("TIMEOUT", "no answer in time; it is sent again"));
  }

  #timeOut(kind: TimeoutKind): void {
    this.#rule.series.timedOut(kind);
    const attempt = this.#attempt;
    const cause = this.#explained(this.#timeoutFault(kind));
    this.#close();
    attempt?.abort(cause);
    this.#reply.fail(cause);
  }

  #timeoutFault(kind: TimeoutKind): Fault {
    const { requestMs, responseMs, idleMs } = this.#timeouts;
    const { label } = this.#rule;
    const own = this.#own;
    const what = this.#answered ? "the answer was not complete" : "no answer came";
    const tries = this.#retries === 0 ? "" : `, in ${this.#retries + 1} attempts`;
    switch (kind) {
      case "idle":
        return fault("TIMEOUT", `nothing was sent in either direction for ${idleMs} ms`, {
          rule: `${label}: idle timeout`,
        });
      case "attempt":
        return fault("TIMEOUT", `${what} within an attempt's ${this.#attemptMs} ms${tries}`, {
          rule: `${label}: timeouts.backendRequest`,
        });
      case "response":
        return fault("TIMEOUT", `${what} within ${responseMs} ms of the request's end${tries}`, {
          rule: own === null || own.responseFrom === "" ? `${label}: response timeout` : own.responseFrom,
        });
      case "request": {
        const isCalls = (this.#callTimeoutMs ?? Infinity) < (requestMs ?? Infinity);
        const rule = own === null || own.requestFrom === "" ? `${label}: timeouts.request` : own.requestFrom;
        return fault("TIMEOUT", `${what} within ${isCalls ? this.#callTimeoutMs : requestMs} ms${tries}`, {
          rule: isCalls ? "grpc-timeout" : rule,
        });
      }
    }
  }

  get #idleAtMs(): number {
    return this.#attempt === null ? Infinity : this.#activeAtMs + (this.#timeouts.idleMs ?? Infinity);
  }

  /** What is due later than the wheel has it is found out when that is over. So a byte that moves the moment costs nothing more. */
  #arm(): void {
    const atMs = Math.min(
      this.#requestAtMs,
      this.#responseAtMs,
      this.#attemptAtMs,
      this.#headAtMs,
      this.#retryAtMs,
      this.#idleAtMs,
    );
    if (atMs < this.dueAtMs) this.#room.deadlines.set(this, atMs);
  }

  /** The request's last byte, or the answer's head, has come. */
  #awaitEnd(): void {
    const { responseMs } = this.#timeouts;
    if (responseMs === null || this.#responseAtMs < Infinity) return;
    this.#responseAtMs = this.#room.clock.nowMs() + responseMs;
    this.#arm();
  }

  #touch(): void {
    if (this.#timeouts.idleMs !== null && !this.#isDone) this.#activeAtMs = this.#room.clock.nowMs();
  }

  // --- ends ---

  /** Not while an attempt is still getting it. */
  #unkeep(): void {
    if (this.#attempt?.isReplaying === true) return;
    this.#room.keptBytes -= this.#keptBytes;
    this.#keptBytes = 0;
    this.#kept = null;
  }

  /** No other attempt follows. */
  #letGo(): void {
    if (!this.#isHolding) return;
    this.#isHolding = false;
    this.#destinations.release();
  }

  #close(): void {
    this.#isOver = true;
    this.#attempt = null;
    this.#next = null;
    this.#letGo();
    this.#unkeep();
    this.#room.deadlines.clear(this);
  }
}
