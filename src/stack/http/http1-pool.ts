import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Cancel } from "../discovery.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "./exchange.ts";
import type { Http1ClientOwner, Http1ClientSettings } from "./http1-client.ts";
import { HTTP1_CLIENT_DEFAULTS, Http1Client } from "./http1-client.ts";
import { PendingRequest, connectFault } from "./pending-request.ts";

/** Opens one connection; `done` exactly once and never synchronously. */
export type Connect = (done: (error: ConnError | null, conn: Conn | null) => void) => Cancel;

/**
 * HTTP/1 connections to one server: the most recently used idle one is taken first, so that the others may age and
 * close. Idle connections are at most `idleMax`; one more is closed.
 */
export class Http1Pool implements HttpService, Http1ClientOwner {
  readonly #connect: Connect;
  readonly #clock: Clock;
  readonly #settings: Http1ClientSettings;
  readonly #idleMax: number;
  readonly #idle: Http1Client[] = [];
  #closed = false;

  constructor(
    connect: Connect,
    clock: Clock,
    settings: Http1ClientSettings = HTTP1_CLIENT_DEFAULTS,
    idleMax: number = 256,
  ) {
    this.#connect = connect;
    this.#clock = clock;
    this.#settings = settings;
    this.#idleMax = idleMax;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    // A tunnel takes its connection with it, so it gets its own.
    const client = head.upgrade === null ? this.#idle.pop() : undefined;
    if (client !== undefined) return client.call(head, last, reply);
    const pending = new PendingRequest(reply);
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

  /** Ends idle connections; busy ones end with their request. */
  close(): void {
    this.#closed = true;
    for (const client of this.#idle.splice(0)) client.close();
  }

  idle(client: Http1Client): void {
    if (this.#closed || this.#idle.length >= this.#idleMax) client.close();
    else this.#idle.push(client);
  }

  /** Where one was stale the others may be, so a request that is sent again gets a fresh connection and is sent twice at most. */
  gone(client: Http1Client, isStale: boolean): void {
    const at = this.#idle.indexOf(client);
    if (at !== -1) this.#idle.splice(at, 1);
    if (isStale) for (const idle of this.#idle.splice(0)) idle.close();
  }
}
