import { copyOf } from "#/base/copy-of.ts";
import type { ConnError, ConnErrorCode } from "#/base/errors.ts";
import type { Fields } from "#/base/fields.ts";
import { KeptBytes } from "#/base/kept-bytes.ts";
import type { RequestSink, ResponseSink } from "./exchange.ts";
import { lendData, SPENT } from "./exchange.ts";
import type { Fault } from "./fault.ts";
import { fault } from "./fault.ts";

/**
 * A request that waits for its connection (or its endpoint, or its turn). Body bytes that come meanwhile are kept and not
 * reported as consumed, so the client's window bounds them. `proceed` hands everything over and then steps aside.
 */
export class PendingRequest implements RequestSink {
  /** Called when the client gives up while waiting. */
  onCancel: (() => void) | null = null;
  /** Called when the wait is over, however it ends. */
  onLeft: (() => void) | null = null;
  readonly #reply: ResponseSink;
  #sink: RequestSink | null = null;
  readonly #kept = new KeptBytes();
  #ended = false;
  #trailers: Fields | null = null;
  #over = false;

  constructor(reply: ResponseSink) {
    this.#reply = reply;
  }

  get waiting(): boolean {
    return this.#sink === null && !this.#over;
  }

  /** Sends the request on: `start` makes the call and returns its sink. Does nothing after a cancel. */
  proceed(start: (reply: ResponseSink) => RequestSink): void {
    if (!this.waiting) return;
    this.onLeft?.();
    const sink = start(this.#reply);
    this.#sink = sink;
    for (const bytes of this.#kept.take()) sink.data(bytes, 0, bytes.length);
    if (this.#ended) sink.end(this.#trailers);
  }

  fail(cause: Fault): void {
    if (!this.waiting) return;
    this.#over = true;
    this.onLeft?.();
    this.#sink = SPENT;
    this.#kept.take();
    this.#reply.fail(cause);
  }

  data(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#sink !== null) this.#sink.data(bytes, start, stop);
    else this.#kept.push(bytes, start, stop);
  }

  dataLent(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#sink !== null) lendData(this.#sink, bytes, start, stop);
    else this.#kept.push(copyOf(bytes, start, stop), 0, stop - start);
  }

  end(trailers: Fields | null): void {
    if (this.#sink !== null) {
      this.#sink.end(trailers);
      return;
    }
    this.#ended = true;
    this.#trailers = trailers;
  }

  abort(cause: Fault): void {
    if (this.#sink !== null) {
      this.#sink.abort(cause);
      return;
    }
    if (this.#over) return;
    this.#over = true;
    this.#kept.take();
    this.onLeft?.();
    this.onCancel?.();
  }

  responseConsumed(bytes: number): void {
    this.#sink?.responseConsumed(bytes);
  }
}

/** A connection that could not be made. Always safe to try elsewhere: nothing was sent. */
export function connectFault(error: ConnError | null): Fault {
  const timeout = error?.code === "CONNECT_TIMEOUT";
  return fault(timeout ? "CONNECT_TIMEOUT" : "CONNECT_FAILED", error?.message ?? "connection failed", {
    safe: true,
    proxyError: error === null ? "" : (PROXY_ERRORS[error.code] ?? ""),
  });
}

/** RFC 9209 §2.3, where the connection's error says more than that there was none. */
const PROXY_ERRORS: Readonly<Partial<Record<ConnErrorCode, string>>> = {
  CONNECT_REFUSED: "connection_refused",
  TLS_FAILED: "tls_protocol_error",
  IDENTITY_REFUSED: "tls_certificate_error",
};
