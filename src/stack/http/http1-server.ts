import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { LONG_READ_BYTES_MIN } from "#/base/conn.ts";
import { copyOf } from "#/base/copy-of.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import { fieldCount } from "#/base/fields.ts";
import type { LimitReached } from "#/model/limits.ts";
import { Event, Http1Reader } from "#/wire/http1/reader.ts";
import {
  CHUNK_TAIL,
  encodeChunkHead,
  encodeLastChunk,
  encodeResponseHead,
  reasonOf,
} from "#/wire/http1/writer.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "./exchange.ts";
import { lendData, SPENT } from "./exchange.ts";
import type { Fault } from "./fault.ts";
import { fault } from "./fault.ts";
import type { Guard } from "./guard.ts";
import { BODY_BYTES_LEAST, OPEN_BODY_PATIENCE, READER_BYTES_LEAST, Wait } from "./guard.ts";
import { HEAD_BOUND } from "./head-bound.ts";
import { linger } from "./linger.ts";
import type { Answerer, Explanation } from "./mesh-answer.ts";
import { closesAfter, explain, meshAnswer, UNNAMED } from "./mesh-answer.ts";
import type { Patrolled } from "../patrol.ts";
import { Lag } from "../patrol.ts";
import type { Request } from "./translate.ts";
import {
  Added,
  encodeResponse,
  requestFromHttp1,
  trailersToHttp1,
  withoutTransferEncoding,
} from "./translate.ts";

export interface Http1ServerSettings {
  /** Name of the proven client, to be told to the application; null for none. */
  readonly clientId: string | null;
  /** Bytes of a request's body that may wait inside the proxy before the client is no longer read: fewer than a long read brings, so that one is enough. */
  readonly bodyWindowBytes: number;
  /** The client is another sidecar, whose heads carry fields of the mesh on top of an application's. */
  readonly meshed: boolean;
  /** Who we are, in answers that no application gave. */
  readonly answerer: Answerer;
  /** Keeps the client to its limits; null for no others than that of a head. */
  readonly guard: Guard | null;
}

export const HTTP1_SERVER_DEFAULTS: Http1ServerSettings = {
  clientId: null,
  bodyWindowBytes: 98_304,
  meshed: false,
  answerer: UNNAMED,
  guard: null,
};

/**
 * Serves HTTP/1 on one connection, a request at a time: a pipelined request is read when the answer before it is
 * complete, and meanwhile the client is not read beyond one chunk.
 *
 * The life of a request: `#pump` reads its head and calls the service; its body goes to the sink as it comes; the
 * answer comes back on the `Exchange`; when both directions are over, `#finish` begins the next.
 */
export class Http1Server implements ConnHandler, Patrolled {
  readonly borrowsLong = true;
  readonly #conn: Conn;
  readonly #clock: Clock;
  readonly #service: HttpService;
  readonly #settings: Http1ServerSettings;
  readonly #closed: () => void;
  readonly #reader: Http1Reader;
  #exchange: Exchange | null = null;
  /** What the reader has been fed is lent for the call. */
  #isLent = false;
  /** The head before, shared with the next request when its bytes were the same. */
  #lastHead: Request | null = null;
  #draining = false;
  #over = false;
  #paused = false;
  #clientEnded = false;
  /** Answer bytes handed to a connection that asked to wait; reported as consumed at `onDrain`. */
  #owedBytes = 0;
  #blocked = false;
  #pumping = false;
  #requests = 0;
  /** For how long the client has sent too little, and taken too little. */
  readonly #sending = new Lag();
  readonly #taking = new Lag();

  /** `closed` is called once, when the connection is over. */
  constructor(
    conn: Conn,
    service: HttpService,
    clock: Clock,
    closed: () => void,
    settings: Http1ServerSettings = HTTP1_SERVER_DEFAULTS,
  ) {
    this.#conn = conn;
    this.#clock = clock;
    this.#service = service;
    this.#settings = settings;
    this.#closed = closed;
    const heads = settings.guard?.heads ?? HEAD_BOUND;
    this.#reader = new Http1Reader({ role: "request", ...heads.http1(settings.meshed) });
    conn.setHandler(this);
    settings.guard?.patrol.add(this);
  }

