import type { Clock } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import { LONG_READ_BYTES_MIN } from "#/base/conn.ts";
import { copyOf } from "#/base/copy-of.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import { Event, Http1Reader } from "#/wire/http1/reader.ts";
import { CHUNK_TAIL, encodeChunkHead, encodeLastChunk } from "#/wire/http1/writer.ts";
import type { HeadBound } from "./head-bound.ts";
import { HEAD_BOUND } from "./head-bound.ts";
import type { RequestHead, RequestSink, ResponseSink } from "./exchange.ts";
import { IDEMPOTENT, lendBody, SPENT } from "./exchange.ts";
import { fault } from "./fault.ts";
import type { Fault } from "./fault.ts";
import type { Response } from "./translate.ts";
import {
  answerTrailersFromHttp1,
  encodeRequest,
  keepAliveTimeoutSeconds,
  responseFromHttp1,
  switchingFromHttp1,
  trailersToHttp1,
} from "./translate.ts";
import { isOffered } from "./upgrade.ts";

export interface Http1ClientSettings {
  /** Bytes of an answer that may wait inside the proxy before the server is no longer read: fewer than a long read brings, so that one is enough. */
  readonly bodyWindowBytes: number;
  readonly heads: HeadBound;
  /** How long an idle connection is kept when the server does not say (facts §2.2: 3 s). */
  readonly idleMs: number;
  /** The server is another sidecar, whose word on why there is no answer is believed. */
  readonly meshed: boolean;
}

export const HTTP1_CLIENT_DEFAULTS: Http1ClientSettings = {
  bodyWindowBytes: 98_304,
  heads: HEAD_BOUND,
  idleMs: 3_000,
  meshed: false,
};

/** Who owns a client connection: the pool that it returns to, or whoever opened it for one request. */
export interface Http1ClientOwner {
  /** The connection can take another request, and is to be closed at `idleUntilMs` if none has come. */
  idle(client: Http1Client): void;
  /**
   * The connection is over, or will take no further request. `isStale`: it was used before and ended under a request without a
   * byte of answer, as those do that the server had closed while they were idle.
   */
  gone(client: Http1Client, isStale: boolean): void;
}

/**
 * One HTTP/1 connection to a server, carrying one request at a time. The server may answer before it has read the
 * request; both directions then go on, and the connection is free again when both are over.
 */
export class Http1Client implements ConnHandler {
  readonly borrowsLong = true;
  readonly #conn: Conn;
  readonly #clock: Clock;
  readonly #owner: Http1ClientOwner;
  readonly #settings: Http1ClientSettings;
  readonly #reader: Http1Reader;
  #exchange: Exchange | null = null;
  /** What the reader has been fed is lent for the call. */
  #isLent = false;
  /** The answer before, shared with the next one when the bytes of its head were the same. */
  #lastAnswer: Response | null = null;
  #requests = 0;
  /** Of the request under way. */
  #writtenBytes = 0;
  /** When it became free last, and until when the server keeps it. */
  idleSinceMs = 0;
  idleUntilMs = 0;
  /** How long it had been free when the last request came. */
  idledMs = 0;
  /** The server ended it while it was free. */
  isLeft = false;
  #gone = false;
  #reusable = true;
  #blocked = false;
  #owedBytes = 0;
  #paused = false;
  #keepAliveMs: number;

  constructor(
    conn: Conn,
    clock: Clock,
    owner: Http1ClientOwner,
    settings: Http1ClientSettings = HTTP1_CLIENT_DEFAULTS,
  ) {
    this.#conn = conn;
    this.#clock = clock;
    this.#owner = owner;
    this.#settings = settings;
    this.#keepAliveMs = settings.idleMs;
    this.#reader = new Http1Reader({ role: "response", ...settings.heads.http1(settings.meshed) });
    conn.setHandler(this);
  }

  /** Whether an earlier request went over this connection: if it ends without a byte of answer, it may just have been too old. */
  get reused(): boolean {
    return this.#requests > 1;
  }

