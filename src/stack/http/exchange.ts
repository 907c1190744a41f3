import { copyOf } from "#/base/copy-of.ts";
import type { Fields } from "#/base/fields.ts";
import type { RequestTrace } from "../trace/request-trace.ts";
import type { Fault } from "./fault.ts";

/**
 * One HTTP request and its answer, free of the version that carries it. A server connection makes a `RequestHead` and
 * calls a `HttpService`; the service answers through a `ResponseSink` and hands back a `RequestSink` for the body.
 *
 *     server connection ──call(head, reply)──▶ layers ──▶ client connection
 *            ▲   RequestSink: data, end, abort  ───────────────▶  │
 *            └─  ResponseSink: head, body, finish, fail  ◀─────────┘
 *
 * Rules that every implementation keeps:
 * - A request: data* end, or `abort` at any time. An answer: informational* head body* finish, or `fail` at any time.
 *   `abort` and `fail` end both directions; after them nothing follows. The answer may finish before the request ends: the
 *   request then goes on, and a `fail` says that its rest is not wanted.
 * - `data` and `body` are always taken. Its bytes are borrowed from a buffer that is never written again, so a sink may keep views.
 * - Long pieces may be lent instead (`dataLent`, `bodyLent`): those bytes are another connection's after the call. A sink that keeps views has
 *   no such method, and `lendData` and `lendBody` give it a copy.
 * - Back-pressure is credit: who took `n` bytes reports `n` once they are on their way (`requestConsumed`,
 *   `responseConsumed`). A source lets at most its window of unreported bytes be outstanding, so a slow reader slows the
 *   far writer and nothing piles up in between.
 * - Calls may come from inside a call of the other side (a refusal from inside `call`): objects are consistent before they call out.
 */
export interface HttpService {
  /** `last`: the request has neither body nor trailers; nothing follows on the returned sink. */
  call(request: RequestHead, last: boolean, reply: ResponseSink): RequestSink;
  /**
   * Asked when policy has changed: why a request that is under way, with the head that `call` got, may not go on; null where it may.
   * Absent: it always may.
   */
  recheck?(request: RequestHead): Fault | null;
}

export interface RequestSink {
  data(bytes: Uint8Array, start: number, stop: number): void;
  dataLent?(bytes: Uint8Array, start: number, stop: number): void;
  end(trailers: Fields | null): void;
  /** The client went away, or broke its protocol: the request is to be given up. */
  abort(fault: Fault): void;
  /** So many bytes of the answer are on their way to the client. */
  responseConsumed(bytes: number): void;
}

export interface ResponseSink {
  /** A 1xx answer other than 101. */
  informational(head: ResponseHead): void;
  /** `last`: neither body nor trailers follow. */
  head(head: ResponseHead, last: boolean): void;
  body(bytes: Uint8Array, start: number, stop: number): void;
  bodyLent?(bytes: Uint8Array, start: number, stop: number): void;
  finish(trailers: Fields | null): void;
  /** No (complete) answer will come. Before `head` the server answers by the fault's status, afterwards it cuts the stream. */
  fail(fault: Fault): void;
  /** So many bytes of the request's body are on their way. */
  requestConsumed(bytes: number): void;
}

/** RFC 9110 §9.2.2: may be sent again when a connection was lost before any answer. */
export const IDEMPOTENT: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);

export type HttpVersion = "1.0" | "1.1" | "2";

/**
 * A request's head. `fields` hold no pseudo-fields and no hop-by-hop fields, but for two that keep their place there: the
 * offer of an upgrade that is passed on, and Transfer-Encoding, which only says where and how HTTP/1 writes it if it has to.
 * `host` only if it came over HTTP/1.
 */
export interface RequestHead {
  readonly method: string;
  /** "http" unless an absolute-form target or `:scheme` says otherwise. */
  readonly scheme: string;
  /** Host as the client named it, "" when it named none. */
  readonly authority: string;
  /** Path with query, "*", or "" for CONNECT. */
  readonly path: string;
  /** As the application spoke it; restored from `l5d-orig-proto` between sidecars. */
  readonly version: HttpVersion;
  readonly absoluteForm: boolean;
  /** Protocol named in `Upgrade`, with the connection to be turned over on 101; null for almost all requests. */
  readonly upgrade: string | null;
  readonly fields: Fields;
  /** Who wants to be told of the request's way (`TraceLayer`). Absent or null: nobody. */
  readonly asksTrace?: "program" | "sidecar" | null;
  /** Where its way is written down; null or absent, as nearly always: nowhere. */
  readonly trace?: RequestTrace | null;
}

export interface ResponseHead {
  readonly status: number;
  readonly version: HttpVersion;
  /** Null: the usual one of the status, as HTTP/2 says none. */
  readonly reason: string | null;
  /** As those of a request. */
  readonly fields: Fields;
  /** Over HTTP/1 the body was not framed but for the end of its connection (RFC 9112 §6.3), and is to be again. */
  readonly endsWithConnection?: boolean;
  /** For the sidecar that asked: what happened to the request here. */
  readonly trace?: string;
}

export function lendData(sink: RequestSink, bytes: Uint8Array, start: number, stop: number): void {
  if (sink.dataLent !== undefined) sink.dataLent(bytes, start, stop);
  else sink.data(copyOf(bytes, start, stop), 0, stop - start);
}

export function lendBody(reply: ResponseSink, bytes: Uint8Array, start: number, stop: number): void {
  if (reply.bodyLent !== undefined) reply.bodyLent(bytes, start, stop);
  else reply.body(copyOf(bytes, start, stop), 0, stop - start);
}

/** What `call` returns when it has already refused: swallows whatever still comes. */
export const SPENT: RequestSink = {
  data(): void {},
  dataLent(): void {},
  end(): void {},
  abort(): void {},
  responseConsumed(): void {},
};

/** Passes an answer on as it is: for layers that look at, or change, a part of it. */
export class PassedReply implements ResponseSink {
  protected readonly reply: ResponseSink;

  constructor(reply: ResponseSink) {
    this.reply = reply;
  }

  informational(head: ResponseHead): void {
    this.reply.informational(head);
  }

  head(head: ResponseHead, last: boolean): void {
    this.reply.head(head, last);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    this.reply.body(bytes, start, stop);
  }

  bodyLent(bytes: Uint8Array, start: number, stop: number): void {
    lendBody(this.reply, bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    this.reply.finish(trailers);
  }

  fail(cause: Fault): void {
    this.reply.fail(cause);
  }

  requestConsumed(bytes: number): void {
    this.reply.requestConsumed(bytes);
  }
}

/** A `ResponseSink` for when nobody listens any more. */
export const UNHEARD: ResponseSink = {
  informational(): void {},
  head(): void {},
  body(): void {},
  bodyLent(): void {},
  finish(): void {},
  fail(): void {},
  requestConsumed(): void {},
};
