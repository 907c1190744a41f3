import type { Clock, Timer } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { Balancer } from "../balance/balancer.ts";
import type { BalancerSettings, Member } from "../balance/balancer.ts";
import type { Cancel, EndpointSource } from "../discovery.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "./exchange.ts";
import { SPENT } from "./exchange.ts";
import type { Fault } from "./fault.ts";
import { fault } from "./fault.ts";

/** A service for one endpoint, with connections that end when the endpoint leaves. */
export interface EndpointService extends HttpService {
  close(): void;
}

export interface DispatchSettings {
  readonly balancer: BalancerSettings;
  /** How long a request waits while the service has no endpoint at all (facts §12: failfast after 3 s). */
  readonly noEndpointWaitMs: number;
  /** Requests that may wait so. One more is refused at once. */
  readonly waitingMax: number;
  /** Endpoints that one request may try when it provably reached no application. */
  readonly attemptsMax: number;
  /** Body bytes already sent that are kept for another attempt; past it the request is bound to its endpoint. */
  readonly replayBytesMax: number;
}

export const DISPATCH_DEFAULTS: DispatchSettings = {
  balancer: { defaultRttMs: 30, decayMs: 10_000 },
  noEndpointWaitMs: 3_000,
  waitingMax: 10_000,
  attemptsMax: 8,
  replayBytesMax: 65_536,
};

/**
 * Sends each request to the best endpoint of a service, and on to another one when it provably reached no application
 * (connect failure, REFUSED_STREAM, GOAWAY): that is no retry in the sense of policy, for nobody saw the request.
 */
export class Dispatch implements HttpService {
  readonly name: string;
  readonly clock: Clock;
  readonly settings: DispatchSettings;
  readonly balancer: Balancer<EndpointService>;
  readonly #source: EndpointSource;
  readonly #subscription: Cancel;
  readonly #waiting = new Set<Attempt>();

  constructor(options: {
    name: string;
    source: EndpointSource;
    make: (endpoint: Endpoint) => EndpointService;
    clock: Clock;
    random: Random;
    settings?: DispatchSettings;
  }) {
    this.name = options.name;
    this.clock = options.clock;
    this.settings = options.settings ?? DISPATCH_DEFAULTS;
    this.#source = options.source;
    this.balancer = new Balancer({
      settings: this.settings.balancer,
      random: options.random,
      make: options.make,
      drop: (service) => service.close(),
    });
    this.balancer.update(options.source.endpoints, this.clock.nowMs());
    this.#subscription = options.source.subscribe(() => this.#changed());
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const attempt = new Attempt(this, head, last, reply);
    attempt.next();
    return attempt;
  }

  /** Connections end when idle; requests under way finish. */
  close(): void {
    this.#subscription.cancel();
    this.balancer.update([], this.clock.nowMs());
  }

  #changed(): void {
    this.balancer.update(this.#source.endpoints, this.clock.nowMs());
    if (this.balancer.members.length === 0) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const attempt of waiting) attempt.next();
  }

  /** Holds a request until there is an endpoint, for a bounded time. False: no room. */
  hold(attempt: Attempt): boolean {
    if (this.#waiting.size >= this.settings.waitingMax) return false;
    this.#waiting.add(attempt);
    return true;
  }

  release(attempt: Attempt): void {
    this.#waiting.delete(attempt);
  }
}

/** One request on its way to one endpoint after another: the caller's sink and the endpoints' reply in one. */
class Attempt implements RequestSink, ResponseSink {
  readonly #dispatch: Dispatch;
  readonly #head: RequestHead;
  readonly #last: boolean;
  readonly #reply: ResponseSink;
  #sink: RequestSink = SPENT;
  #member: Member<EndpointService> | null = null;
  /** Members that were let go: one may be given back from inside its call, and taken again. */
  #turn = 0;
  /** Members that gave it back. Short: `attemptsMax`. */
  #tried: Member<EndpointService>[] = NONE;
  #startedAtMs = 0;
  #waitTimer: Timer | null = null;
  #lastFault: Fault | null = null;
  #attempts = 0;
  /** All chunks so far, while the request may have to be sent again; null once it may not. At most `replayBytesMax` plus the caller's window. */
  #kept: KeptBytes | null;
  #ended: boolean;
  #trailers: Fields | null = null;
  /** Bytes that the caller already got credit for, sent once more: their credit is not passed on twice. */
  #uncreditedBytes = 0;
  #creditedBytes = 0;
  #answered = false;
  #over = false;

  constructor(dispatch: Dispatch, head: RequestHead, last: boolean, reply: ResponseSink) {
    this.#dispatch = dispatch;
    this.#head = head;
    this.#last = last;
    this.#ended = last;
    this.#kept = last ? NOTHING_KEPT : new KeptBytes();
    this.#reply = reply;
  }