  /** Sends a request. Only while idle. */
  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const message = encodeRequest(head, last);
    if (message === null) {
      // The connection stays as it was. A fresh one never was idle, so nothing ends it.
      if (this.#requests === 0) this.close();
      else this.#owner.idle(this);
      reply.fail(fault("BAD_REQUEST", "the request's method or path cannot be written in HTTP/1"));
      return SPENT;
    }
    this.idledMs = this.#clock.nowMs() - this.idleSinceMs;
    this.#requests++;
    this.#writtenBytes = 0;
    const exchange = new Exchange(this, head, reply, message.chunked, last);
    this.#exchange = exchange;
    this.#reader.responseTo(head.method, head.upgrade !== null);
    this.#write(message.bytes, 0);
    return exchange;
  }

  /** Ends an idle connection. */
  close(): void {
    if (!this.#gone) {
      this.#gone = true;
      this.#conn.end();
      this.#owner.gone(this, false);
    }
  }

  onData(bytes: Uint8Array): void {
    // However little it is: who has begun to answer has seen the request, and must not see it again.
    if (this.#exchange !== null) this.#exchange.answerBegun = true;
    const { length } = bytes;
    // What is not plainly a piece of the body may be kept. The body's last piece is: it leaves with the end.
    this.#isLent = length >= LONG_READ_BYTES_MIN && length < this.#reader.plainBodyBytes;
    this.#reader.feed(this.#isLent || length < LONG_READ_BYTES_MIN ? bytes : copyOf(bytes, 0, length));
    this.#pump();
    if (this.#isLent) this.#reader.own();
    this.#isLent = false;
  }

  onEnd(): void {
    this.#reusable = false;
    const exchange = this.#exchange;
    if (exchange === null) {
      this.isLeft = this.#requests > 0;
      this.close();
    } else if (exchange.tunnelling) {
      exchange.answered = true;
      exchange.reply.finish(null);
      this.#finishIfDone(exchange);
    } else {
      this.#reader.end();
      this.#pump();
      this.#endEarly();
    }
  }

  /** Answered, and ended before it had the whole request: the rest is not wanted (RFC 9112 §9.6). */
  #endEarly(): void {
    const exchange = this.#exchange;
    if (exchange === null || !exchange.answered || exchange.sent) return;
    this.#exchange = null;
    exchange.fail(fault("CANCELLED", "the application ended its connection after an early answer"));
    this.close();
  }

  onDrain(): void {
    this.#blocked = false;
    const owed = this.#owedBytes;
    this.#owedBytes = 0;
    if (owed > 0) this.#exchange?.reply.requestConsumed(owed);
  }

  onClose(error: ConnError | null): void {
    this.#reusable = false;
    this.isLeft = this.#exchange === null && this.#requests > 0;
    this.#lost(error === null ? "the connection closed before the answer was complete" : error.message);
    this.#leave();
  }

  #pump(): void {
    const reader = this.#reader;
    for (;;) {
      const kind = reader.next();
      if (kind === Event.NOTHING) break;
      const exchange = this.#exchange;
      if (exchange === null) {
        if (kind === Event.END) continue; // of an answer without a body, whose exchange is over
        // Bytes that answer nothing: whatever they are, the next request must not be taken to be answered by them.
        this.#reusable = false;
        this.#conn.reset();
        break;
      }
      if (kind === Event.HEAD) this.#head(exchange);
      else if (kind === Event.BODY || kind === Event.UPGRADED) {
        exchange.unconsumedBytes += reader.stop - reader.start;
        if (this.#isLent) lendBody(exchange.reply, reader.bytes, reader.start, reader.stop);
        else exchange.reply.body(reader.bytes, reader.start, reader.stop);
      } else if (kind === Event.END) {
        if (!exchange.answered) {
          exchange.answered = true;
          exchange.reply.finish(answerTrailersFromHttp1(reader.trailers, this.#settings.meshed));
        }
        this.#finishIfDone(exchange);
      } else if (CUT.has(reader.error?.code ?? "")) {
        this.#lost("the application closed its connection before the answer was complete");
        this.#conn.end();
        return;
      } else {
        this.#reusable = false;
        const reason = reader.error?.message ?? "malformed";
        if (reader.error?.code === "HTTP1_HEAD_TOO_LARGE")
          this.#settings.heads.refused("http/1", exchange.headSeen ? "trailers" : "response");
        exchange.fail(
          fault("PROTOCOL", `the application's answer is no valid HTTP/1: ${reason}`, {
            rule: reader.error?.code ?? "",
          }),
        );
        this.#exchange = null;
        this.#conn.reset();
        break;
      }
    }
    this.#steer();
  }

  #head(exchange: Exchange): void {
    const reader = this.#reader;
    if (reader.status < 200 && reader.status !== 101) {
      exchange.reply.informational(responseFromHttp1(reader, this.#settings.meshed));
      return;
    }
    exchange.headSeen = true;
    if (!reader.keepAlive || reader.framing === "close") this.#reusable = false;
    if (reader.framing === "tunnel") {
      const offer = exchange.request.upgrade;
      if (reader.status === 101 && offer !== null && !isOffered(offer, reader.upgrade)) {
        exchange.fail(
          fault("PROTOCOL", "the application switched to a protocol that was not offered", {
            rule: "RFC 9110 §7.8",
          }),
        );
        this.#exchange = null;
        this.#conn.reset();
        return;
      }
      this.#reusable = false;
      exchange.tunnelling = true;
      exchange.reply.head(
        reader.status === 101
          ? switchingFromHttp1(reader, this.#settings.meshed)
          : responseFromHttp1(reader, this.#settings.meshed),
        false,
      );
      return;
    }
    const answer = this.#answer();
    // A tunnel was asked for and not granted: whatever was sent into it the server may read as requests, whose answers
    // nobody awaits. The next request gets another connection (RFC 9110 §9.3.6).
    if (exchange.request.upgrade !== null || exchange.request.method === "CONNECT") this.#reusable = false;
    const last = reader.framing === "none";
    if (last) exchange.answered = true;
    exchange.reply.head(answer, last);
  }

  /** The final answer just read: the one before it where its head had the same bytes, and means the same. */
  #answer(): Response {
    const reader = this.#reader;
    const known = this.#lastAnswer;
    if (reader.headRepeated && known !== null && known.endsWithConnection === (reader.framing === "close"))
      return known;
    const seconds = keepAliveTimeoutSeconds(reader.fields);
    // Short of what the server promises, so that it never closes while our next request is on its way.
    if (seconds >= 0) this.#keepAliveMs = Math.max(seconds * 1000 - 1000, seconds * 500);
    this.#lastAnswer = responseFromHttp1(reader, this.#settings.meshed);
    return this.#lastAnswer;
  }

  #steer(): void {
    const hold = this.#exchange !== null && this.#exchange.unconsumedBytes >= this.#settings.bodyWindowBytes;
    if (hold === this.#paused || this.#gone) return;
    this.#paused = hold;
    if (hold) this.#conn.pause();
    else this.#conn.resume();
  }

  // --- called by the exchange ---

  sendData(exchange: Exchange, bytes: Uint8Array, start: number, stop: number): void {
    const view = start === 0 && stop === bytes.length ? bytes : bytes.subarray(start, stop);
    if (view.length === 0) return;
    if (!exchange.chunked) {
      this.#write(view, view.length);
      return;
    }
    this.#put(encodeChunkHead(view.length));
    this.#put(view);
    this.#write(CHUNK_TAIL, view.length);
  }

  sendLent(exchange: Exchange, bytes: Uint8Array, start: number, stop: number): void {
    if (start === stop) return;
    if (exchange.chunked) this.#put(encodeChunkHead(stop - start));
    this.#writtenBytes += stop - start;
    if (!this.#conn.writeLent(bytes.subarray(start, stop))) this.#blocked = true;
    this.#write(exchange.chunked ? CHUNK_TAIL : EMPTY, stop - start);
  }

  sendEnd(exchange: Exchange, trailers: Fields | null): void {
    if (exchange.chunked) this.#put(encodeLastChunk(trailersToHttp1(trailers)));
    else if (exchange.tunnelling) this.#conn.end();
    exchange.sent = true;
    this.#finishIfDone(exchange);
  }

  /** The client gave the request up: HTTP/1 has no other way to say so than ending the connection. */
  cancel(exchange: Exchange): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = null;
    this.#reusable = false;
    this.#conn.reset();
    this.#leave();
  }

  responseConsumed(exchange: Exchange, bytes: number): void {
    exchange.unconsumedBytes -= bytes;
    if (this.#exchange === exchange) this.#steer();
  }

  #put(bytes: Uint8Array): boolean {
    this.#writtenBytes += bytes.length;
    return this.#conn.write(bytes);
  }

  #write(bytes: Uint8Array, creditBytes: number): void {
    if (!this.#put(bytes)) this.#blocked = true;
    if (creditBytes === 0) return;
    if (this.#blocked) this.#owedBytes += creditBytes;
    else this.#exchange?.reply.requestConsumed(creditBytes);
  }

  #lost(reason: string): void {
    const exchange = this.#exchange;
    if (exchange === null) return;
    this.#exchange = null;
    const isStale = !exchange.answerBegun && this.reused;
    // Whatever the method: of what never left this machine's memory nobody has seen anything.
    const isUnsent = this.#conn.unsend(this.#writtenBytes);
    // The owner first: the request may be sent again from inside `fail`, and not on a connection as old as this one.
    this.#leave(isStale);
    exchange.fail(fault("RESET", reason, { safe: isUnsent }), isStale);
  }

  #finishIfDone(exchange: Exchange): void {
    if (this.#exchange !== exchange || !exchange.answered || !exchange.sent) return;
    this.#exchange = null;
    const owed = this.#owedBytes;
    this.#owedBytes = 0;
    if (owed > 0) exchange.reply.requestConsumed(owed);
    if (!this.#reusable) {
      this.close();
      return;
    }
    if (this.#paused) this.#steer();
    this.idleSinceMs = this.#clock.nowMs();
    this.idleUntilMs = this.idleSinceMs + this.#keepAliveMs;
    this.#owner.idle(this);
  }

  #leave(isStale: boolean = false): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#owner.gone(this, isStale);
  }
}

const EMPTY = new Uint8Array(0);

class Exchange implements RequestSink {
  readonly client: Http1Client;
  readonly request: RequestHead;
  readonly reply: ResponseSink;
  readonly chunked: boolean;
  /** The request has been written to its end. */
  sent: boolean;
  answerBegun = false;
  /** The final answer's head has come. */
  headSeen = false;
  answered = false;
  tunnelling = false;
  unconsumedBytes = 0;
  #over = false;

  constructor(
    client: Http1Client,
    request: RequestHead,
    reply: ResponseSink,
    chunked: boolean,
    last: boolean,
  ) {
    this.client = client;
    this.request = request;
    this.reply = reply;
    this.chunked = chunked;
    this.sent = last;
  }

  data(bytes: Uint8Array, start: number, stop: number): void {
    if (!this.#over && !this.sent) this.client.sendData(this, bytes, start, stop);
  }

  dataLent(bytes: Uint8Array, start: number, stop: number): void {
    if (!this.#over && !this.sent) this.client.sendLent(this, bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    if (!this.#over && !this.sent) this.client.sendEnd(this, trailers);
  }

  abort(_cause: Fault): void {
    if (this.#over) return;
    this.#over = true;
    this.client.cancel(this);
  }

  responseConsumed(bytes: number): void {
    if (!this.#over) this.client.responseConsumed(this, bytes);
  }

  /** `stale`: no byte of answer came and the connection was used before, so it may have been closed while idle. */
  fail(cause: Fault, stale: boolean = false): void {
    if (this.#over) return;
    this.#over = true;
    this.reply.fail(stale && IDEMPOTENT.has(this.request.method) ? { ...cause, safe: true } : cause);
  }
}

/** How the reader says that the server closed too early. */
const CUT: ReadonlySet<string> = new Set(["HTTP1_CLOSED_BEFORE_RESPONSE", "HTTP1_TRUNCATED"]);
