import { performServerHandshake } from "node:http2";
import type { IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Log } from "#/net/log.ts";
import { encodeGrpcMessage, encodeGrpcText, GrpcFound, GrpcMessageReader, GrpcStatus } from "#/wire/grpc.ts";
import type { Caller } from "../identity/certify.ts";
import { RpcError } from "./status.ts";

/** A server stream that goes on until either side ends it. */
export interface Watcher {
  /** Sends an encoded message. */
  send(message: Uint8Array): void;
  fail(error: RpcError): void;
}

export interface CallContext {
  /** Proven by the connection's certificate; null on a connection without one. */
  readonly caller: Caller | null;
  /** True on the loopback listener that needs no certificates. */
  readonly isTrusted: boolean;
  /** Address of the peer, for logs. */
  readonly peer: string;
}

/** One method of a service, in terms of bytes. */
export interface MethodHandler {
  /** Whether a connection without a certificate may call it. */
  readonly isOpen: boolean;
  /** One answer. */
  readonly unary?: (request: Uint8Array, call: CallContext) => Promise<Uint8Array>;
  /** Many answers. What it returns is called once, when the stream is over. Throws `RpcError` to refuse. */
  readonly watch?: (request: Uint8Array, watcher: Watcher, call: CallContext) => () => void;
}

export interface RpcServerOptions {
  readonly methods: ReadonlyMap<string, MethodHandler>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Requests are a name and a token; certificates' requests are the largest. */
export const REQUEST_BYTES_MAX = 64 * 1024;
/** Streams that one connection may have open: a sidecar opens three for each target of its workload. */
const STREAMS_MAX = 8192;
const CONNECTIONS_MAX = 10_000;
/** Messages that a stream's client has not taken yet. At the bound the stream ends, and its client asks again. */
const QUEUE_MESSAGES_MAX = 100;
/** Calls under way when a connection is ended get so long. */
const ANSWER_MS = 1_000;
const PING_EVERY_MS = 10_000;
const PING_WITHIN_MS = 20_000;

/** gRPC over HTTP/2, on connections that somebody else accepts and proves. */
export class RpcServer {
  readonly #options: RpcServerOptions;
  readonly #sessions = new Set<ServerHttp2Session>();

  constructor(options: RpcServerOptions) {
    this.#options = options;
  }

  /**
   * Serves one connection. HTTP/2 with prior knowledge: no ALPN is asked for (linkerd2-proxy offers none here). Returns how to end it:
   * GOAWAY, a moment for calls that are being answered, then watches end, too.
   */
  serve(socket: Duplex, context: CallContext): () => void {
    const { log } = this.#options;
    if (this.#sessions.size >= CONNECTIONS_MAX) {
      log.warn("too many connections; one is refused", {
        peer: context.peer,
        connections: this.#sessions.size,
      });
      socket.destroy();
      return () => undefined;
    }
    const session = performServerHandshake(socket, {
      settings: { maxConcurrentStreams: STREAMS_MAX, enablePush: false },
      maxSessionMemory: 64,
    });
    this.#sessions.add(session);
    const stopPinging = this.#keepAlive(session, context);
    session.on("stream", (stream, headers) => this.#answer(stream, headers, context));
    // What goes wrong with one connection ends that connection; the client comes back.
    session.on("error", (error: Error) => log.debug("a connection failed", { peer: context.peer, error }));
    socket.on("error", () => session.destroy());
    session.on("close", () => {
      stopPinging();
      this.#sessions.delete(session);
    });
    return () => {
      if (session.closed || session.destroyed) return;
      session.close();
      this.#options.clock.after(ANSWER_MS, () => session.destroy());
    };
  }

  /** Ends all connections: GOAWAY first, so that clients know that nothing they asked was lost. */
  close(): void {
    for (const session of this.#sessions) {
      if (session.destroyed) continue;
      session.goaway();
      session.destroy();
    }
  }

  get connections(): number {
    return this.#sessions.size;
  }

  #keepAlive(session: ServerHttp2Session, context: CallContext): () => void {
    const { clock, log } = this.#options;
    let timer: Timer | null = null;
    let deadline: Timer | null = null;
    const ping = (): void => {
      if (session.closed || session.destroyed) return;
      deadline = clock.after(PING_WITHIN_MS, () => {
        log.info("a connection no longer answers pings and is closed", { peer: context.peer });
        session.destroy();
      });
      session.ping((error) => {
        deadline?.cancel();
        deadline = null;
        if (error === null && !session.destroyed) timer = clock.after(PING_EVERY_MS, ping);
      });
    };
    timer = clock.after(PING_EVERY_MS, ping);
    return () => {
      timer?.cancel();
      deadline?.cancel();
    };
  }

