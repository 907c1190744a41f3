import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import { encodeGrpcMessage, encodeGrpcText, GrpcFound, GrpcMessageReader, GrpcStatus } from "#/wire/grpc.ts";

/** One method, in terms of bytes. What it returns is called once, when the call is over however it ended. */
export type GrpcMethod = (request: Uint8Array, reply: GrpcReply) => () => void;

export interface GrpcReply {
  /**
   * The state as it is now. One that the client has not taken when the next comes is dropped for it, so that a client which does not
   * read makes us hold two at most.
   */
  state(message: Uint8Array): void;
  /** The one answer. */
  answer(message: Uint8Array): void;
  /** Ends the call with a reason for whoever called. */
  refuse(status: GrpcStatus, reason: string): void;
}

export interface GrpcServiceOptions {
  readonly methods: ReadonlyMap<string, GrpcMethod>;
  /** Why a call is refused before its message is looked at; null where it is not. */
  readonly precheck: (head: RequestHead) => { readonly status: GrpcStatus; readonly reason: string } | null;
  /** A call is over. Once for each. */
  readonly ended: (path: string, status: GrpcStatus) => void;
}

/** Requests hold a token at most. */
const REQUEST_BYTES_MAX = 64 * 1024;

/** gRPC with one message in and one or many out, as a service of our HTTP/2 server. */
export class GrpcService implements HttpService {
  readonly #options: GrpcServiceOptions;

  constructor(options: GrpcServiceOptions) {
    this.#options = options;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const isCall =
      head.method === "POST" &&
      (fieldValue(head.fields, "content-type") ?? "").startsWith("application/grpc");
    if (!isCall) {
      const text = new TextEncoder().encode("this socket speaks gRPC only\n");
      const fields: Fields = ["content-type", "text/plain", "content-length", String(text.length)];
      reply.head({ status: 415, version: "2", reason: null, fields }, false);
      reply.body(text, 0, text.length);
      reply.finish(null);
      return SPENT;
    }
    const call = new Call(head.path, reply, this.#options);
    call.begin(head);
    if (last) call.end();
    return call;
  }
}

class Call implements RequestSink, GrpcReply {
  readonly #path: string;
  readonly #reply: ResponseSink;
  readonly #options: GrpcServiceOptions;
  readonly #reader = new GrpcMessageReader(REQUEST_BYTES_MAX);
  #method: GrpcMethod | null = null;
  #stop: (() => void) | null = null;
  #isBegun = false;
  #headSent = false;
  #isOver = false;
  /** Bytes of the last message that are not on their way yet. */
  #unsentBytes = 0;
  #next: Uint8Array | null = null;

  constructor(path: string, reply: ResponseSink, options: GrpcServiceOptions) {
    this.#path = path;
    this.#reply = reply;
    this.#options = options;
  }

  begin(head: RequestHead): void {
    const refusal = this.#options.precheck(head);
    if (refusal !== null) return this.refuse(refusal.status, refusal.reason);
    const method = this.#options.methods.get(this.#path);
    if (method === undefined)
      return this.refuse(GrpcStatus.UNIMPLEMENTED, `${this.#path.slice(0, 200)} is not served here`);
    this.#method = method;
  }

  // --- from the client ---

  data(bytes: Uint8Array, start: number, stop: number): void {
    this.#reply.requestConsumed(stop - start);
    // What follows the one message means nothing.
    if (this.#isOver || this.#isBegun || this.#method === null) return;
    this.#reader.feed(bytes, start, stop);
    const found = this.#reader.next();
    if (found === GrpcFound.NOTHING) return;
    if (found === GrpcFound.ERROR || this.#reader.compressed)
      return this.refuse(
        GrpcStatus.INVALID_ARGUMENT,
        this.#reader.error?.message ?? "the request is compressed, which is not understood here",
      );
    this.#isBegun = true;
    const stopCall = this.#method(Uint8Array.from(this.#reader.message), this);
    if (this.#isOver) stopCall();
    else this.#stop = stopCall;
  }

  end(): void {
    if (!this.#isBegun) this.refuse(GrpcStatus.INVALID_ARGUMENT, "the request holds no message");
  }

  abort(): void {
    this.#over(GrpcStatus.CANCELLED);
  }

  responseConsumed(bytes: number): void {
    this.#unsentBytes -= bytes;
    const next = this.#next;
    if (next === null || this.#unsentBytes > 0 || this.#isOver) return;
    this.#next = null;
    this.#send(next);
  }

  // --- from the method ---

  state(message: Uint8Array): void {
    if (this.#isOver) return;
    if (this.#unsentBytes > 0) this.#next = message;
    else this.#send(message);
  }

  answer(message: Uint8Array): void {
    if (this.#isOver) return;
    this.#send(message);
    this.#finish(GrpcStatus.OK, "");
  }

  refuse(status: GrpcStatus, reason: string): void {
    if (!this.#isOver) this.#finish(status, reason);
  }

  #send(message: Uint8Array): void {
    if (!this.#headSent) {
      this.#headSent = true;
      const fields: Fields = ["content-type", "application/grpc"];
      this.#reply.head({ status: 200, version: "2", reason: null, fields }, false);
    }
    const framed = encodeGrpcMessage(message);
    this.#unsentBytes = framed.length;
    this.#reply.body(framed, 0, framed.length);
  }

  /** In the head alone when nothing was sent, else in the trailers. */
  #finish(status: GrpcStatus, reason: string): void {
    this.#over(status);
    const outcome: Fields = ["grpc-status", String(status)];
    if (reason !== "") outcome.push("grpc-message", encodeGrpcText(reason));
    if (this.#headSent) return this.#reply.finish(outcome);
    const fields: Fields = ["content-type", "application/grpc", ...outcome];
    this.#reply.head({ status: 200, version: "2", reason: null, fields }, true);
  }

  #over(status: GrpcStatus): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#next = null;
    this.#options.ended(this.#path, status);
    this.#stop?.();
    this.#stop = null;
  }
}
