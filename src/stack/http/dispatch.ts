import type { Clock, Timer } from "#/base/clock.ts";
import { copyOf } from "#/base/copy-of.ts";
import type { Fields } from "#/base/fields.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { BackendTraffic, SessionPersistence } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { BackendBounds } from "../balance/backend-bounds.ts";
import type { BackendLimit } from "../balance/backend-bounds.ts";
import { Balancer } from "../balance/balancer.ts";
import type { BalancedClient, BalancerSettings, Member } from "../balance/balancer.ts";
import { RECONNECT_WAIT_MS, ReconnectWait } from "../balance/reconnect-wait.ts";
import type { Cancel, EndpointSource } from "../discovery.ts";
import type { Attempted } from "./endpoint-report.ts";
import { reportFault, reportHead, reportTrailers } from "./endpoint-report.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "./exchange.ts";
import { lendBody, lendData, SPENT } from "./exchange.ts";
import type { Fault, FaultCode } from "./fault.ts";
import { fault } from "./fault.ts";

/** A service for one endpoint, with connections that end when the endpoint leaves. */
export interface EndpointService extends HttpService {
  close(): void;
}

export interface DispatchSettings {
  readonly balancer: BalancerSettings;
  /** How long a request waits while the service has no endpoint at all (facts §12: failfast after 3 s). */
  readonly noEndpointWaitMs: number;
  /**
   * How long after its first attempt began a request may still be tried anew, with pauses, that no endpoint has taken, if the last
   * one to say so was a sidecar, or had one that was not to be had: these come and go with rollouts. A program that is
   * not there is none of our making, and its clients learn it at once. 0: never.
   */
  readonly reconnectWaitMs: number;
  /** Requests that may wait for either. One more fails at once. */
  readonly waitingMax: number;
  /** Attempts without a pause of one request that provably reached no application. */
  readonly attemptsMax: number;
  /** Body bytes already sent that are kept for another attempt; past it the request is bound to its endpoint. */
  readonly replayBytesMax: number;
}

export const DISPATCH_DEFAULTS: DispatchSettings = {
  balancer: { defaultRttMs: 30, decayMs: 10_000 },
  noEndpointWaitMs: 3_000,
  reconnectWaitMs: RECONNECT_WAIT_MS,
  waitingMax: 10_000,
  attemptsMax: 8,
  replayBytesMax: 65_536,
};

/** Endpoints that attempts of one request went to, of any number of services: a further attempt prefers others. */
export class TriedEndpoints {
  readonly members: Member<EndpointService>[] = [];
  /** Attempts that were begun, the one under way included. */
  attempts = 0;

  add(member: Member<EndpointService>): void {
    if (!this.members.includes(member)) this.members.push(member);
  }
}

/**
 * Sends each request to the best endpoint of a service, and on to another one when it provably reached no application
 * (connect failure, REFUSED_STREAM, GOAWAY): that is no retry in the sense of policy, for nobody saw the request. One that all
 * endpoints gave back is tried again a little later, or when there is another endpoint (`reconnectWaitMs`).
 */
export class Dispatch implements HttpService {
  readonly name: string;
  readonly clock: Clock;
  readonly settings: DispatchSettings;
  readonly balancer: Balancer<EndpointService>;
  readonly bounds: BackendBounds;
  readonly random: Random;
  readonly #source: EndpointSource;
  readonly #subscription: Cancel;
  readonly #waiting = new Set<Attempt>();

  constructor(options: {
    name: string;
    source: EndpointSource;
    /** `bounds`: what all endpoints may have together. */
    make: (endpoint: Endpoint, bounds: BackendBounds) => EndpointService;
    clock: Clock;
    random: Random;
    settings?: DispatchSettings;
    traffic?: BackendTraffic;
    client?: BalancedClient;
    /** A request was refused by a bound of `traffic`. */
    limitReached?: (limit: BackendLimit) => void;
  }) {
    this.name = options.name;
    this.clock = options.clock;
    this.settings = options.settings ?? DISPATCH_DEFAULTS;
    this.random = options.random;
    this.#source = options.source;
    this.bounds = new BackendBounds(options.name, options.limitReached);
    const traffic = options.traffic ?? BACKEND_TRAFFIC_DEFAULTS;
    this.bounds.configure(traffic);
    this.balancer = new Balancer({
      settings: this.settings.balancer,
      traffic,
      ...(options.client === undefined ? {} : { client: options.client }),
      random: options.random,
      wallMs: () => options.clock.wallMs(),
      make: (endpoint) => options.make(endpoint, this.bounds),
      drop: (service) => service.close(),
    });
    this.balancer.update(options.source.endpoints, this.clock.nowMs());
    this.#subscription = options.source.subscribe(() => this.#changed());
  }

