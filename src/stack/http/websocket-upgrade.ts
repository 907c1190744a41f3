import type { Fields } from "#/base/fields.ts";
import { fieldCount } from "#/base/fields.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import type { Random } from "#/base/random.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "./exchange.ts";
import { SPENT } from "./exchange.ts";
import type { Fault } from "./fault.ts";
import { fault, Http2Code } from "./fault.ts";
import { fieldName } from "./field-names.ts";

/** A request that opens a stream of bytes within HTTP/2 (RFC 8441 §4). */
export function isExtendedConnect(head: RequestHead): boolean {
  return head.upgrade !== null && head.method === "CONNECT" && head.version === "2";
}

/**
 * Opens a WebSocket that was asked for over HTTP/2 by the `Upgrade` of HTTP/1.1, for a server that takes no extended CONNECT:
 * the bytes within are the same (RFC 8441 §5), only the opening differs. Other protocols have no such twin and are refused.
 */
export function callAsUpgrade(
  service: HttpService,
  head: RequestHead,
  random: Random,
  reply: ResponseSink,
): RequestSink {
  if (head.upgrade !== "websocket") {
    reply.fail(
      fault("BAD_REQUEST", "the server does not take extended CONNECT (RFC 8441); check its SETTINGS", {
        status: 501,
      }),
    );
    return SPENT;
  }
  const upgrade = new WebSocketUpgrade(reply);
  upgrade.begin(service, upgradeRequest(head, random));
  return upgrade;
}

class WebSocketUpgrade implements RequestSink, ResponseSink {
  readonly #reply: ResponseSink;
  #sink: RequestSink = SPENT;
  #isOpen = false;
  #isOver = false;
  /** What the client sends before it may: a server that refused would read it as requests. At most the client's window. */
  readonly #early = new KeptBytes();
  #isEnded = false;

  constructor(reply: ResponseSink) {
    this.#reply = reply;
  }

  begin(service: HttpService, head: RequestHead): void {
    const sink = service.call(head, false, this);
    if (!this.#isOver) this.#sink = sink;
  }

  // --- from the client ---

  data(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#isOpen) this.#sink.data(bytes, start, stop);
    else if (!this.#isOver) this.#early.push(bytes, start, stop);
  }

  end(): void {
    this.#isEnded = true;
    if (this.#isOpen) this.#sink.end(null);
  }

  abort(cause: Fault): void {
    this.#leave();
    this.#sink.abort(cause);
  }

  responseConsumed(bytes: number): void {
    this.#sink.responseConsumed(bytes);
  }

  // --- from the server ---

  informational(head: ResponseHead): void {
    this.#reply.informational(head);
  }

  head(head: ResponseHead, last: boolean): void {
    if (head.status === 101) {
      this.#isOpen = true;
      this.#reply.head({ ...head, status: 200, reason: null, fields: withoutHandshake(head.fields) }, false);
      for (const bytes of this.#early.take()) this.#sink.data(bytes, 0, bytes.length);
      if (this.#isEnded) this.#sink.end(null);
      return;
    }
    this.#leave();
    if (head.status >= 200 && head.status < 300) {
      // RFC 8441 §4: to the client any 2xx would mean that the WebSocket is open.
      const message = `the server answered ${head.status} to the opening of a WebSocket, and did not switch protocols`;
      const cause = fault("PROTOCOL", message);
      this.#sink.abort(cause);
      this.#reply.fail(cause);
      return;
    }
    this.#reply.head(head, last);
    if (last) this.#refused();
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    this.#reply.body(bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    this.#reply.finish(trailers);
    if (!this.#isOpen) this.#refused();
  }

  fail(cause: Fault): void {
    this.#leave();
    this.#reply.fail(cause);
  }

  requestConsumed(bytes: number): void {
    this.#reply.requestConsumed(bytes);
  }

  /** The answer is complete: the server gets no more of this request, and the client is asked to stop. */
  #refused(): void {
    this.#sink.end(null);
    if (!this.#isEnded)
      this.#reply.fail(fault("CANCELLED", "the WebSocket was refused", { http2Code: Http2Code.NO_ERROR }));
  }

  #leave(): void {
    this.#isOver = true;
    this.#early.take();
  }
}

/** RFC 6455 §4.1; what only the handshake of HTTP/1.1 has is made here (RFC 8441 §5.1). */
function upgradeRequest(head: RequestHead, random: Random): RequestHead {
  const fields = withoutHandshake(head.fields);
  if (fieldCount(fields, "sec-websocket-version") === 0) fields.push("sec-websocket-version", "13");
  const key = Uint8Array.from({ length: 16 }, () => Math.floor(random.next() * 256));
  fields.push("sec-websocket-key", Buffer.from(key).toString("base64"));
  return { ...head, method: "GET", version: "1.1", absoluteForm: false, scheme: "http", fields };
}

/** Of the answer, too: the far side's `Sec-WebSocket-Accept` proves nothing to a client that sent no key. */
function withoutHandshake(from: Fields): Fields {
  const fields: Fields = [];
  for (let i = 0; i < from.length; i += 2)
    if (!HANDSHAKE.has(fieldName(from[i] as string).lower))
      fields.push(from[i] as string, from[i + 1] as string);
  return fields;
}

const HANDSHAKE: ReadonlySet<string> = new Set([
  // RFC 9113 §8.2.2: a client that finds one of these in HTTP/2 ends the stream.
  "connection",
  "keep-alive",
  "proxy-connection",
  // The request of the twin ends with its head, and so does the answer.
  "content-length",
  "expect",
  "upgrade",
  "sec-websocket-key",
  "sec-websocket-accept",
]);
