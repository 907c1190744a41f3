import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { Fields } from "#/base/fields.ts";
import { fieldValue, keepNeverIndexed } from "#/base/fields.ts";
import { NO_BLOCKS } from "#/wire/hpack/decoder.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import { HEAD_BOUND } from "./head-bound.ts";
import type { HttpService, RequestSink, ResponseHead, ResponseSink } from "./exchange.ts";
import { lendData, SPENT } from "./exchange.ts";
import type { Fault } from "./fault.ts";
import { Http2Code, fault } from "./fault.ts";
import { FAR_TRACE_FIELD } from "./field-names.ts";
import type { Guard } from "./guard.ts";
import { BODY_BYTES_LEAST, OPEN_BODY_PATIENCE, READER_BYTES_LEAST, Wait } from "./guard.ts";
import type { Http2LinkOwner } from "./http2-link.ts";
import { BETWEEN_OURS, Http2Link, Http2Stream } from "./http2-link.ts";
import type { Answerer, Explanation } from "./mesh-answer.ts";
import {
  explain,
  grpcTrailers,
  http2CodeOf,
  isGrpc,
  isGrpcType,
  meshAnswer,
  UNNAMED,
} from "./mesh-answer.ts";
import { Lag } from "../patrol.ts";
import type { FarSide, Request } from "./translate.ts";
import {
  carriageTo,
  requestFromHttp2,
  responseToHttp2,
  trailersFromHttp2,
  trailersToHttp2,
} from "./translate.ts";

export interface Http2ServerOptions {
  /** The client is another sidecar, proven by mutual TLS: its `l5d-orig-proto` is believed, and it is told of a request
   * that no application has seen, so that it can try elsewhere. */
  readonly meshed: boolean;
  /** It is one of ours, and says how HTTP/1 was spelled (`spelling.ts`). Default false. */
  readonly spells?: boolean;
  /** Name of the proven client, to be told to the application; null for none. */
  readonly clientId: string | null;
  /** Who we are, in answers that no application gave. Unnamed by default. */
  readonly answerer?: Answerer;
  readonly machine?: Partial<Http2Settings>;
  /** Keeps the client to its limits. None by default. */
  readonly guard?: Guard;
}

/** Serves HTTP/2 on one connection (RFC 9113), every stream a call of the service. */
export class Http2Server implements Http2LinkOwner {
  readonly borrowsLong = true;
  readonly #service: HttpService;
  readonly #closed: () => void;
  readonly #link: Http2Link;
  readonly far: FarSide;
  /** The service has answered a call of this client's as gRPC, so that what looks like one is believed to be one. */
  speaksGrpc = false;
  readonly #clientId: string | null;
  readonly #answerer: Answerer;
  /** By `Http2Connection.place`: the list that was there last, and what was read in it. */
  readonly #lists: (Fields | null)[] = NO_BLOCKS.slice();
  readonly #requests: (Request | null)[] = NO_BLOCKS.slice();

  constructor(
    conn: Conn,
    service: HttpService,
    clock: Clock,
    closed: () => void,
    options: Http2ServerOptions,
  ) {
    this.#service = service;
    this.#closed = closed;
    this.far = !options.meshed ? "foreign" : options.spells === true ? "pillion" : "sidecar";
    this.#clientId = options.clientId;
    this.#answerer = options.answerer ?? UNNAMED;
    const { guard, machine } = options;
    const heads = guard?.heads ?? HEAD_BOUND;
    const settings = {
      ...heads.http2(options.meshed),
      ...(this.far === "pillion" ? BETWEEN_OURS : {}),
      tooLargeFields: () => this.#tooLargeFields(heads.bytesMax),
      ...guard?.machine,
      ...machine,
      role: "server" as const,
    };
    this.#link = new Http2Link(conn, clock, this, settings, guard ?? null);
  }

  get activeRequests(): number {
    return this.#link.streamCount;
  }

