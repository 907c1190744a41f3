import { assert } from "#/base/assert.ts";
import type { Fields } from "#/base/fields.ts";
import { ChunkReader, ChunkFound } from "./chunks.ts";
import { FIELDS_CEILING, HeadParser, INCOMPLETE } from "./head.ts";
import { Http1Error, type Http1ErrorCode } from "./http1-error.ts";

/** What `Http1Reader.next()` found. */
export const Event = { NOTHING: 0, HEAD: 1, BODY: 2, END: 3, UPGRADED: 4, ERROR: 5 } as const;
export type Event = (typeof Event)[keyof typeof Event];

/**
 * How the bytes after a head are delimited. `none`: no content (END follows, except after a 1xx response). `tunnel`: no HTTP any
 * more (UPGRADED follows): a CONNECT request, its 2xx response, a 101 response.
 */
export type Framing = "none" | "length" | "chunked" | "close" | "tunnel";

export interface Http1ReaderSettings {
  /** `request` on the server's side of a connection, `response` on the client's. */
  readonly role: "request" | "response";
  /** A whole head as it comes. Default 65536. Over it: 431, or 414 while still in the request line. */
  readonly headBytesMax?: number;
  /**
   * A whole head, and a trailer section, as RFC 9113 §6.5.2 counts them: 32 for each field beside its characters, the start
   * line as the fields that it becomes. So one bound holds for both versions. Default: none. Over it: 431, or 414.
   */
  readonly listBytesMax?: number;
  /** Field lines of a head, and of trailers. Default 512, at most 32768. */
  readonly fieldsMax?: number;
  /** The trailer section. Default 16384. */
  readonly trailerBytesMax?: number;
  /** Chunk extension bytes that a peer may be ahead of its body bytes. Default 4096. */
  readonly chunkExtensionBytesMax?: number;
  /** Interim (1xx) responses before a final one. Default 32. */
  readonly informationalMax?: number;
  /** Responses that may be awaited at once. Default 1024; `responseTo` beyond it is a bug of the caller. */
  readonly awaitedMax?: number;
  /** Refuse an HTTP/1.1 request without Host, as RFC 9112 §3.2 demands. Default true. */
  readonly hostRequired?: boolean;
}

/**
 * Reads HTTP/1.0 and HTTP/1.1 messages (RFC 9112) of one direction of one connection. Holds no socket and no timer.
 *
 * Drain `next()` until NOTHING after each `feed` or `end`; to push back, stop draining and stop feeding. Requests may be
 * pipelined: HEAD of the next one may follow END at once. What implementations are known to read differently is
 * refused, never repaired; after ERROR the reader is dead.
 *
 * It holds at most `headBytesMax` (or `trailerBytesMax`) of an unfinished head, a copy of the previous head (at
 * most 2.5 KiB), and what was fed and not drained. Between messages it holds nothing but that copy.
 */
export class Http1Reader {
  /** HEAD: whether another message may follow on this connection. Always false with `close` and `tunnel` framing. */
  keepAlive = false;
  /** HEAD: the same bytes as the head before it on this connection, so what was made of that one still holds. */
  headRepeated = false;
  framing: Framing = "none";
  /** HEAD: declared length in bytes, -1 without. Also set where no content follows (HEAD, 304). */
  contentLength = -1;
  /** BODY, UPGRADED: the bytes are `bytes[start, stop)`. Never written to again by the reader, so a view may be kept. */
  bytes: Uint8Array = EMPTY;
  start = 0;
  stop = 0;
  /** END: the trailer fields of a chunked message, null when there are none. */
  trailers: Fields | null = null;
  error: Http1Error | null = null;

  readonly #role: "request" | "response";
  readonly #headBytesMax: number;
  readonly #trailerBytesMax: number;
  readonly #informationalMax: number;
  readonly #awaitedMax: number;
  readonly #head: HeadParser;
  readonly #chunks: ChunkReader;
  #state: State = State.ExpectHead;
  /** Unread bytes are `bytes[#at, #limit)`. 0 <= #at <= #limit <= bytes.length. */
  #at = 0;
  #limit = 0;
  /** `bytes` is memory of our own with room after #limit. */
  #growing = false;
  /** Up to here an unfinished head was looked at in vain. #at <= #seen <= #limit, 0 when not yet. */
  #seen = 0;
  /** Body bytes still to come with `length` framing. */
  #bodyBytes = 0;
  #transportEnded = false;
  #awaited: Awaited[] = [];
  #awaitedAt = 0;
  #informational = 0;
  #emptyLines = 0;
  /** Any byte of the message now awaited has come. */
  #begun = false;

