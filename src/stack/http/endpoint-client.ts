import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { Limits } from "#/model/limits.ts";
import { LIMITS } from "#/model/limits.ts";
import { BackendBounds, whenClosed } from "../balance/backend-bounds.ts";
import type { Cancel, Dial, DialDone, DialProtocol } from "../discovery.ts";
import { isMetered } from "../metrics/transport.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "./exchange.ts";
import { fault } from "./fault.ts";
import type { HeadBound } from "./head-bound.ts";
import { HEAD_BOUND } from "./head-bound.ts";
import { HTTP1_CLIENT_DEFAULTS } from "./http1-client.ts";
import { keepAlive } from "./guard.ts";
import { Http1Pool } from "./http1-pool.ts";
import { Http2Client } from "./http2-client.ts";
import { PendingRequest, connectFault } from "./pending-request.ts";
import { callAsUpgrade } from "./websocket-upgrade.ts";

/** What of a `Guard` concerns connections to endpoints. */
export interface EndpointBounds {
  readonly limits: Limits;
  readonly heads: HeadBound;
}

const BOUNDS: EndpointBounds = { limits: LIMITS, heads: HEAD_BOUND };

/** Requests that may wait for one connection to be made. */
const CONNECTING_MAX = 10_000;

/**
 * All connections to one endpoint, made when first needed. A meshed endpoint that speaks HTTP/2 gets one HTTP/2
 * connection that carries everything, HTTP/1 upgraded (facts §8.1), but for requests that take a connection over
 * (`Upgrade`, CONNECT), which get a genuine HTTP/1 one. Other endpoints are spoken to as the application speaks.
 */
export class EndpointClient implements HttpService {
  readonly #endpoint: Endpoint;
  readonly #dial: Dial;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #bounds: EndpointBounds;
  readonly #backend: BackendBounds;
  readonly #http1: Http1Pool;
  #http2: Http2Client | null = null;
  #isConnecting = false;
  #waiting: { start: (client: Http2Client) => void; fail: (error: ConnError | null) => void }[] = [];
  #closed = false;

  /** `backend`: what all endpoints of the service may have together. */
  constructor(
    endpoint: Endpoint,
    dial: Dial,
    clock: Clock,
    random: Random,
    bounds: EndpointBounds = BOUNDS,
    backend: BackendBounds = new BackendBounds(""),
  ) {
    this.#endpoint = endpoint;
    this.#dial = dial;
    this.#clock = clock;
    this.#random = random;
    this.#bounds = bounds;
    this.#backend = backend;
    this.#http1 = new Http1Pool(
      (done) => this.#connect("http1", (error, conn) => done(error, conn)),
      clock,
      {
        ...HTTP1_CLIENT_DEFAULTS,
        meshed: endpoint.identity !== null,
        heads: bounds.heads,
      },
      backend,
    );
  }

  get endpoint(): Endpoint {
    return this.#endpoint;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const meshed = this.#endpoint.identity !== null;
    const tunnel = head.upgrade !== null && head.version !== "2";
    const overHttp2 = head.version === "2" || (meshed && this.#endpoint.protocolHint === "http2" && !tunnel);
    if (!overHttp2) return this.#http1.call(head, last, reply);
    if (this.#http2 !== null && this.#http2.isCrowded) this.#http2.close();
    if (this.#http2 !== null && this.#http2.usable) return this.#http2.call(head, last, reply);
    return this.#callWhenConnected(head, last, reply);
  }

  /** Ends idle connections and lets busy ones finish. */
  close(): void {
    this.#closed = true;
    this.#http1.close();
    this.#http2?.close();
    // An attempt under way still serves who waits for it; its connection is closed behind them.
  }

  #callWhenConnected(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const pending = new PendingRequest(reply);
    if (this.#waiting.length >= CONNECTING_MAX) {
      pending.fail(
        fault(
          "OVERLOADED",
          `more than ${CONNECTING_MAX} requests wait for a connection to ${this.#endpoint.address.ip}`,
          { safe: true },
        ),
      );
      return pending;
    }
    const refusal =
      (this.#isConnecting ? null : this.#backend.refuseConnection()) ?? this.#backend.refuseWaiting();
    if (refusal !== null) {
      pending.fail(refusal);
      return pending;
    }
    pending.onLeft = this.#backend.wait();
    this.#waiting.push({
      start: (client) => pending.proceed((target) => client.call(head, last, target)),
      fail: (error) => pending.fail(connectFault(error)),
    });
    if (!this.#isConnecting) {
      this.#isConnecting = true;
      this.#connect("http2", (error, conn, _peer, spells) => this.#connected(error, conn, spells === true));
    }
    return pending;
  }

  /** Dials, and counts the connection for its service until it is closed. */
  #connect(protocol: DialProtocol, done: DialDone): Cancel {
    const over = this.#backend.connecting();
    const opened: DialDone = (error, conn, peer, spells) => {
      // What does not tell of its close is not counted. All that reach the network do.
      if (conn === null || !isMetered(conn)) over();
      else whenClosed(conn, over);
      done(error, conn, peer, spells);
    };
    const attempt = this.#dial(this.#endpoint, protocol, opened, this.#backend.connectTimeoutMs);
    return {
      cancel: () => {
        over();
        attempt.cancel();
      },
    };
  }

  #connected(error: ConnError | null, conn: Conn | null, spells: boolean): void {
    this.#isConnecting = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    if (conn === null) {
      for (const { fail } of waiting) fail(error);
      return;
    }
    const { limits, heads } = this.#bounds;
    const meshed = this.#endpoint.identity !== null;
    const client: Http2Client = new Http2Client(conn, this.#clock, () => this.#retired(client), {
      meshed,
      spells,
      machine: meshed ? keepAlive(limits) : {},
      // Spread, so that connections that were made together do not end together.
      ageMs: limits.ageMs * (0.9 + 0.2 * this.#random.next()),
      heads,
      backend: this.#backend,
      withoutConnect: (head, _last, reply) => callAsUpgrade(this.#http1, head, this.#random, reply),
    });
    this.#http2 = client;
    for (const { start } of waiting) start(client);
    if (this.#closed) client.close();
  }

  #retired(client: Http2Client): void {
    if (this.#http2 === client) this.#http2 = null;
  }
}