  get activeRequests(): number {
    return this.#exchange === null ? 0 : 1;
  }

  look(nowMs: number): void {
    const { guard } = this.#settings;
    if (guard !== null) {
      this.#lookAtTaking(nowMs, guard);
      if (!this.#over) this.#lookAtSending(nowMs, guard);
    }
  }

  /** A tunnel's reader may be as slow as it likes: what waits for it is bounded, and whether it is alive only its program knows. */
  #lookAtTaking(nowMs: number, guard: Guard): void {
    const { readerMs } = guard.limits;
    const isTaking = this.#conn.bufferedBytes === 0 || this.#exchange?.tunnelling === true || readerMs === 0;
    if (isTaking) this.#taking.clear();
    else if (this.#taking.look(nowMs, Wait.READER, this.#conn.sentBytes, READER_BYTES_LEAST) >= readerMs) {
      guard.reached("slow_reader");
      this.#taking.clear();
      this.#conn.reset();
    }
  }

  #lookAtSending(nowMs: number, guard: Guard): void {
    const { headMs, bodyMs, idleMs } = guard.limits;
    const exchange = this.#exchange;
    const lag = this.#sending;
    if (exchange !== null) {
      const isOpen = this.#reader.framing !== "length";
      const limitMs = isOpen ? bodyMs * OPEN_BODY_PATIENCE : bodyMs;
      if (limitMs === 0 || this.#paused || !exchange.owesBody) lag.clear();
      else if (lag.look(nowMs, Wait.BODY, exchange.bodyBytes, isOpen ? 1 : BODY_BYTES_LEAST) >= limitMs)
        this.#refuseSlow(guard, "slow_body", `the request's body did not come on for ${limitMs} ms`);
    } else if (this.#blocked) lag.clear();
    else if (this.#reader.isBetweenMessages) {
      if (idleMs === 0 || lag.look(nowMs, Wait.IDLE, this.#requests, 1) < idleMs) return;
      guard.reached("idle");
      this.#release();
    } else if (headMs !== 0 && lag.look(nowMs, Wait.HEAD, this.#requests, 1) >= headMs)
      this.#refuseSlow(guard, "slow_head", `the request's head was not complete after ${headMs} ms`);
  }

  #refuseSlow(guard: Guard, limit: LimitReached, message: string): void {
    guard.reached(limit);
    // RFC 9110 §15.5.9.
    this.#refuse(fault("BAD_REQUEST", message, { status: 408, rule: limit }));
  }

  /** Ends the connection once the current request is answered, or the next where it is idle: HTTP/1 has no other way to say so. */
  drain(): void {
    this.#draining = true;
  }

  /** … at once where it is idle: a request that crosses the end is not begun. One whose head has begun to arrive is answered. */
  close(): void {
    this.#draining = true;
    if (this.#exchange === null && this.#reader.isBetweenMessages && !this.#over) this.#release();
  }

  recheck(): void {
    const exchange = this.#exchange;
    if (exchange === null) return;
    const cause = this.#service.recheck?.(exchange.request) ?? null;
    if (cause === null) return;
    const sink = exchange.sink;
    exchange.sink = SPENT;
    exchange.fail(cause);
    sink.abort(cause);
  }

  onData(bytes: Uint8Array): void {
    const { length } = bytes;
    // What is not plainly a piece of the body may be kept. The body's last piece is: it leaves with the end.
    this.#isLent = length >= LONG_READ_BYTES_MIN && length < this.#reader.plainBodyBytes;
    this.#reader.feed(this.#isLent || length < LONG_READ_BYTES_MIN ? bytes : copyOf(bytes, 0, length));
    this.#pump();
    if (this.#isLent) this.#reader.own();
    this.#isLent = false;
  }

  onEnd(): void {
    // A client may half-close after its request and still wants the answer.
    this.#clientEnded = true;
    if (this.#exchange !== null && this.#exchange.tunnelling) {
      this.#endTunnel();
      return;
    }
    this.#reader.end();
    this.#pump();
    if (this.#exchange === null && !this.#over) this.#conn.end();
  }

  onDrain(): void {
    this.#blocked = false;
    const owed = this.#owedBytes;
    this.#owedBytes = 0;
    if (owed > 0) this.#exchange?.sink.responseConsumed(owed);
    else if (this.#exchange === null) this.#pump();
  }

  onClose(error: ConnError | null): void {
    if (this.#over) return;
    this.#leave();
    const exchange = this.#exchange;
    this.#exchange = null;
    // Also after the whole answer: the application still waits for the rest of the request.
    if (exchange !== null && !(exchange.finished && exchange.requestDone)) {
      exchange.live = false;
      exchange.sink.abort(
        fault("CANCELLED", error === null ? "the client closed its connection" : error.message, {
          http2Code: 8,
        }),
      );
    }
    this.#closed();
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (!this.#over) {
      const exchange = this.#exchange;
      // The next request waits for the answer before it (RFC 9112 §9.3.2: answers keep the order of requests), and for
      // the client to take it: who does not read gets no further answer made.
      if (exchange === null ? this.#blocked : exchange.requestDone) break;
      // What follows a wish to take the connection over is a tunnel's or the next request's: the answer decides which. Until
      // then none of it may reach the server, which would read a refused tunnel's bytes as requests (RFC 9110 §9.3.6).
      if (exchange !== null && exchange.awaitsSwitch) break;
      const kind = this.#reader.next();
      if (kind === Event.NOTHING) break;
      if (kind === Event.HEAD) this.#begin();
      else if (kind === Event.BODY || kind === Event.UPGRADED) this.#body();
      else if (kind === Event.END) {
        if (exchange !== null) {
          exchange.requestDone = true;
          exchange.sink.end(this.#reader.trailers);
          this.#finishIfDone(exchange);
        }
      } else {
        this.#refuseBroken();
        break;
      }
    }
    this.#pumping = false;
    this.#steer();
  }

  /** Reads on, or not: while the body's window is full, or a pipelined request waits for its turn. */
  #steer(): void {
    if (this.#over) return;
    const exchange = this.#exchange;
    const hold =
      exchange !== null &&
      (exchange.unconsumedBytes >= this.#settings.bodyWindowBytes ||
        ((exchange.requestDone || exchange.awaitsSwitch) && this.#reader.bufferedBytes > 0));
    if (hold === this.#paused) return;
    this.#paused = hold;
    if (hold) this.#conn.pause();
    else this.#conn.resume();
  }

  #begin(): void {
    const reader = this.#reader;
    // An upgrade is only offered where the request ends with its head; a server may always ignore it (RFC 9110 §7.8).
    const upgradable = reader.framing === "none" || reader.framing === "tunnel";
    const head =
      reader.headRepeated && this.#lastHead !== null
        ? this.#lastHead
        : requestFromHttp1(reader, this.#settings.clientId, upgradable);
    this.#lastHead = head;
    this.#requests++;
    const exchange = new Exchange(this, head, reader.keepAlive, reader.expectContinue);
    exchange.awaitsSwitch = head.upgrade !== null;
    this.#exchange = exchange;
    const last = reader.framing === "none" && !exchange.awaitsSwitch;
    exchange.requestDone = last;
    exchange.sink = this.#service.call(head, last, exchange);
    // An upgrade declined from inside the call ended the request before there was a sink to tell.
    if (exchange.requestDone && !last) exchange.sink.end(null);
    if (exchange.finished) exchange.sink = SPENT;
    this.#finishIfDone(exchange);
  }

  #body(): void {
    const exchange = this.#exchange;
    if (exchange === null) return;
    const { bytes, start, stop } = this.#reader;
    exchange.unconsumedBytes += stop - start;
    exchange.bodyBytes += stop - start;
    if (this.#isLent) lendData(exchange.sink, bytes, start, stop);
    else exchange.sink.data(bytes, start, stop);
  }

  /** The client broke the protocol (RFC 9112 §2.2). */
  #refuseBroken(): void {
    const { error, statusHint } = this.#reader;
    if (error?.code === "HTTP1_HEAD_TOO_LARGE")
      this.#settings.guard?.heads.refused("http/1", this.#exchange === null ? "request" : "trailers");
    this.#refuse(
      fault("BAD_REQUEST", `request refused: ${error?.message ?? "malformed"}`, {
        status: statusHint,
        rule: error?.code ?? "",
      }),
    );
  }

  /** Nothing more is read: answered if nothing was, and the connection is over. */
  #refuse(cause: Fault): void {
    const exchange = this.#exchange;
    if (exchange !== null) {
      const sink = exchange.sink;
      exchange.sink = SPENT;
      exchange.requestDone = true;
      sink.abort(cause);
      exchange.keepAlive = false;
      if (exchange.finished) {
        exchange.closeAfter = true;
        this.#finishIfDone(exchange);
      } else exchange.fail(cause);
      return;
    }
    if (this.#clientEnded && this.#reader.bufferedBytes === 0) return;
    const { head, body } = meshAnswer(null, this.explain(cause));
    this.#writeHead(head, "Connection", "close");
    if (body !== null) this.#conn.write(body);
    this.#release();
  }

  // --- called by the exchange ---

  explain(cause: Fault): Explanation {
    return explain(cause, this.#settings.answerer);
  }

  sendInformational(head: ResponseHead): void {
    const { status, reason, fields } = head;
    this.#conn.write(
      encodeResponseHead({
        version: "1.1",
        status,
        reason: reason ?? reasonOf(status),
        fields: withoutTransferEncoding(fields),
      }),
    );
  }

  sendHead(exchange: Exchange, head: ResponseHead, last: boolean): void {
    const request = exchange.request;
    const version10 = request.version === "1.0";
    let close =
      this.#draining || !exchange.keepAlive || (this.#clientEnded && this.#reader.bufferedBytes === 0);
    let added: number = Added.NOTHING;
    if (head.status === 101 || (request.method === "CONNECT" && head.status >= 200 && head.status < 300)) {
      exchange.awaitsSwitch = false;
      exchange.tunnelling = true;
      exchange.requestDone = false;
      this.#reader.switchToRaw();
      added = Added.CODING_STAYS;
    } else {
      if (exchange.awaitsSwitch) {
        // Declined: the request ends with its head. After a CONNECT whatever follows was meant for a tunnel.
        exchange.awaitsSwitch = false;
        exchange.requestDone = true;
        if (request.method === "CONNECT") close = true;
        exchange.sink.end(null);
      }
      // RFC 9110 §6.4.1: these never have a body, whatever their fields say.
      exchange.bodiless = request.method === "HEAD" || head.status === 204 || head.status === 304;
      if (!version10 && (request.method === "HEAD" || head.status === 304)) added |= Added.CODING_STAYS;
      if (!exchange.bodiless && fieldCount(head.fields, "content-length") === 0) {
        if (last) added |= Added.NO_LENGTH;
        // RFC 9112 §6.3: a client of HTTP/1.0 has no other way to learn where the body ends, and another may expect it.
        else if (version10 || head.endsWithConnection === true) close = true;
        else exchange.chunked = true;
      }
      if (exchange.chunked) added |= Added.CHUNKED;
      if (close) added |= Added.CLOSE;
      else if (version10 || head.version === "1.0") added |= Added.KEEP_ALIVE;
    }
    exchange.closeAfter = close;
    this.#write(exchange, encodeResponse(head, added), 0);
    if (exchange.tunnelling) this.#beginTunnel();
  }

  /** Bytes of the tunnel, and its end, may have come while the answer was awaited. */
  #beginTunnel(): void {
    if (this.#clientEnded) this.#clock.soon(() => this.#endTunnel());
    this.#pump();
  }

  #endTunnel(): void {
    const exchange = this.#exchange;
    if (exchange === null || !exchange.tunnelling || exchange.requestDone) return;
    exchange.requestDone = true;
    exchange.sink.end(null);
    this.#finishIfDone(exchange);
  }

  #writeHead(head: ResponseHead, ...extra: string[]): void {
    this.#conn.write(
      encodeResponseHead({
        version: "1.1",
        status: head.status,
        reason: reasonOf(head.status),
        fields: head.fields.concat(extra),
      }),
    );
  }

  sendData(exchange: Exchange, bytes: Uint8Array, start: number, stop: number): void {
    if (exchange.bodiless) {
      exchange.sink.responseConsumed(stop - start);
      return;
    }
    const view = start === 0 && stop === bytes.length ? bytes : bytes.subarray(start, stop);
    if (!exchange.chunked) {
      this.#write(exchange, view, view.length);
      return;
    }
    if (view.length === 0) return; // an empty chunk would be the last one
    this.#conn.write(encodeChunkHead(view.length));
    this.#conn.write(view);
    this.#write(exchange, CHUNK_TAIL, view.length);
  }

  sendLent(exchange: Exchange, bytes: Uint8Array, start: number, stop: number): void {
    if (exchange.bodiless || start === stop) {
      exchange.sink.responseConsumed(stop - start);
      return;
    }
    if (exchange.chunked) this.#conn.write(encodeChunkHead(stop - start));
    if (!this.#conn.writeLent(bytes.subarray(start, stop))) this.#blocked = true;
    this.#write(exchange, exchange.chunked ? CHUNK_TAIL : EMPTY, stop - start);
  }

  sendEnd(exchange: Exchange, trailers: Fields | null): void {
    if (exchange.chunked) this.#conn.write(encodeLastChunk(trailersToHttp1(trailers)));
    if (exchange.tunnelling) {
      this.#conn.end();
      exchange.closeAfter = true;
    }
    this.#finishIfDone(exchange);
  }

  /** The answer cannot be completed: cut the connection, so that the client sees it as incomplete. */
  cut(exchange: Exchange): void {
    if (this.#exchange === exchange) this.#exchange = null;
    if (this.#over) return;
    this.#leave();
    this.#conn.reset();
    this.#closed();
  }

  /** The answer is complete and the rest of the request is not wanted: HTTP/1 can only say so by closing. */
  stopRequest(exchange: Exchange): void {
    if (exchange.requestDone) return;
    exchange.sink = SPENT;
    exchange.closeAfter = true;
    this.#finishIfDone(exchange);
  }

  requestConsumed(exchange: Exchange, bytes: number): void {
    exchange.unconsumedBytes -= bytes;
    if (this.#exchange === exchange && !this.#pumping) this.#steer();
  }

  #write(exchange: Exchange, bytes: Uint8Array, creditBytes: number): void {
    const flowing = this.#conn.write(bytes);
    if (!flowing) this.#blocked = true;
    if (creditBytes === 0) return;
    if (this.#blocked) this.#owedBytes += creditBytes;
    else exchange.sink.responseConsumed(creditBytes);
  }

  #finishIfDone(exchange: Exchange): void {
    if (this.#exchange !== exchange || !exchange.finished) return;
    if (exchange.tunnelling && !exchange.requestDone) return;
    if (!exchange.requestDone && exchange.closeAfter) {
      // The answer came early and says that the connection closes: the rest of the request is not waited for.
      this.#release();
      const sink = exchange.sink;
      exchange.sink = SPENT;
      sink.abort(fault("CANCELLED", "the answer ended before the request", { http2Code: 0 }));
      return;
    }
    if (!exchange.requestDone) return;
    if (exchange.closeAfter || this.#draining) {
      this.#release();
      return;
    }
    exchange.live = false;
    this.#exchange = null;
    this.#settleOwed(exchange);
    if (this.#clientEnded && this.#reader.bufferedBytes === 0) {
      this.#release();
      return;
    }
    this.#pump();
  }

  /** The answer is all in the connection's buffer, which nothing is added to before it has drained: credit can be given. */
  #settleOwed(exchange: Exchange): void {
    const owed = this.#owedBytes;
    this.#owedBytes = 0;
    if (owed > 0) exchange.sink.responseConsumed(owed);
  }

  #release(): void {
    if (this.#exchange !== null) {
      this.#exchange.live = false;
      this.#settleOwed(this.#exchange);
    }
    this.#exchange = null;
    if (this.#over) return;
    this.#conn.end();
    // What the client still sends is read and dropped until it closes too: closing on unread bytes would make the
    // kernel send RST and could destroy the answer in flight (RFC 9112 §9.6).
    this.#leave();
    this.#conn.setHandler(new Linger(this.#conn, this.#clock, this.#settings.guard, this.#closed));
    if (this.#paused) this.#conn.resume();
  }

  #leave(): void {
    this.#over = true;
    this.#settings.guard?.patrol.remove(this);
  }
}

/** One request on an HTTP/1 connection and the way back to its client. */
class Exchange implements ResponseSink {
  readonly server: Http1Server;
  readonly request: RequestHead;
  sink: RequestSink = SPENT;
  keepAlive: boolean;
  expectContinue: boolean;
  /** The request has been read to its end. */
  requestDone = false;
  /** The answer has been written to its end. */
  finished = false;
  live = true;
  headSent = false;
  chunked = false;
  /** What a service gives as a body is the answer's to a GET, and not written: it would be read as the next answer. */
  bodiless = false;
  closeAfter = false;
  /** An upgrade or CONNECT was asked for and not answered yet … */
  awaitsSwitch = false;
  /** … and granted: bytes both ways from here on. */
  tunnelling = false;
  unconsumedBytes = 0;
  bodyBytes = 0;
  /** 100 (Continue) went out. */
  #continued = false;

  constructor(server: Http1Server, request: RequestHead, keepAlive: boolean, expectContinue: boolean) {
    this.server = server;
    this.request = request;
    this.keepAlive = keepAlive;
    this.expectContinue = expectContinue;
  }

  /**
   * Whether it is the client's turn. Not while it waits to be told to continue, and not while the answer is under way: what
   * both sides send at their leisure is a conversation, and only they know when it is over.
   */
  get owesBody(): boolean {
    if (this.requestDone || this.awaitsSwitch || this.tunnelling) return false;
    if (this.headSent) return this.finished;
    return !this.expectContinue || this.#continued || this.bodyBytes > 0;
  }

  informational(head: ResponseHead): void {
    // RFC 9110 §15.2: not to a client of HTTP/1.0.
    if (!this.live || this.headSent || this.request.version === "1.0") return;
    if (head.status === 100) this.#continued = true;
    this.server.sendInformational(head);
  }

  head(head: ResponseHead, last: boolean): void {
    if (!this.live || this.headSent) return;
    this.headSent = true;
    // A client that waits for 100-continue and got a final answer may not send its body: the connection can't be reused.
    if (this.expectContinue && !this.requestDone) this.keepAlive = false;
    this.server.sendHead(this, head, last);
    if (last && !this.tunnelling) {
      this.finished = true;
      this.server.sendEnd(this, null);
    }
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    if (this.live && !this.finished) this.server.sendData(this, bytes, start, stop);
  }

  bodyLent(bytes: Uint8Array, start: number, stop: number): void {
    if (this.live && !this.finished) this.server.sendLent(this, bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    if (!this.live || this.finished) return;
    this.finished = true;
    this.server.sendEnd(this, trailers);
  }

  fail(cause: Fault): void {
    if (!this.live) return;
    if (this.finished) {
      this.server.stopRequest(this);
      return;
    }
    this.sink = SPENT;
    if (this.headSent || cause.cuts) {
      this.live = false;
      this.finished = true;
      this.server.cut(this);
      return;
    }
    const { head, body } = meshAnswer(this.request, this.server.explain(cause));
    // The rest of the request's body has nowhere to go.
    if (closesAfter(cause) || !this.requestDone) this.keepAlive = false;
    this.head(head, body === null);
    if (body === null) return;
    this.body(body, 0, body.length);
    this.finish(null);
  }

  requestConsumed(bytes: number): void {
    if (this.live) this.server.requestConsumed(this, bytes);
  }
}

const EMPTY = new Uint8Array(0);
const LINGER_BYTES_MAX = 1_048_576;

/** Reads and drops what a client sends after its last answer, until it closes or sends too much. */
class Linger implements ConnHandler {
  readonly #conn: Conn;
  readonly #closed: () => void;
  readonly #timer: Timer;
  #bytes = 0;

  constructor(conn: Conn, clock: Clock, guard: Guard | null, closed: () => void) {
    this.#conn = conn;
    this.#closed = closed;
    this.#timer = linger(conn, clock, guard);
  }
  onData(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    if (this.#bytes > LINGER_BYTES_MAX) this.#conn.reset();
  }
  onEnd(): void {}
  onDrain(): void {}
  onClose(): void {
    this.#timer.cancel();
    this.#closed();
  }
}