  constructor(settings: Http1ReaderSettings) {
    const { role, fieldsMax = 512, hostRequired = true } = settings;
    assert(fieldsMax > 0 && fieldsMax <= FIELDS_CEILING, `fieldsMax ${fieldsMax}`);
    this.#role = role;
    this.#headBytesMax = settings.headBytesMax ?? 65536;
    this.#trailerBytesMax = settings.trailerBytesMax ?? 16384;
    this.#informationalMax = settings.informationalMax ?? 32;
    this.#awaitedMax = settings.awaitedMax ?? 1024;
    this.#head = new HeadParser({
      role,
      fieldsMax,
      hostRequired,
      listBytesMax: settings.listBytesMax ?? Infinity,
    });
    this.#chunks = new ChunkReader(settings.chunkExtensionBytesMax ?? 4096);
  }

  /** HEAD: a fresh array owned by the receiver; case and order as sent. Until the next head is read. */
  get fields(): Fields {
    return this.#head.fields;
  }
  get method(): string {
    return this.#head.method;
  }
  get target(): string {
    return this.#head.target;
  }
  get version(): "1.0" | "1.1" {
    return this.#head.version;
  }
  get status(): number {
    return this.#head.status;
  }
  get reason(): string {
    return this.#head.reason;
  }
  /** The client waits for 100 (Continue) before it sends the body. */
  get expectContinue(): boolean {
    return this.#head.expectContinue;
  }
  /** What the Upgrade field offers, when Connection names it and the version is 1.1; else null. */
  get upgrade(): string | null {
    return this.#head.upgrade;
  }
  /** The request target has a scheme and authority; it overrules Host (RFC 9112 §3.2.2). */
  get absoluteForm(): boolean {
    return this.#head.absoluteForm;
  }
  /** The status that answers `error`; 0 without an error. */
  get statusHint(): number {
    return this.error?.statusHint ?? 0;
  }
  /** Fed and not read yet. */
  get bufferedBytes(): number {
    return this.#limit - this.#at;
  }
  /** Of a body with a length: bytes that are still to come and will be BODY as they are, whatever they are. Else 0. */
  get plainBodyBytes(): number {
    return this.#state === State.ExpectBody && this.#at === this.#limit ? this.#bodyBytes : 0;
  }
  /** Nothing of a next message has come: a server may close here without an answer. */
  get isBetweenMessages(): boolean {
    return this.#state === State.ExpectHead && this.#at === this.#limit && !this.#begun;
  }

  /** Takes ownership of `bytes`. */
  feed(bytes: Uint8Array): void {
    if (this.#state === State.Dead || this.#state === State.Over || bytes.length === 0) return;
    const left = this.#limit - this.#at;
    if (left === 0) {
      this.bytes = bytes;
      this.#at = 0;
      this.#limit = bytes.length;
      this.#seen = 0;
      this.#growing = false;
    } else this.#append(bytes, left);
  }

  /** What was fed and not read becomes the reader's own: for bytes that were lent. */
  own(): void {
    const left = this.#limit - this.#at;
    if (left === 0) return;
    this.bytes = new Uint8Array(this.bytes.subarray(this.#at, this.#limit));
    this.#seen = Math.max(0, this.#seen - this.#at);
    this.#at = 0;
    this.#limit = left;
    this.#growing = false;
  }

  /** The remote side ended its half of the transport. */
  end(): void {
    this.#transportEnded = true;
  }

  /**
   * Response role: the next response in line answers a request with this method. `upgradeAsked` says whether the request
   * carried Upgrade; without it a 101 is refused. Call it when the request is sent, before the response is fed.
   */
  responseTo(method: string, upgradeAsked = true): void {
    assert(this.#role === "response", "only responses answer something");
    assert(this.#awaited.length - this.#awaitedAt < this.#awaitedMax, "too many responses awaited");
    const isFirst = this.#awaitedAt === this.#awaited.length;
    this.#awaited.push({ method, upgradeAsked });
    // Bytes that were here before the request cannot be its answer: they are left over from a response that lied about its end.
    if (isFirst && this.#state === State.ExpectHead && this.#limit > this.#at) this.#failUnexpected();
  }

  /** Request role: the request was answered with 101, so what follows is no HTTP. UPGRADED comes next. */
  switchToRaw(): void {
    if (this.#state !== State.Dead) this.#state = State.RawFirst;
  }

  /** Unread bytes, for handing the connection over. The reader is over afterwards. */
  takeRest(): Uint8Array {
    const rest = this.bytes.subarray(this.#at, this.#limit);
    if (this.#state !== State.Dead) this.#state = State.Over;
    this.#release();
    return rest;
  }

  next(): Event {
    switch (this.#state) {
      case State.ExpectHead:
        return this.#nextHead();
      case State.ExpectEnd:
        return this.#end(null);
      case State.ExpectBody:
        return this.#nextOfLength();
      case State.ExpectBodyUntilClose:
        return this.#nextUntilClose();
      case State.ExpectChunk:
        return this.#nextChunk();
      case State.ExpectTrailers:
        return this.#nextTrailers();
      case State.RawFirst:
        this.#state = State.Raw;
        this.#takeAll();
        return Event.UPGRADED;
      case State.Raw:
        return this.#limit > this.#at ? this.#takeAll() : this.#nothing();
      case State.Over:
        this.#at = this.#limit;
        return this.#nothing();
      case State.Dead:
        return Event.ERROR;
    }
  }

  #nextHead(): Event {
    if (this.#at === this.#limit && !this.#transportEnded) return this.#nothing();
    if (this.#role === "response" && this.#awaitedAt === this.#awaited.length) {
      if (this.#at === this.#limit) return this.#nothing();
      return this.#failUnexpected();
    }
    return this.#parseHead();
  }

  #parseHead(): Event {
    if (!this.#begun && !this.#skipEmptyLines()) {
      return this.#fail("HTTP1_HEAD_INVALID", "too many empty lines before a message", 400);
    }
    const have = this.#limit - this.#at;
    if (have === 1 && this.bytes[this.#at] === CR && !this.#transportEnded) return Event.NOTHING;
    if (have === 0) return this.#transportEnded ? this.#headCut() : this.#nothing();
    this.#begun = true;
    const mayGrow = have < this.#headBytesMax;
    // An unfinished head is looked at again only when a line has ended, so that single bytes cost no more than lines.
    if (
      mayGrow &&
      !this.#transportEnded &&
      this.#seen > this.#at &&
      !hasLineEnd(this.bytes, this.#seen, this.#limit)
    ) {
      this.#seen = this.#limit;
      return Event.NOTHING;
    }
    const stop = mayGrow ? this.#limit : this.#at + this.#headBytesMax;
    const end = this.#head.parse(this.bytes, this.#at, stop);
    if (end === INCOMPLETE) {
      if (!mayGrow) return this.#headTooLarge();
      if (this.#transportEnded) return this.#headCut();
      this.#seen = this.#limit;
      return Event.NOTHING;
    }
    if (end < 0) return this.#die(this.#head.error);
    this.headRepeated = this.#head.repeated;
    this.#at = end;
    return this.#headDone();
  }

  /**
   * RFC 9112 §2.2: empty lines before a request are ignored. Some servers write one after a bodiless response too. A few; more
   * than that is no mistake.
   */
  #skipEmptyLines(): boolean {
    while (this.#limit - this.#at >= 2 && this.bytes[this.#at] === CR && this.bytes[this.#at + 1] === LF) {
      if (++this.#emptyLines > EMPTY_LINES_MAX) return false;
      this.#at += 2;
    }
    return true;
  }

  /** RFC 9112 §6.3, in its order. */
  #headDone(): Event {
    const head = this.#head;
    this.#seen = 0;
    this.#begun = false;
    this.#emptyLines = 0;
    this.contentLength = head.contentLength;
    this.keepAlive = !head.connectionClose && (head.version === "1.1" || head.connectionKeepAlive);
    if (head.chunked) this.framing = "chunked";
    else if (head.contentLength !== -1) this.framing = "length";
    else this.framing = this.#role === "request" ? "none" : "close";
    if (this.#role === "request") {
      if (head.method === "CONNECT") this.framing = "tunnel";
    } else if (!this.#frameResponse()) return Event.ERROR;

    switch (this.framing) {
      case "none":
        this.#state = State.ExpectEnd;
        break;
      case "length":
        this.#bodyBytes = head.contentLength;
        this.#state = head.contentLength === 0 ? State.ExpectEnd : State.ExpectBody;
        break;
      case "chunked":
        this.#chunks.begin();
        this.#state = State.ExpectChunk;
        break;
      case "close":
        this.keepAlive = false;
        this.#state = State.ExpectBodyUntilClose;
        break;
      case "tunnel":
        this.keepAlive = false;
        this.#state = State.RawFirst;
        break;
    }
    if (this.#role === "response" && head.status < 200 && head.status !== 101) this.#state = State.ExpectHead;
    return Event.HEAD;
  }

  /** What a response means depends on what it answers. False when it cannot be an answer. */
  #frameResponse(): boolean {
    const { status } = this.#head;
    const awaited = this.#awaited[this.#awaitedAt] as Awaited;
    if (status < 200 && status !== 101) {
      this.framing = "none";
      if (++this.#informational <= this.#informationalMax) return true;
      this.#fail("HTTP1_RESPONSE_UNEXPECTED", `more than ${this.#informationalMax} interim responses`, 502);
      return false;
    }
    this.#informational = 0;
    if (++this.#awaitedAt === this.#awaited.length || this.#awaitedAt === 64) {
      this.#awaited.splice(0, this.#awaitedAt);
      this.#awaitedAt = 0;
    }
    if (status === 101) {
      this.framing = "tunnel";
      // RFC 9110 §15.2.2, §7.8: never without Upgrade in the request.
      if (awaited.upgradeAsked) return true;
      this.#fail("HTTP1_RESPONSE_UNEXPECTED", "101 without Upgrade in the request", 502);
      return false;
    }
    if (awaited.method === "CONNECT" && status < 300) this.framing = "tunnel";
    else if (awaited.method === "HEAD" || status === 304) this.framing = "none";
    else if (status === 204) {
      // RFC 9112 §6.3: no content whatever the fields say. Some servers send it nevertheless, so nothing after it is believed.
      if (this.framing === "chunked" || this.contentLength > 0) this.keepAlive = false;
      this.framing = "none";
    }
    return true;
  }

  #nextOfLength(): Event {
    const available = this.#limit - this.#at;
    if (available === 0) return this.#transportEnded ? this.#truncated() : this.#nothing();
    this.start = this.#at;
    this.stop = this.#at += Math.min(available, this.#bodyBytes);
    this.#bodyBytes -= this.stop - this.start;
    if (this.#bodyBytes === 0) this.#state = State.ExpectEnd;
    return Event.BODY;
  }

  #nextUntilClose(): Event {
    if (this.#limit > this.#at) {
      this.#takeAll();
      return Event.BODY;
    }
    return this.#transportEnded ? this.#end(null) : this.#nothing();
  }

  #nextChunk(): Event {
    const chunks = this.#chunks;
    const found = chunks.next(this.bytes, this.#at, this.#limit);
    this.#at = chunks.at;
    switch (found) {
      case ChunkFound.DATA:
        this.start = chunks.start;
        this.stop = chunks.at;
        return Event.BODY;
      case ChunkFound.LAST:
        this.#state = State.ExpectTrailers;
        return this.#nextTrailers();
      case ChunkFound.BROKEN:
        return this.#fail("HTTP1_CHUNK_INVALID", chunks.why, 400);
      case ChunkFound.NOTHING:
        return this.#transportEnded ? this.#truncated() : this.#nothing();
    }
  }

  #nextTrailers(): Event {
    const have = this.#limit - this.#at;
    // By far the most common trailer section is an empty one.
    if (have >= 2 && this.bytes[this.#at] === CR && this.bytes[this.#at + 1] === LF) {
      this.#at += 2;
      return this.#end(null);
    }
    if (have === 0) return this.#transportEnded ? this.#truncated() : this.#nothing();
    const mayGrow = have < this.#trailerBytesMax;
    if (
      mayGrow &&
      !this.#transportEnded &&
      this.#seen > this.#at &&
      !hasLineEnd(this.bytes, this.#seen, this.#limit)
    ) {
      this.#seen = this.#limit;
      return Event.NOTHING;
    }
    const stop = mayGrow ? this.#limit : this.#at + this.#trailerBytesMax;
    const end = this.#head.parseTrailers(this.bytes, this.#at, stop);
    if (end === INCOMPLETE) {
      if (!mayGrow)
        return this.#fail("HTTP1_HEAD_TOO_LARGE", `trailers over ${this.#trailerBytesMax} bytes`, 431);
      if (this.#transportEnded) return this.#truncated();
      this.#seen = this.#limit;
      return Event.NOTHING;
    }
    if (end < 0) return this.#die(this.#head.error);
    this.#at = end;
    this.#seen = 0;
    return this.#end(this.#head.trailers);
  }

  #end(trailers: Fields | null): Event {
    this.trailers = trailers;
    // RFC 9112 §9.6: after a message that ends the connection nothing is read any more.
    this.#state = this.keepAlive ? State.ExpectHead : State.Over;
    return Event.END;
  }

  #takeAll(): Event {
    this.start = this.#at;
    this.stop = this.#at = this.#limit;
    return Event.UPGRADED;
  }

  /** NOTHING, and with nothing left to read, no memory kept either. */
  #nothing(): Event {
    if (this.#at === this.#limit) this.#release();
    return Event.NOTHING;
  }

  #release(): void {
    this.bytes = EMPTY;
    this.start = 0;
    this.stop = 0;
    this.#at = 0;
    this.#limit = 0;
    this.#seen = 0;
    this.#growing = false;
  }

  /** Joins what is unread with what came. The memory grows by doubling, and what was handed out of it stays as it is. */
  #append(bytes: Uint8Array, left: number): void {
    if (!this.#growing || this.#limit + bytes.length > this.bytes.length) {
      const grown = new Uint8Array(Math.max(2 * (left + bytes.length), 1024));
      grown.set(this.bytes.subarray(this.#at, this.#limit));
      this.#seen = Math.max(0, this.#seen - this.#at);
      this.#at = 0;
      this.#limit = left;
      this.bytes = grown;
      this.#growing = true;
    }
    this.bytes.set(bytes, this.#limit);
    this.#limit += bytes.length;
  }

  #headTooLarge(): Event {
    // RFC 9112 §3: 414 for a target that is too long. RFC 6585 §5: 431 for fields.
    const status = this.#head.inStartLine ? 414 : 431;
    return this.#fail("HTTP1_HEAD_TOO_LARGE", `a head over ${this.#headBytesMax} bytes`, status);
  }

  #failUnexpected(): Event {
    return this.#fail("HTTP1_RESPONSE_UNEXPECTED", "bytes of a response that was not asked for", 502);
  }

  /** The transport ended where a head belongs. */
  #headCut(): Event {
    if (this.#begun || this.#informational > 0) return this.#truncated();
    if (this.#role === "request") return this.#nothing();
    return this.#fail("HTTP1_CLOSED_BEFORE_RESPONSE", "the connection ended before a response began", 502);
  }

  #truncated(): Event {
    return this.#fail("HTTP1_TRUNCATED", "the connection ended inside a message", 400);
  }

  #fail(code: Http1ErrorCode, message: string, statusHint: number): typeof Event.ERROR {
    return this.#die(new Http1Error(code, message, this.#role === "request" ? statusHint : 502));
  }

  #die(error: Http1Error | null): typeof Event.ERROR {
    this.error = error;
    this.#state = State.Dead;
    this.#release();
    return Event.ERROR;
  }
}

const State = {
  ExpectHead: 0,
  ExpectEnd: 1,
  ExpectBody: 2,
  ExpectBodyUntilClose: 3,
  ExpectChunk: 4,
  ExpectTrailers: 5,
  RawFirst: 6,
  Raw: 7,
  Over: 8,
  Dead: 9,
} as const;
type State = (typeof State)[keyof typeof State];

interface Awaited {
  readonly method: string;
  readonly upgradeAsked: boolean;
}

const EMPTY = new Uint8Array(0);
const CR = 0x0d;
const LF = 0x0a;
const EMPTY_LINES_MAX = 4;

function hasLineEnd(bytes: Uint8Array, start: number, stop: number): boolean {
  for (let i = start; i < stop; i++) if (bytes[i] === LF) return true;
  return false;
}
