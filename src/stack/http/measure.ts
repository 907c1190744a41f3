import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import { isFailedAnswer } from "./classify.ts";
import type { HttpService, RequestHead, RequestSink, ResponseHead, ResponseSink } from "./exchange.ts";
import { lendBody, lendData } from "./exchange.ts";
import type { Fault } from "./fault.ts";
import { isGrpc } from "./mesh-answer.ts";

/** Counters of one (direction, target, endpoint): what the classic families of facts §17.1 need. */
export interface HttpSeries {
  request(): void;
  /** `status` 0: no answer came. `grpcStatus` -1: not gRPC, or none came. `error` "" or a fault code. */
  response(status: number, grpcStatus: number, latencyMs: number, success: boolean, error: string): void;
}

/** Counts requests and answers that go through, with the time from the request's head to the answer's end. */
export class Measured implements HttpService {
  readonly inner: HttpService;
  readonly series: HttpSeries;
  readonly clock: Clock;

  constructor(inner: HttpService, series: HttpSeries, clock: Clock) {
    this.inner = inner;
    this.series = series;
    this.clock = clock;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const exchange = new MeasuredExchange(this.series, this.clock, head, reply);
    exchange.sink = this.inner.call(head, last, exchange);
    return exchange;
  }
}

/** One request that is counted. Whoever makes it sends the request with it as `reply`, and then sets `sink`. */
export class MeasuredExchange implements RequestSink, ResponseSink {
  readonly #series: HttpSeries;
  readonly #clock: Clock;
  readonly #grpc: boolean;
  readonly #reply: ResponseSink;
  readonly #startedAtMs: number;
  sink: RequestSink | null = null;
  #status = 0;
  #grpcStatus = -1;
  #recorded = false;

  constructor(series: HttpSeries, clock: Clock, head: RequestHead, reply: ResponseSink) {
    series.request();
    this.#series = series;
    this.#clock = clock;
    this.#grpc = isGrpc(head);
    this.#reply = reply;
    this.#startedAtMs = clock.nowMs();
  }

  data(bytes: Uint8Array, start: number, stop: number): void {
    this.sink?.data(bytes, start, stop);
  }

  dataLent(bytes: Uint8Array, start: number, stop: number): void {
    if (this.sink !== null) lendData(this.sink, bytes, start, stop);
  }

  end(trailers: Fields | null): void {
    this.sink?.end(trailers);
  }

  abort(cause: Fault): void {
    this.#record(cause.code);
    this.sink?.abort(cause);
  }

  responseConsumed(bytes: number): void {
    this.sink?.responseConsumed(bytes);
  }

  informational(head: ResponseHead): void {
    this.#reply.informational(head);
  }

  head(head: ResponseHead, last: boolean): void {
    this.#status = head.status;
    if (this.#grpc) this.#readGrpcStatus(head.fields);
    if (last) this.#record("");
    this.#reply.head(head, last);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    this.#reply.body(bytes, start, stop);
  }

  bodyLent(bytes: Uint8Array, start: number, stop: number): void {
    lendBody(this.#reply, bytes, start, stop);
  }

  finish(trailers: Fields | null): void {
    if (this.#grpc && trailers !== null) this.#readGrpcStatus(trailers);
    this.#record("");
    this.#reply.finish(trailers);
  }

  fail(cause: Fault): void {
    this.#record(cause.code);
    this.#reply.fail(cause);
  }

  requestConsumed(bytes: number): void {
    this.#reply.requestConsumed(bytes);
  }

  #readGrpcStatus(fields: Fields): void {
    const value = fieldValue(fields, "grpc-status");
    if (value !== null) this.#grpcStatus = Number(value);
  }

  #record(error: string): void {
    if (this.#recorded) return;
    this.#recorded = true;
    this.#series.response(
      this.#status,
      this.#grpcStatus,
      this.#clock.nowMs() - this.#startedAtMs,
      error === "" && !isFailedAnswer(this.#status, this.#grpcStatus),
      error,
    );
  }
}
