import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import { BackendBounds } from "../balance/backend-bounds.ts";
import type { Cancel } from "../discovery.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "./exchange.ts";
import { IDEMPOTENT } from "./exchange.ts";
import type { Http1ClientOwner, Http1ClientSettings } from "./http1-client.ts";
import { HTTP1_CLIENT_DEFAULTS, Http1Client } from "./http1-client.ts";
import { PendingRequest, connectFault } from "./pending-request.ts";

/**
 * A server may close an idle connection just as a request is on its way, and what must not be sent twice would fail. So such
 * a request takes none that has been idle for longer; few servers close so soon …
 */
const UNREPEATABLE_IDLE_MS = 1_000;
/** … and one that does is trusted for half as long as it took, or not at all, until it has not done so for a while. */
const TRUST_MS_LEAST = 10;
const DISTRUST_MS = 60_000;
/** Idle connections that are kept: as many as a crowd of clients uses at once. */
const IDLE_MAX = 1024;

/** Opens one connection; `done` exactly once and never synchronously. */
export type Connect = (done: (error: ConnError | null, conn: Conn | null) => void) => Cancel;

/**
 * HTTP/1 connections to one server: the most recently used idle one is taken first, so that the others may age and
 * close. Idle connections are at most `IDLE_MAX`; one more is closed.
 */
export class Http1Pool implements HttpService, Http1ClientOwner {
  readonly #connect: Connect;
  readonly #clock: Clock;
  readonly #settings: Http1ClientSettings;
  readonly #backend: BackendBounds;
  /** In the order in which they became idle. */
  readonly #idle: Http1Client[] = [];
  /** For whichever of them the server keeps the shortest: one for all, since one for each would be set anew with each request. */
  #timer: Timer | null = null;
  #timerAtMs = Infinity;
  #closed = false;
  /** How long an idle connection is good for what must not be sent twice, and until when that was learned. */
  #trustMs = UNREPEATABLE_IDLE_MS;
  #distrustUntilMs = 0;

  constructor(
    connect: Connect,
    clock: Clock,
    settings: Http1ClientSettings = HTTP1_CLIENT_DEFAULTS,
    backend: BackendBounds = new BackendBounds(""),
  ) {
    this.#connect = connect;
    this.#clock = clock;
    this.#settings = settings;
    this.#backend = backend;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const client = this.#take(head);
    if (client !== undefined) return client.call(head, last, reply);
    const pending = new PendingRequest(reply);
    const refusal = this.#backend.refuseConnection() ?? this.#backend.refuseWaiting();
    if (refusal !== null) {
      pending.fail(refusal);
      return pending;
    }
    pending.onLeft = this.#backend.wait();
    const attempt = this.#connect((error, conn) => {
      if (conn === null) {
        pending.fail(connectFault(error));
        return;
      }
      pending.proceed((target) =>
        new Http1Client(conn, this.#clock, this, this.#settings).call(head, last, target),
      );
    });
    pending.onCancel = () => attempt.cancel();
    return pending;
  }

  #take(head: RequestHead): Http1Client | undefined {
    // A tunnel takes its connection with it, so it gets its own.
    if (head.upgrade !== null) return undefined;
    const youngest = this.#idle.at(-1);
    if (youngest === undefined) return undefined;
    if (IDEMPOTENT.has(head.method)) return this.#idle.pop();
    const nowMs = this.#clock.nowMs();
    const trustMs = nowMs < this.#distrustUntilMs ? this.#trustMs : UNREPEATABLE_IDLE_MS;
    return nowMs - youngest.idleSinceMs > trustMs ? undefined : this.#idle.pop();
  }

  /** Ends idle connections; busy ones end with their request. */
  close(): void {
    this.#closed = true;
    this.#stopTimer();
    for (const client of this.#idle.splice(0)) client.close();
  }

  #setTimer(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#clock.after(Math.max(0, atMs - this.#clock.nowMs()), this.#closeOld);
  }

  #stopTimer(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#timerAtMs = Infinity;
  }

  readonly #closeOld = (): void => {
    this.#stopTimer();
    const nowMs = this.#clock.nowMs();
    const old = this.#idle.filter(({ idleUntilMs }) => idleUntilMs <= nowMs);
    for (const client of old) client.close();
    for (const { idleUntilMs } of this.#idle) this.#setTimer(idleUntilMs);
  };

  /** The server ended a connection that it had said nothing of ending. */
  #distrust(client: Http1Client): void {
    const nowMs = this.#clock.nowMs();
    const idleMs = client.isLeft ? nowMs - client.idleSinceMs : client.idledMs;
    if (idleMs >= UNREPEATABLE_IDLE_MS) return;
    const trustMs = idleMs / 2 < TRUST_MS_LEAST ? -1 : idleMs / 2;
    this.#trustMs = nowMs < this.#distrustUntilMs ? Math.min(this.#trustMs, trustMs) : trustMs;
    this.#distrustUntilMs = nowMs + DISTRUST_MS;
  }

  idle(client: Http1Client): void {
    if (this.#closed || this.#idle.length >= IDLE_MAX) {
      client.close();
      return;
    }
    this.#idle.push(client);
    this.#setTimer(client.idleUntilMs);
  }

  /** Where one was stale the others may be, so a request that is sent again gets a fresh connection and is sent twice at most. */
  gone(client: Http1Client, isStale: boolean): void {
    const at = this.#idle.indexOf(client);
    if (at !== -1) this.#idle.splice(at, 1);
    if (isStale || client.isLeft) this.#distrust(client);
    if (isStale) for (const idle of this.#idle.splice(0)) idle.close();
    if (this.#idle.length === 0) this.#stopTimer();
  }
}