  #answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, context: CallContext): void {
    const path = String(headers[":path"] ?? "");
    // A client that goes away is no failure of ours.
    stream.on("error", () => {});
    if (
      headers[":method"] !== "POST" ||
      !String(headers["content-type"] ?? "").startsWith("application/grpc")
    ) {
      stream.respond({ ":status": 415, "content-type": "text/plain" });
      stream.end("this port speaks gRPC only\n");
      return;
    }
    const handler = this.#options.methods.get(path);
    if (handler === undefined) return finish(stream, GrpcStatus.UNIMPLEMENTED, `${path} is not served here`);
    if (!handler.isOpen && !context.isTrusted && context.caller === null) {
      return finish(
        stream,
        GrpcStatus.UNAUTHENTICATED,
        "a certificate of this mesh is needed; ask for one by Identity/Certify first",
      );
    }
    const reader = new GrpcMessageReader(REQUEST_BYTES_MAX);
    let isCalled = false;
    stream.on("data", (chunk: Buffer) => {
      reader.feed(chunk);
      const found = reader.next();
      if (found === GrpcFound.NOTHING) return;
      isCalled = true;
      stream.removeAllListeners("data");
      // What follows the one message is read and dropped, so that the stream can end.
      stream.resume();
      if (found === GrpcFound.ERROR || reader.compressed)
        return finish(
          stream,
          GrpcStatus.INVALID_ARGUMENT,
          "the request is no gRPC message, compressed, or too long",
        );
      this.#call(stream, path, handler, reader.message, context);
    });
    stream.on("end", () => {
      if (!stream.headersSent && !isCalled)
        finish(stream, GrpcStatus.INVALID_ARGUMENT, "the request holds no message");
    });
  }

  #call(
    stream: ServerHttp2Stream,
    path: string,
    handler: MethodHandler,
    request: Uint8Array,
    context: CallContext,
  ): void {
    const refuse = (error: unknown): void => {
      if (error instanceof RpcError) return finish(stream, error.status, error.message);
      this.#options.log.error("a call failed", { path, peer: context.peer, error });
      finish(stream, GrpcStatus.INTERNAL, "the control plane failed to answer; its log says why");
    };
    if (handler.unary !== undefined) {
      handler.unary(request, context).then((message) => {
        if (!begin(stream)) return;
        stream.write(encodeGrpcMessage(message));
        finish(stream, GrpcStatus.OK, "");
      }, refuse);
      return;
    }
    if (handler.watch === undefined)
      return finish(stream, GrpcStatus.UNIMPLEMENTED, `${path} is not served here`);
    let queued = 0;
    const watcher: Watcher = {
      send: (message) => {
        if (!begin(stream)) return;
        if (++queued > QUEUE_MESSAGES_MAX) {
          return finish(
            stream,
            GrpcStatus.RESOURCE_EXHAUSTED,
            `${QUEUE_MESSAGES_MAX} updates were not read; ask again for the present state`,
          );
        }
        stream.write(encodeGrpcMessage(message), () => {
          queued--;
        });
      },
      fail: refuse,
    };
    try {
      const stop = handler.watch(request, watcher, context);
      if (stream.closed || stream.destroyed) stop();
      else stream.on("close", stop);
    } catch (error) {
      refuse(error);
    }
  }
}

/** Sends the response's head once; false when the stream is over. */
function begin(stream: ServerHttp2Stream): boolean {
  if (stream.closed || stream.destroyed || stream.writableEnded) return false;
  if (!stream.headersSent)
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  return true;
}

/** Ends a call: in the head alone when nothing was sent, else in the trailers. */
function finish(stream: ServerHttp2Stream, status: GrpcStatus, reason: string): void {
  if (stream.closed || stream.destroyed || stream.writableEnded) return;
  const outcome = {
    "grpc-status": String(status),
    ...(reason === "" ? {} : { "grpc-message": encodeGrpcText(reason) }),
  };
  if (!stream.headersSent) {
    stream.respond({ ":status": 200, "content-type": "application/grpc", ...outcome }, { endStream: true });
    return;
  }
  stream.once("wantTrailers", () => stream.sendTrailers(outcome));
  stream.end();
}