  /** Picks an endpoint and sends the request; waits where there is none. */
  next(): void {
    if (this.#over) return;
    const { balancer, clock, settings, name } = this.#dispatch;
    const nowMs = clock.nowMs();
    const member =
      balancer.pick(nowMs, this.#tried) ?? (this.#mayRepeat() ? balancer.pick(nowMs, NONE) : null);
    if (member === null) {
      if (this.#lastFault !== null) this.#giveUp(this.#lastFault);
      else if (this.#waitTimer === null && !this.#dispatch.hold(this)) {
        this.#giveUp(
          fault("OVERLOADED", `${name}: more than ${settings.waitingMax} requests wait for an endpoint`, {
            safe: true,
            rule: `waitingMax=${settings.waitingMax}`,
          }),
        );
      } else if (this.#waitTimer === null) {
        this.#waitTimer = clock.after(settings.noEndpointWaitMs, () => {
          this.#dispatch.release(this);
          this.#giveUp(
            fault("NO_ENDPOINTS", `${name} has no ready endpoint; waited ${settings.noEndpointWaitMs} ms`, {
              safe: true,
              rule: `noEndpointWaitMs=${settings.noEndpointWaitMs}`,
            }),
          );
        });
      }
      return;
    }
    this.#waitTimer?.cancel();
    this.#waitTimer = null;
    this.#member = member;
    this.#startedAtMs = nowMs;
    member.pending++;
    this.#uncreditedBytes = this.#creditedBytes;
    const kept = this.#kept;
    const bodyFollows = !this.#last;
    const turn = this.#turn;
    const sink = member.extra.call(this.#head, this.#last, this);
    if (this.#turn !== turn) return; // given back from inside the call
    this.#sink = sink;
    if (bodyFollows && kept !== null) {
      for (const bytes of kept.chunks.slice()) {
        sink.data(bytes, 0, bytes.length);
        // Given back meanwhile, and on its way to another endpoint already, from the first byte.
        if (this.#sink !== sink) return;
      }
      if (this.#ended) sink.end(this.#trailers);
    }
  }

  // --- from the caller ---

  data(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#over) return;
    this.#kept?.push(bytes, start, stop);
    this.#sink.data(bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    this.#ended = true;
    this.#trailers = trailers;
    if (!this.#over) this.#sink.end(trailers);
  }

  abort(cause: Fault): void {
    if (this.#over) return;
    this.#over = true;
    this.#waitTimer?.cancel();
    this.#dispatch.release(this);
    this.#letGo();
    this.#sink.abort(cause);
  }

  responseConsumed(bytes: number): void {
    this.#sink.responseConsumed(bytes);
  }

  // --- from the endpoint ---

  informational(head: ResponseHead): void {
    this.#kept = null;
    this.#reply.informational(head);
  }

  head(head: ResponseHead, last: boolean): void {
    this.#answered = true;
    this.#kept = null;
    const member = this.#member;
    if (member !== null) {
      const nowMs = this.#dispatch.clock.nowMs();
      member.latency.observe(nowMs - this.#startedAtMs, nowMs);
      member.ejection.succeeded();
    }
    if (last) this.#letGo();
    this.#reply.head(head, last);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    this.#reply.body(bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    this.#letGo();
    this.#reply.finish(trailers);
  }

  fail(cause: Fault): void {
    const member = this.#member;
    if (member === null && !this.#answered) return;
    this.#letGo();
    this.#sink = SPENT;
    if (this.#over) return;
    const { clock, settings } = this.#dispatch;
    if (member !== null && (cause.code === "CONNECT_FAILED" || cause.code === "CONNECT_TIMEOUT"))
      member.ejection.failed(clock.nowMs());
    this.#attempts++;
    const again =
      cause.safe &&
      !this.#answered &&
      this.#kept !== null &&
      member !== null &&
      this.#attempts < settings.attemptsMax;
    if (!again) {
      this.#over = true;
      this.#reply.fail(cause);
      return;
    }
    this.#tried = this.#tried === NONE ? [member] : [...this.#tried, member];
    this.#lastFault = cause;
    this.next();
  }

  requestConsumed(bytes: number): void {
    const repeated = Math.min(bytes, this.#uncreditedBytes);
    this.#uncreditedBytes -= repeated;
    const fresh = bytes - repeated;
    if (fresh === 0) return;
    this.#creditedBytes += fresh;
    if (this.#creditedBytes > this.#dispatch.settings.replayBytesMax) this.#kept = null;
    this.#reply.requestConsumed(fresh);
  }

  /** A connection that ended or refused says little of its endpoint: a fresh one may serve. A failed connect says enough. */
  #mayRepeat(): boolean {
    return this.#lastFault?.code === "REFUSED" || this.#lastFault?.code === "RESET";
  }

  #giveUp(cause: Fault): void {
    if (this.#over) return;
    this.#over = true;
    this.#reply.fail(cause);
  }

  #letGo(): void {
    if (this.#member === null) return;
    this.#member.pending--;
    this.#member = null;
    this.#turn++;
  }
}

/** Of all requests without a body. */
const NOTHING_KEPT = new KeptBytes();
const NONE: Member<EndpointService>[] = [];