  /** The machine answers before anybody knows what was asked, so it has to be given the words. */
  #tooLargeFields(bytesMax: number): Fields {
    const cause = fault("BAD_REQUEST", "the request's fields are too large in sum", {
      status: 431,
      rule: `header_bytes: ${bytesMax}`,
    });
    const { line, proxyStatus } = this.explain(cause);
    return ["l5d-proxy-error", line, "proxy-status", proxyStatus];
  }

  explain(cause: Fault): Explanation {
    return explain(cause, this.#answerer);
  }

  drain(): void {
    this.#link.drain();
  }

  close(): void {
    this.#link.drain();
  }

  recheck(): void {
    for (const stream of this.#link.streams())
      if (stream instanceof ServerStream) stream.recheck(this.#service);
  }

  opened(streamId: number, fields: Fields, last: boolean): void {
    const stream = new ServerStream(this, this.#link, streamId, this.#requestOf(fields));
    this.#link.add(stream);
    stream.begin(this.#service, last);
    // Uploads that nobody takes may soon hold up those of other programs, and a sidecar can easily go over to another connection.
    if (this.far !== "foreign" && this.#link.machine.isCrowded) this.drain();
  }

  /** A head that repeats is read once. */
  #requestOf(fields: Fields): Request {
    const { place } = this.#link.machine;
    if (place >= 0 && this.#lists[place] === fields) return this.#requests[place] as Request;
    const request = requestFromHttp2(fields, this.far, this.#clientId);
    if (place >= 0) {
      this.#lists[place] = fields;
      this.#requests[place] = request;
    }
    return request;
  }

  goingAway(): void {}
  roomier(): void {}
  closed(): void {
    this.#closed();
  }
}

/** The fields may be a memo that is shared, so they are copied. */
function withTrace(fields: Fields, trace: string): Fields {
  const traced: Fields = [...fields, FAR_TRACE_FIELD, trace];
  keepNeverIndexed(fields, traced);
  return traced;
}

class ServerStream extends Http2Stream implements ResponseSink {
  readonly #server: Http2Server;
  readonly #request: Request;
  #sink: RequestSink = SPENT;
  #headSent = false;
  #answered = false;
  /** The answer's head said that it is gRPC: the client waits for its trailers. */
  #isCall = false;
  /** … or that the CONNECT was granted. */
  #isTunnel = false;
  #restUnwanted = false;
  #continued = false;
  #creditedBytes = 0;
  /** Made at the first look that finds something to wait for: most streams are over by then. */
  #sending: Lag | null = null;
  #taking: Lag | null = null;

  constructor(server: Http2Server, link: Http2Link, id: number, request: Request) {
    super(link, id);
    this.#server = server;
    this.#request = request;
  }

  begin(service: HttpService, last: boolean): void {
    this.received = last;
    const sink = service.call(this.#request, last, this);
    if (!this.gone) this.#sink = sink;
    this.leaveIfDone();
  }

  recheck(service: HttpService): void {
    const cause = this.gone ? null : (service.recheck?.(this.#request) ?? null);
    if (cause === null) return;
    const sink = this.#sink;
    this.fail(cause);
    sink.abort(cause);
  }

  // --- from the client ---

  look(nowMs: number, guard: Guard, maySend: boolean): void {
    // Both sides speak when they have something to say, and either may be silent for hours. The client cannot say so alone.
    if (this.#isCall || this.#isTunnel) return;
    this.#lookAtTaking(nowMs, guard);
    if (!this.gone) this.#lookAtSending(nowMs, guard, maySend);
  }

  /** A client that opens no window for its answer. */
  #lookAtTaking(nowMs: number, guard: Guard): void {
    const { readerMs } = guard.limits;
    if (!this.isHeldBack || readerMs === 0) {
      this.#taking = null;
      return;
    }
    this.#taking ??= new Lag();
    if (this.#taking.look(nowMs, Wait.READER, this.#creditedBytes, READER_BYTES_LEAST) < readerMs) return;
    guard.reached("slow_reader");
    const sink = this.#sink;
    this.#sink = SPENT;
    this.resetStream(Http2Code.CANCEL);
    sink.abort(fault("CANCELLED", `the client did not take its answer for ${readerMs} ms`));
  }

  /** A client that does not send the body that it announced, although it may. */
  #lookAtSending(nowMs: number, guard: Guard, maySend: boolean): void {
    const { bodyMs } = guard.limits;
    const isOpen = fieldValue(this.#request.fields, "content-length") === null;
    const limitMs = isOpen ? bodyMs * OPEN_BODY_PATIENCE : bodyMs;
    if (!maySend || limitMs === 0 || !this.#owesBody) {
      this.#sending = null;
      return;
    }
    this.#sending ??= new Lag();
    const leastBytes = isOpen ? 1 : BODY_BYTES_LEAST;
    if (this.#sending.look(nowMs, Wait.BODY, this.receivedBytes, leastBytes) < limitMs) return;
    guard.reached("slow_body");
    const cause = fault("BAD_REQUEST", `the request's body did not come on for ${limitMs} ms`, {
      status: 408,
      rule: "slow_body",
    });
    const sink = this.#sink;
    this.fail(cause);
    sink.abort(cause);
  }

  /** As over HTTP/1 (see `http1-server.ts`). While we hold bytes of it, the client may be waiting for its window. */
  get #owesBody(): boolean {
    if (this.received || this.heldBytes > 0) return false;
    if (this.#headSent) return this.#answered;
    // RFC 9110 §9.3.6: what follows a CONNECT is none of the request, and comes when it is granted.
    if (this.#request.method === "CONNECT") return false;
    if (this.#server.speaksGrpc && isGrpc(this.#request)) return false;
    return this.#continued || this.receivedBytes > 0 || fieldValue(this.#request.fields, "expect") === null;
  }

  receiveHead(): void {}
  receiveInformational(): void {}

  receiveData(bytes: Uint8Array, start: number, stop: number): void {
    if (this.link.isLent) lendData(this.#sink, bytes, start, stop);
    else this.#sink.data(bytes, start, stop);
    if (this.#sink === SPENT) this.release(stop - start);
  }

  receiveEnd(trailers: Fields | null): void {
    this.received = true;
    this.#sink.end(trailers === null ? null : trailersFromHttp2(trailers, this.#server.far));
    this.leaveIfDone();
  }

  receiveReset(errorCode: number, ownReason: string): void {
    this.gone = true;
    const why =
      ownReason === ""
        ? `the client reset the request (HTTP/2 code ${errorCode})`
        : `the client's request broke HTTP/2: ${ownReason}`;
    this.#sink.abort(fault("CANCELLED", why, { http2Code: errorCode }));
    this.#sink = SPENT;
  }

  receiveLost(reason: string): void {
    this.gone = true;
    this.#sink.abort(
      fault("CANCELLED", `the client's connection is gone: ${reason}`, { http2Code: Http2Code.CANCEL }),
    );
    this.#sink = SPENT;
  }

  get #isSpelled(): boolean {
    return this.#server.far === "pillion" && this.#request.version !== "2";
  }

  protected credited(bytes: number): void {
    this.#creditedBytes += bytes;
    this.#sink.responseConsumed(bytes);
  }

  // --- from the service ---

  informational(head: ResponseHead): void {
    if (this.gone || this.#headSent) return;
    if (head.status === 100) this.#continued = true;
    const carriage = this.#isSpelled ? "spelled" : "native";
    this.link.machine.respond(this.id, responseToHttp2(head, carriage), false);
    this.link.touch();
  }

  head(head: ResponseHead, last: boolean): void {
    if (this.gone || this.#headSent) return;
    this.#headSent = true;
    const carriage = this.#request.version === "2" ? "native" : carriageTo(this.#server.far);
    let fields = responseToHttp2(head, carriage);
    // After the spelling, which is of the application's fields.
    if (head.trace !== undefined && this.#server.far === "pillion") fields = withTrace(fields, head.trace);
    this.link.machine.respond(this.id, fields, last);
    this.link.touch();
    if (!last) this.#confirm(head);
    if (last) {
      this.#answered = true;
      this.sent = true;
      this.leaveIfDone();
    }
  }

  #confirm(head: ResponseHead): void {
    const request = this.#request;
    if (isGrpc(request)) {
      this.#isCall = isGrpcType(fieldValue(head.fields, "content-type"));
      if (this.#isCall) this.#server.speaksGrpc = true;
    } else if (request.method === "CONNECT") this.#isTunnel = head.status >= 200 && head.status < 300;
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    this.sendData(bytes, start, stop);
  }

  bodyLent(bytes: Uint8Array, start: number, stop: number): void {
    this.sendLentData(bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    if (this.#answered) return;
    this.#answered = true;
    this.sendEnd(trailers === null ? null : trailersToHttp2(trailers, this.#isSpelled));
  }

  fail(cause: Fault): void {
    this.#sink = SPENT;
    this.release(this.heldBytes);
    if (this.gone) return;
    this.#restUnwanted = true;
    if (this.#answered) {
      this.leaveIfDone();
      return;
    }
    if (this.#headSent && !cause.cuts) {
      this.#cutShort(cause);
      return;
    }
    if (cause.cuts) {
      this.resetStream(http2CodeOf(cause));
      return;
    }
    // A stream that the far side itself reset is passed on as a reset; what a proxy decided is answered. gRPC has a status
    // for both.
    if (cause.http2Code >= 0 && this.#request.version === "2" && !isGrpc(this.#request)) {
      this.resetStream(cause.http2Code);
      return;
    }
    const isUnseen = this.#server.far !== "foreign" && cause.safe;
    const { head, body } = meshAnswer(this.#request, this.#server.explain(cause), isUnseen);
    this.head(head, body === null);
    if (body === null) return;
    this.body(body, 0, body.length);
    this.finish(null);
  }

  /** The answer broke off: gRPC callers get a status that says so (facts §8.4, last sentence), others a reset. */
  #cutShort(cause: Fault): void {
    if (this.#isCall) this.finish(grpcTrailers(this.#server.explain(cause)));
    else this.resetStream(http2CodeOf(cause));
  }

  protected override leaveIfDone(): void {
    // RFC 9113 §8.1: the answer is complete; the client is asked without error to stop sending the request.
    if (this.#restUnwanted && this.sent && !this.received) this.resetStream(Http2Code.NO_ERROR);
    else super.leaveIfDone();
  }

  requestConsumed(bytes: number): void {
    this.release(bytes);
  }
}