  /**
   * Takes other settings for the requests that come. Connections, statistics and whoever is set aside stay. Cheap where they are the
   * ones it has.
   */
  configure(traffic: BackendTraffic): void {
    this.balancer.configure(traffic, this.clock.nowMs());
    this.bounds.configure(this.balancer.traffic);
  }

  /**
   * Endpoints in `tried` are taken only where there is no other; those that the request goes to are added. `persistence`: sessions of the
   * request's rule.
   */
  call(
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
    tried: TriedEndpoints | null = null,
    persistence: SessionPersistence | null = null,
  ): RequestSink {
    if (this.bounds.limits.requestsMax > 0) {
      const refusal = this.bounds.refuseRequest(this.balancer.pending + this.#waiting.size);
      if (refusal !== null) {
        reply.fail(refusal);
        return SPENT;
      }
    }
    const attempt = new Attempt(this, head, last, reply, tried, persistence);
    attempt.next();
    return attempt;
  }

  /** Whether the request belongs to a session of an endpoint here. */
  holdsSession(fields: Fields, persistence: SessionPersistence): boolean {
    return this.balancer.sessionMember(fields, persistence) !== null;
  }

  /** Whether an endpoint in use here has not had the request. */
  hasUntried({ members }: TriedEndpoints): boolean {
    return this.balancer.hasOther(members);
  }

  /** Whether requests are at its endpoints, or wait for one. */
  get isBusy(): boolean {
    return this.balancer.pending + this.#waiting.size > 0;
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
    for (const attempt of waiting) this.release(attempt);
    for (const attempt of waiting) attempt.next();
  }

  /** Calls `next` of a request when the endpoints change, until it is released. Gives why not, where there is no room. */
  hold(attempt: Attempt): Fault | null {
    const { waitingMax } = this.settings;
    if (this.#waiting.has(attempt)) return null;
    if (this.#waiting.size >= waitingMax) {
      return fault("OVERLOADED", `${this.name}: more than ${waitingMax} requests wait for an endpoint`, {
        safe: true,
        rule: `waitingMax=${waitingMax}`,
      });
    }
    const refusal = this.bounds.refuseWaiting();
    if (refusal === null) {
      this.#waiting.add(attempt);
      this.bounds.waiting++;
    }
    return refusal;
  }

  release(attempt: Attempt): void {
    if (this.#waiting.delete(attempt)) this.bounds.waiting--;
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
  /** Those that earlier attempts of the same request went to, and this one; null where there are no others. */
  readonly #everTried: TriedEndpoints | null;
  readonly #persistence: SessionPersistence | null;
  /** Null until an endpoint gives it back. */
  #setback: Setback | null = null;
  #startedAtMs = 0;
  #waitTimer: Timer | null = null;
  /** All chunks so far, while the request may have to be sent again; null once it may not. At most `replayBytesMax` plus the caller's window. */
  #kept: KeptBytes | null;
  #ended: boolean;
  #trailers: Fields | null = null;
  /** Bytes that the caller already got credit for, sent once more: their credit is not passed on twice. */
  #uncreditedBytes = 0;
  #creditedBytes = 0;
  #answered = false;
  #over = false;

  constructor(
    dispatch: Dispatch,
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
    everTried: TriedEndpoints | null,
    persistence: SessionPersistence | null,
  ) {
    this.#dispatch = dispatch;
    this.#everTried = everTried;
    this.#persistence = persistence;
    this.#head = head;
    this.#last = last;
    this.#ended = last;
    this.#kept = last ? NOTHING_KEPT : new KeptBytes();
    this.#reply = reply;
  }

  /** Picks an endpoint and sends the request; waits where there is none. */
  next(): void {
    if (this.#over) return;
    const nowMs = this.#dispatch.clock.nowMs();
    const setback = this.#setback;
    const member = setback === null ? this.#pick(NONE, nowMs) : this.#pickAnew(setback, nowMs);
    if (member !== null) this.#send(member, nowMs);
    else if (this.#dispatch.balancer.members.length === 0) this.#waitForEndpoint();
    else if (setback !== null) this.#waitToReconnect(setback, nowMs);
    else this.#refuseBroken();
  }

  /** One that no attempt went to, else one that is not in `tried`. Rather one of those again than one that is set aside. */
  #pick(tried: readonly Member<EndpointService>[], nowMs: number): Member<EndpointService> | null {
    const { balancer } = this.#dispatch;
    const { fields } = this.#head;
    const ever = this.#everTried?.members ?? NONE;
    const persistence = this.#persistence;
    return (
      (ever.length > 0 ? balancer.pickInUse(nowMs, ever, fields, persistence) : null) ??
      balancer.pick(nowMs, tried, fields, persistence)
    );
  }

  /** Whoever was not asked yet; with a reason to, somebody for another time. */
  #pickAnew(setback: Setback, nowMs: number): Member<EndpointService> | null {
    const { balancer, settings } = this.#dispatch;
    const isDue = setback.isDue;
    setback.isDue = false;
    if (!isDue && setback.attempts >= settings.attemptsMax) return null;
    const member = this.#pick(setback.tried, nowMs);
    if (member !== null) return member;
    return isDue || mayRepeatAtOnce(setback.cause)
      ? balancer.pick(nowMs, NONE, this.#head.fields, this.#persistence)
      : null;
  }

  /** Only where the policy has neither floor nor panic are there endpoints of which none may be picked. */
  #refuseBroken(): void {
    const { name, balancer } = this.#dispatch;
    this.#giveUp(
      fault(
        "NO_ENDPOINTS",
        `${name}: all ${balancer.members.length} endpoints are set aside for their failures`,
        {
          safe: true,
          status: 503,
          rule: "ejectionFloor=0, panicThreshold=0",
        },
      ),
    );
  }

  #waitForEndpoint(): void {
    const { clock, settings, name } = this.#dispatch;
    const refusal = this.#dispatch.hold(this);
    if (refusal !== null) {
      this.#giveUp(refusal);
      return;
    }
    // Whoever comes is new.
    if (this.#setback !== null) this.#setback.isDue = true;
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

  /** Gives up with what the last endpoint said once the time is over. */
  #waitToReconnect(setback: Setback, nowMs: number): void {
    if (this.#waitTimer !== null) {
      // Woken by a change that brought nobody new.
      this.#dispatch.hold(this);
      return;
    }
    const waitMs = mayReconnect(setback) ? setback.wait.nextMs(nowMs) : null;
    if (waitMs === null || this.#dispatch.hold(this) !== null) {
      this.#giveUp(setback.cause);
      return;
    }
    this.#waitTimer = this.#dispatch.clock.after(waitMs, () => {
      this.#waitTimer = null;
      this.#dispatch.release(this);
      setback.isDue = true;
      this.next();
    });
  }

  #send(member: Member<EndpointService>, nowMs: number): void {
    this.#waitTimer?.cancel();
    this.#waitTimer = null;
    this.#member = member;
    this.#everTried?.add(member);
    this.#startedAtMs = nowMs;
    this.#dispatch.balancer.begin(member);
    this.#uncreditedBytes = this.#creditedBytes;
    if ((this.#head.trace ?? null) !== null) this.#traceAttempt(member, nowMs);
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

  #traceAttempt(member: Member<EndpointService>, nowMs: number): void {
    const { balancer, name } = this.#dispatch;
    const tried = (this.#everTried?.members ?? NONE).filter((each) => each !== member);
    this.#head.trace?.attempt([
      ["backend", name],
      ["endpoint", member.key],
      ["pod", member.endpoint.labels["pod"] ?? ""],
      ["chosen", balancer.explainPick(nowMs, tried, this.#head.fields, member, this.#persistence).reason],
    ]);
  }

  // --- from the caller ---

  data(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#over) return;
    this.#kept?.push(bytes, start, stop);
    this.#sink.data(bytes, start, stop);
  }

  dataLent(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#over) return;
    if (this.#kept === null) lendData(this.#sink, bytes, start, stop);
    else this.data(copyOf(bytes, start, stop), 0, stop - start);
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
    // Of a timeout the endpoint is to blame if only its answer was awaited: a client may be slow to send, and to read, and a
    // stream may be longer than its deadline. A client that went away blames nobody.
    if (this.#member !== null) this.#head.trace?.ended(cause.code, cause.message);
    if (this.#member !== null && cause.code === "TIMEOUT" && this.#ended && !this.#answered)
      reportFault(this.#attempted(this.#member), cause, this.#dispatch.clock.nowMs());
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
    this.#head.trace?.ended(head.status, "");
    const member = this.#member;
    let passed = head;
    if (member !== null) {
      const { balancer, clock } = this.#dispatch;
      const nowMs = clock.nowMs();
      if (
        balancer.isPlain &&
        this.#persistence === null &&
        head.status < 429 &&
        !(last && this.#head.version === "2")
      )
        balancer.observe(member, nowMs - this.#startedAtMs, false, nowMs);
      else passed = reportHead(this.#attempted(member), head, last, nowMs, clock.wallMs());
    }
    if (last) this.#letGo();
    this.#reply.head(passed, last);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    this.#reply.body(bytes, start, stop);
  }

  bodyLent(bytes: Uint8Array, start: number, stop: number): void {
    lendBody(this.#reply, bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    if (trailers !== null && this.#member !== null) {
      const { clock } = this.#dispatch;
      reportTrailers(this.#attempted(this.#member), trailers, clock.nowMs(), clock.wallMs());
    }
    this.#letGo();
    this.#reply.finish(trailers);
  }

  fail(cause: Fault): void {
    const member = this.#member;
    if (member === null && !this.#answered) return;
    const { clock, random, settings } = this.#dispatch;
    if (member !== null && !this.#over) reportFault(this.#attempted(member), cause, clock.nowMs());
    this.#head.trace?.ended(cause.code, cause.explanation?.line ?? cause.message);
    this.#letGo();
    this.#sink = SPENT;
    if (this.#over) return;
    if (!cause.safe || this.#answered || this.#kept === null || member === null) {
      this.#over = true;
      this.#reply.fail(cause);
      return;
    }
    this.#setback ??= new Setback(
      new ReconnectWait(random, this.#startedAtMs + settings.reconnectWaitMs),
      cause,
      member,
    );
    this.#setback.met(cause, member);
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

  #giveUp(cause: Fault): void {
    if (this.#over) return;
    this.#over = true;
    this.#reply.fail(cause);
  }

  #letGo(): void {
    if (this.#member === null) return;
    this.#dispatch.balancer.end(this.#member, this.#startedAtMs);
    this.#member = null;
    this.#turn++;
  }

  #attempted(member: Member<EndpointService>): Attempted<EndpointService> {
    const { balancer } = this.#dispatch;
    return {
      balancer,
      member,
      request: this.#head,
      startedAtMs: this.#startedAtMs,
      persistence: this.#persistence,
    };
  }
}

/** What a request has met that was given back. */
class Setback {
  readonly wait: ReconnectWait;
  /** Members that gave it back, each once. */
  readonly tried: Member<EndpointService>[] = [];
  /** What the last of them said, and who it was. */
  cause: Fault;
  member: Member<EndpointService>;
  attempts = 0;
  /** The next attempt may be one at a member that was tried, and one beyond `attemptsMax`: it comes after a pause. */
  isDue = false;

  constructor(wait: ReconnectWait, cause: Fault, member: Member<EndpointService>) {
    this.wait = wait;
    this.cause = cause;
    this.member = member;
  }

  met(cause: Fault, member: Member<EndpointService>): void {
    this.cause = cause;
    this.member = member;
    this.attempts++;
    if (!this.tried.includes(member)) this.tried.push(member);
  }
}

/**
 * A connection that ended says little of its endpoint, whose next one may serve. A failed connect says enough for the moment, and
 * so does a far sidecar that could not reach its application.
 */
function mayRepeatAtOnce({ code, explanation }: Fault): boolean {
  return code === "RESET" || (code === "REFUSED" && explanation === null);
}

function mayReconnect({ cause: { code }, member }: Setback): boolean {
  return member.endpoint.identity !== null && RECONNECTABLE.has(code);
}

const RECONNECTABLE: ReadonlySet<FaultCode> = new Set([
  "CONNECT_FAILED",
  "CONNECT_TIMEOUT",
  "REFUSED",
  "RESET",
]);

/** Of all requests without a body. */
const NOTHING_KEPT = new KeptBytes();
const NONE: Member<EndpointService>[] = [];
