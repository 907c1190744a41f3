import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import type { HeadBound } from "#/stack/http/head-bound.ts";
import { HTTP1_CLIENT_DEFAULTS, Http1Client } from "#/stack/http/http1-client.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { isExtendedConnect } from "#/stack/http/websocket-upgrade.ts";

/** A service on one connection of its own. */
export interface ClosableService extends HttpService {
  close(): void;
}

/** Serves on a connection that detection dialled: raw to the application, so spoken to as the application speaks. */
export function serviceOn(
  conn: Conn,
  version: "http1" | "http2",
  clock: Clock,
  heads: HeadBound,
): ClosableService {
  return version === "http1"
    ? new Http1Client(
        conn,
        clock,
        { idle: (idle) => idle.close(), gone: () => {} },
        { ...HTTP1_CLIENT_DEFAULTS, heads },
      )
    : new Http2Client(conn, clock, () => {}, { meshed: false, heads });
}

/** Sends the first request one way and all others another. */
export class FirstThen implements ClosableService {
  #first: ClosableService | null;
  readonly #rest: HttpService;

  constructor(first: ClosableService, rest: HttpService) {
    this.#first = first;
    this.#rest = rest;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const first = this.#first;
    // A connection that takes no extended CONNECT has no other way to open a WebSocket.
    // And who wants to know a request's way wants the ordinary one.
    if (first === null || isExtendedConnect(head) || (head.trace ?? null) !== null)
      return this.#rest.call(head, last, reply);
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
