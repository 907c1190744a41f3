import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type {
  Dial,
  EndpointSource,
  FirstDialled,
  HttpServing,
  OutboundHttp,
  OutboundTarget,
} from "#/stack/discovery.ts";
import { DISPATCH_DEFAULTS, Dispatch } from "#/stack/http/dispatch.ts";
import type { EndpointService } from "#/stack/http/dispatch.ts";
import { EndpointClient } from "#/stack/http/endpoint-client.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import { fault } from "#/stack/http/fault.ts";
import { Http1Client } from "#/stack/http/http1-client.ts";
import { HTTP1_SERVER_DEFAULTS, Http1Server } from "#/stack/http/http1-server.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import type { HttpSeries } from "#/stack/http/measure.ts";
import { Measured } from "#/stack/http/measure.ts";

export interface OutboundHttpParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly dial: Dial;
  /** Counters for requests of one target to one endpoint. The same pair gives the same counters. */
  series(target: string, endpoint: Endpoint): HttpSeries;
}

/** A dispatch that no connection uses is kept this long, with its connections and what it learned of its endpoints. */
const DISPATCH_IDLE_MS = 30_000;

/**
 * HTTP from the workload. The life of a request:
 *
 *     Http1Server | Http2Server   reads it from the application's connection
 *     ByTarget                    policy of the target: where may it go?
 *     Dispatch                    picks an endpoint (P2C, peak EWMA); sends on what reached nobody
 *     Measured                    counts it for that endpoint
 *     EndpointClient              one HTTP/2 connection to a far sidecar, or a pool of HTTP/1 ones
 */
export class OutboundHttpProxy implements OutboundHttp {
  readonly #parts: OutboundHttpParts;
  /** By `EndpointSource.key`; entries leave when unused for `DISPATCH_IDLE_MS`, so discovery's bound is theirs too. */
  readonly #dispatches = new Map<string, Shared>();

  constructor(parts: OutboundHttpParts) {
    this.#parts = parts;
  }

  serve(
    conn: Conn,
    version: "http1" | "http2",
    target: OutboundTarget,
    first: FirstDialled | null,
    closed: () => void,
  ): HttpServing {
    const { clock } = this.#parts;
    const byTarget = new ByTarget(target, (source) => this.#acquire(source, target.authority));
    const service =
      first === null ? byTarget : new FirstThen(this.#firstService(first, version, target), byTarget);
    const over = (): void => {
      byTarget.release();
      if (service instanceof FirstThen) service.close();
      closed();
    };
    if (version === "http1") return new Http1Server(conn, service, clock, over, HTTP1_SERVER_DEFAULTS);
    return new Http2Server(conn, service, clock, over, { meshed: false, clientId: null });
  }

  /** The connection that detection dialled: raw to the application, so spoken to as the application speaks. */
  #firstService(first: FirstDialled, version: "http1" | "http2", target: OutboundTarget): EndpointService {
    const { clock } = this.#parts;
    const client =
      version === "http1"
        ? new Http1Client(first.conn, clock, { idle: (idle) => idle.close(), gone: () => {} })
        : new Http2Client(first.conn, clock, () => {}, { meshed: false });
    const measured = new Measured(client, this.#parts.series(target.authority, first.endpoint), clock);
    return { call: (head, last, reply) => measured.call(head, last, reply), close: () => client.close() };
  }

  #acquire(source: EndpointSource, authority: string): Shared {
    let shared = this.#dispatches.get(source.key);
    if (shared === undefined) {
      shared = new Shared(this.#dispatch(source, authority), this.#parts.clock, () =>
        this.#dispatches.delete(source.key),
      );
      this.#dispatches.set(source.key, shared);
    }
    shared.acquire();
    return shared;
  }

  #dispatch(source: EndpointSource, authority: string): Dispatch {
    const { clock, random, dial } = this.#parts;
    return new Dispatch({
      name: authority,
      source,
      clock,
      random,
      settings: DISPATCH_DEFAULTS,
      make: (endpoint) => {
        const client = new EndpointClient(endpoint, dial, clock);
        const measured = new Measured(client, this.#parts.series(authority, endpoint), clock);
        return { call: (head, last, reply) => measured.call(head, last, reply), close: () => client.close() };
      },
    });
  }
}

/** A dispatch and how many connections use it. */
class Shared {
  readonly dispatch: Dispatch;
  readonly #clock: Clock;
  readonly #dropped: () => void;
  #users = 0;
  #idleRun = 0;

  constructor(dispatch: Dispatch, clock: Clock, dropped: () => void) {
    this.dispatch = dispatch;
    this.#clock = clock;
    this.#dropped = dropped;
  }

  acquire(): void {
    this.#users++;
    this.#idleRun++;
  }

  release(): void {
    if (--this.#users > 0) return;
    const run = ++this.#idleRun;
    this.#clock.after(DISPATCH_IDLE_MS, () => {
      if (this.#users > 0 || run !== this.#idleRun) return;
      this.#dropped();
      this.dispatch.close();
    });
  }
}

/** Asks the target's policy of this moment, so that a live update holds for the next request of an open connection. */
class ByTarget implements HttpService {
  readonly #target: OutboundTarget;
  readonly #acquire: (source: EndpointSource) => Shared;
  #source: EndpointSource | null = null;
  #shared: Shared | null = null;

  constructor(target: OutboundTarget, acquire: (source: EndpointSource) => Shared) {
    this.#target = target;
    this.#acquire = acquire;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const { policy, endpoints, authority } = this.#target;
    if (policy.backend.kind === "forbidden" || endpoints === null) {
      const reason = policy.backend.kind === "forbidden" ? policy.backend.reason : "no backend";
      reply.fail(
        fault("FORBIDDEN_TARGET", `${authority}: ${reason} (policy ${policy.source.name})`, { safe: true }),
      );
      return SPENT;
    }
    if (endpoints !== this.#source) {
      this.release();
      this.#source = endpoints;
      this.#shared = this.#acquire(endpoints);
    }
    return (this.#shared as Shared).dispatch.call(head, last, reply);
  }

  release(): void {
    this.#shared?.release();
    this.#shared = null;
    this.#source = null;
  }
}

/** Sends the first request one way and all others another. */
class FirstThen implements HttpService {
  #first: EndpointService | null;
  readonly #rest: HttpService;

  constructor(first: EndpointService, rest: HttpService) {
    this.#first = first;
    this.#rest = rest;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const first = this.#first;
    if (first === null) return this.#rest.call(head, last, reply);
    this.#first = null;
    const sink = first.call(head, last, reply);
    // HTTP/2: nothing further goes this way; the connection ends with its one request. HTTP/1 ends itself when idle.
    if (head.version === "2") first.close();
    return sink;
  }

  close(): void {
    this.#first?.close();
    this.#first = null;
  }
}
