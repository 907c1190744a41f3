import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import { fieldValue, keepNeverIndexed } from "#/base/fields.ts";
import { NO_BLOCKS } from "#/wire/hpack/decoder.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import { HEADERS_TOO_LARGE } from "#/wire/http2/connection.ts";
import { errorCodeName } from "#/wire/http2/frame.ts";
import type { BackendBounds } from "../balance/backend-bounds.ts";
import type { HeadBound } from "./head-bound.ts";
import { HEAD_BOUND } from "./head-bound.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "./exchange.ts";
import type { RequestTrace } from "../trace/request-trace.ts";
import { FAR_DEBUG_FIELD, FAR_TRACE_FIELD } from "./field-names.ts";
import { IDEMPOTENT, lendBody, SPENT, UNHEARD } from "./exchange.ts";
import type { Fault } from "./fault.ts";
import { Http2Code, fault } from "./fault.ts";
import type { Http2LinkOwner } from "./http2-link.ts";
import { BETWEEN_OURS, Http2Link, Http2Stream } from "./http2-link.ts";
import { http2CodeOf, readUnseen } from "./mesh-answer.ts";
import { PendingRequest } from "./pending-request.ts";
import type { FarSide, Response } from "./translate.ts";
import {
  answerTrailersFromHttp2,
  carriageTo,
  requestToHttp2,
  responseFromHttp2,
  trailersToHttp2,
} from "./translate.ts";
import { isExtendedConnect } from "./websocket-upgrade.ts";

export interface Http2ClientOptions {
  /** The server is another sidecar: HTTP/1 travels as `l5d-orig-proto`, and its error field is believed. */
  readonly meshed: boolean;
  /** It is one of ours, and is told how HTTP/1 was spelled (`spelling.ts`). Default false. */
  readonly spells?: boolean;
  /** The bound on answers' heads. At its default, and counted by nobody, where there is none. */
  readonly heads?: HeadBound;
  readonly machine?: Partial<Http2Settings>;
  /** After so many requests the connection makes room for another: stream ids end at 2^31 (RFC 9113 §5.1.1). */
  readonly requestsMax?: number;
  /** … or after so many streams that ended by a reset. */
  readonly resetsMax?: number;
  /** … or after such a time. 0, the default: never. */
  readonly ageMs?: number;
  /** Where an extended CONNECT goes that this server does not take. By default it is refused. */
  readonly withoutConnect?: HttpService["call"];
  /** Counts requests that wait for a stream. By default nobody does. */
  readonly backend?: BackendBounds;
}

const REQUESTS_MAX = 1_000_000_000;

/**
 * Streams that may end by a reset, of either side, before the connection makes room for another. A peer counts them against
 * all that the connection carries (CVE-2023-44487; our own sidecars end it at 1,000 in a row): before it loses patience,
 * who gives much up gets a fresh one, and its neighbours' requests finish on this one.
 */
const RESETS_MAX = 250;

/** Requests that wait for a stream on one connection. Past it they fail as OVERLOADED. */
const WAITING_MAX = 1_024;

/** Interim responses (1xx) before one final; as many as from a server of HTTP/1. */
const INFORMATIONAL_MAX = 32;

interface Waiting {
  readonly head: RequestHead;
  readonly last: boolean;
  readonly pending: PendingRequest;
}

/** One HTTP/2 connection to a server, its streams shared by all requests to that endpoint. */
export class Http2Client implements HttpService, Http2LinkOwner {
  readonly borrowsLong = true;
  readonly #link: Http2Link;
  readonly #gone: () => void;
  readonly #far: FarSide;
  readonly #requestsMax: number;
  readonly #resetsMax: number;
  readonly #heads: HeadBound;
  readonly #withoutConnect: HttpService["call"];
  readonly #backend: BackendBounds | null;
  /** By `Http2Connection.place`: the list that was there last, and what was read in it. */
  readonly #lists: (Fields | null)[] = NO_BLOCKS.slice();
  readonly #answers: (Response | null)[] = NO_BLOCKS.slice();
  #requests = 0;
  #resets = 0;
  #ageing: Timer | null = null;
  #retired = false;
  #waiting: Waiting[] = [];

  /** `gone` is called once, when the connection takes no more requests (GOAWAY or closed): time for another. */
  constructor(conn: Conn, clock: Clock, gone: () => void, options: Http2ClientOptions) {
    this.#gone = gone;
    this.#far = !options.meshed ? "foreign" : options.spells === true ? "pillion" : "sidecar";
    this.#requestsMax = options.requestsMax ?? REQUESTS_MAX;
    this.#resetsMax = options.resetsMax ?? RESETS_MAX;
    this.#withoutConnect = options.withoutConnect ?? refuseConnect;
    this.#backend = options.backend ?? null;
    this.#heads = options.heads ?? HEAD_BOUND;
    const settings = {
      ...this.#heads.http2(options.meshed),
      ...(this.#far === "pillion" ? BETWEEN_OURS : {}),
      ...options.machine,
      role: "client" as const,
    };
    this.#link = new Http2Link(conn, clock, this, settings, null);
    const ageMs = options.ageMs ?? 0;
    if (ageMs > 0) this.#ageing = clock.after(ageMs, () => this.close());
  }

  get usable(): boolean {
    return !this.#retired;
  }

  /** What clients of this connection do not read may soon hold up those that do: further ones are better off elsewhere. */
  get isCrowded(): boolean {
    return this.#link.machine.isCrowded;
  }

  get activeRequests(): number {
    return this.#link.streamCount;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const { machine } = this.#link;
    // RFC 8441 §3: only the server's SETTINGS say whether it takes extended CONNECT.
    const isKnown = machine.settled || !isExtendedConnect(head);
    if (!this.#retired && this.#waiting.length === 0 && isKnown && this.#link.hasRoom)
      return this.#start(head, last, reply);
    const pending = new PendingRequest(reply);
    const refusal = this.#retired ? null : (this.#backend?.refuseWaiting() ?? null);
    if (refusal !== null) pending.fail(refusal);
    else if (this.#retired) {
      pending.fail(fault("REFUSED", "the connection takes no more requests", { safe: true }));
    } else if (this.#waiting.length >= WAITING_MAX) {
      pending.fail(
        fault("OVERLOADED", `more than ${WAITING_MAX} requests wait for a stream of one HTTP/2 connection`, {
          safe: true,
        }),
      );
    } else {
      const entry = { head, last, pending };
      this.#waiting.push(entry);
      pending.onLeft = this.#backend?.wait() ?? null;
      pending.onCancel = () => {
        this.#waiting = this.#waiting.filter((other) => other !== entry);
      };
    }
    return pending;
  }

  /** A stream was reset, by whichever side. */
  streamReset(): void {
    if (++this.#resets === this.#resetsMax) this.close();
  }

  /** No further requests; the connection ends when those under way have. */
  close(): void {
    this.#retire();
    this.#link.drain();
  }

  /** A final answer's head, just read. One that repeats is read once. */
  answerOf(fields: Fields): Response {
    const { place } = this.#link.machine;
    if (place >= 0 && this.#lists[place] === fields) return this.#answers[place] as Response;
    const answer = responseFromHttp2(fields, this.#far);
    if (place >= 0) {
      this.#lists[place] = fields;
      this.#answers[place] = answer;
    }
    return answer;
  }

  #start(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const { machine } = this.#link;
    if (isExtendedConnect(head) && !machine.remoteConnectProtocol)
      return this.#withoutConnect(head, last, reply);
    let fields = requestToHttp2(head, carriageTo(this.#far));
    const trace = this.#far === "pillion" ? (head.trace ?? null) : null;
    if (trace !== null) fields = withDebug(fields);
    const id = machine.request(fields, last);
    const stream = new ClientStream(this, this.#link, id, head, reply, this.#far, this.#heads, last, trace);
    this.#link.add(stream);
    this.#link.touch();
    if (++this.#requests === this.#requestsMax) this.close();
    return stream;
  }

  opened(streamId: number): void {
    // RFC 9113 §8.4: push was switched off in our SETTINGS, so the machine has refused this already.
    this.#link.machine.reset(streamId, Http2Code.REFUSED_STREAM);
  }

  goingAway(): void {
    this.#retire();
  }

  roomier(): void {
    while (this.#waiting.length > 0 && !this.#retired && this.#link.hasRoom) {
      // Not `isKnown` as yet (see `call`); those behind it keep their turn.
      if (!this.#link.machine.settled && isExtendedConnect((this.#waiting[0] as Waiting).head)) return;
      const { head, last, pending } = this.#waiting.shift() as Waiting;
      pending.proceed((reply) => this.#start(head, last, reply));
    }
  }

  closed(_error: ConnError | null): void {
    this.#retire();
  }

  #retire(): void {
    if (this.#retired) return;
    this.#retired = true;
    this.#ageing?.cancel();
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#gone();
    for (const { head, last, pending } of waiting) {
      // A server that never sent SETTINGS may know HTTP/1 only, and there a WebSocket has another way.
      if (isExtendedConnect(head) && !this.#link.machine.settled)
        pending.proceed((reply) => this.#withoutConnect(head, last, reply));
      else pending.fail(fault("REFUSED", "the connection ended before the request was sent", { safe: true }));
    }
  }
}

/** Asks the far sidecar for its part. The fields are a memo that is shared, so they are copied. */
function withDebug(fields: Fields): Fields {
  const asking: Fields = [...fields, FAR_DEBUG_FIELD, "1"];
  keepNeverIndexed(fields, asking);
  return asking;
}

function refuseConnect(_head: RequestHead, _last: boolean, reply: ResponseSink): RequestSink {
  reply.fail(fault("BAD_REQUEST", "the far side does not take extended CONNECT (RFC 8441)", { status: 501 }));
  return SPENT;
}

/** Spares answers without a body the search: a sidecar says "unseen" with a status for errors, or as gRPC. */
function mayBeUnseen(fields: Fields): boolean {
  const status = fields[1] as string;
  return status === "200" || status >= "400";
}

class ClientStream extends Http2Stream implements RequestSink {
  readonly #client: Http2Client;
  readonly #far: FarSide;
  readonly #heads: HeadBound;
  /** Whether its trailers are spelled. */
  readonly #isSpelled: boolean;
  readonly #isRepeatable: boolean;
  #reply: ResponseSink;
  /** Of a request whose sidecar there says what happened to it. */
  readonly #trace: RequestTrace | null;
  #headSeen = false;
  #informational = 0;

  constructor(
    client: Http2Client,
    link: Http2Link,
    id: number,
    head: RequestHead,
    reply: ResponseSink,
    far: FarSide,
    heads: HeadBound,
    last: boolean,
    trace: RequestTrace | null,
  ) {
    super(link, id);
    this.#trace = trace;
    this.#client = client;
    this.#isRepeatable = IDEMPOTENT.has(head.method);
    this.#heads = heads;
    this.#reply = reply;
    this.#far = far;
    this.#isSpelled = far === "pillion" && head.version !== "2";
    this.sent = last;
  }

  // --- from the server ---

  /** A server that is slow is its clients' to be patient with. */
  look(): void {}

  receiveHead(fields: Fields, last: boolean): void {
    this.#headSeen = true;
    const reply = this.#reply;
    if (this.#trace !== null) this.#trace.far(fieldValue(fields, FAR_TRACE_FIELD));
    if (last) {
      this.received = true;
      const explanation = this.#far !== "foreign" && mayBeUnseen(fields) ? readUnseen(fields) : null;
      if (explanation !== null) {
        this.#reply = UNHEARD;
        if (this.sent) this.leaveIfDone();
        else this.#reset(Http2Code.CANCEL);
        reply.fail(fault("REFUSED", explanation.line, { safe: true, explanation }));
        return;
      }
    }
    reply.head(this.#client.answerOf(fields), last);
    this.leaveIfDone();
  }

  receiveInformational(fields: Fields): void {
    // They have no flow control, so a server that never stops would fill the memory for a client that does not read.
    if (++this.#informational > INFORMATIONAL_MAX) {
      const reply = this.#reply;
      this.abort(fault("PROTOCOL", "too many interim responses"));
      reply.fail(fault("PROTOCOL", `the far side sent more than ${INFORMATIONAL_MAX} interim responses`));
      return;
    }
    this.#reply.informational(responseFromHttp2(fields, this.#far));
  }

  receiveData(bytes: Uint8Array, start: number, stop: number): void {
    if (this.link.isLent) lendBody(this.#reply, bytes, start, stop);
    else this.#reply.body(bytes, start, stop);
  }

  receiveEnd(trailers: Fields | null): void {
    this.received = true;
    this.#reply.finish(trailers === null ? null : answerTrailersFromHttp2(trailers, this.#far));
    this.leaveIfDone();
  }

  receiveReset(errorCode: number, ownReason: string): void {
    this.gone = true;
    this.#client.streamReset();
    const reply = this.#reply;
    this.#reply = UNHEARD;
    if (ownReason !== "") {
      if (ownReason === HEADERS_TOO_LARGE)
        this.#heads.refused("http/2", this.#headSeen ? "trailers" : "response");
      reply.fail(fault("PROTOCOL", `the answer of ${this.#whom()} broke HTTP/2: ${ownReason}`));
      return;
    }
    if (this.received && errorCode === Http2Code.NO_ERROR) {
      // RFC 9113 §8.1: answered in full; the rest of the request is not wanted.
      reply.fail(
        fault("CANCELLED", "the answer ended before the request", { http2Code: Http2Code.NO_ERROR }),
      );
      return;
    }
    // RFC 9113 §8.7: REFUSED_STREAM is a promise that nothing was processed.
    const refused = errorCode === Http2Code.REFUSED_STREAM && !this.#headSeen;
    reply.fail(
      refused
        ? fault("REFUSED", "the far side could not take the request; nothing of it was processed", {
            safe: true,
          })
        : fault("RESET", `${this.#whom()} reset the stream with ${errorCodeName(errorCode)}`, {
            http2Code: errorCode,
          }),
    );
  }

  receiveLost(reason: string, isUnsent: boolean, isDead: boolean): void {
    this.gone = true;
    const reply = this.#reply;
    this.#reply = UNHEARD;
    const safe = isUnsent || (isDead && this.#isRepeatable && !this.#headSeen && this.#informational === 0);
    reply.fail(fault("RESET", `the connection to ${this.#whom()} was lost: ${reason}`, { safe }));
  }

  #whom(): string {
    return this.#far !== "foreign" ? "the far sidecar" : "the application";
  }

  protected credited(bytes: number): void {
    this.#reply.requestConsumed(bytes);
  }

  // --- from the service's caller ---

  data(bytes: Uint8Array, start: number, stop: number): void {
    this.sendData(bytes, start, stop);
  }

  dataLent(bytes: Uint8Array, start: number, stop: number): void {
    this.sendLentData(bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    this.sendEnd(trailers === null ? null : trailersToHttp2(trailers, this.#isSpelled));
  }

  abort(cause: Fault): void {
    this.#reply = UNHEARD;
    // A client's own code tells the application what it would have told without us.
    const isTold = cause.http2Code >= 0 || cause.code === "BAD_REQUEST";
    this.#reset(isTold ? http2CodeOf(cause) : Http2Code.CANCEL);
  }

  responseConsumed(bytes: number): void {
    this.release(bytes);
  }

  #reset(errorCode: number): void {
    if (this.gone) return;
    this.resetStream(errorCode);
    this.#client.streamReset();
  }
}
