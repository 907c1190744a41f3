import { addressKey, parseIp, type SocketAddress } from "#/base/address.ts";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type { Random } from "#/base/random.ts";
import type { Log } from "#/net/log.ts";
import type { Transport } from "#/net/transport.ts";
import type { Cancel } from "#/stack/discovery.ts";
import type { RequestHead, RequestSink, ResponseHead, ResponseSink } from "#/stack/http/exchange.ts";
import type { Fault } from "#/stack/http/fault.ts";
import { fault } from "#/stack/http/fault.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { isLoopback } from "#/stack/networks.ts";
import {
  decodeGrpcText,
  encodeGrpcMessage,
  GrpcFound,
  GrpcMessageReader,
  GrpcStatus,
  grpcStatusOfHttp,
  parseGrpcStatus,
} from "#/wire/grpc.ts";

/** Where a control service is, and who must answer there. */
export interface ControlAddress {
  /** An IP address or a DNS name. */
  readonly host: string;
  readonly port: number;
  /** The server's identity; null only for a loopback address, which is spoken to in plaintext (facts §11.1). */
  readonly name: string | null;
}

export interface ChannelParts {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Addresses of a DNS name; not called for IP addresses. */
  resolve(host: string): Promise<readonly string[]>;
}

export interface CallHandler {
  /** One message of the answer. Borrowed: decode it now. */
  message(bytes: Uint8Array): void;
  /** The call is over: a gRPC status, OK included. Once, last; not after `cancel`. */
  ended(status: number, message: string): void;
}

const BACKOFF_MS_MIN = 100;
/** Low, so that a control plane that comes back is found within a second or two. */
const BACKOFF_MS_MAX = 1000;
const CONNECT_TIMEOUT_MS = 1000;
/** Of a control plane to which a whole machine comes at once; giving up early would only make it begin anew. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Between watches there may be no stream for long, and the next one should not find out. */
const PINGS = { pingIntervalMs: 10_000, pingIdleIntervalMs: 10_000, pingTimeoutMs: 5000 };
/** Calls that wait for a connection. Sidecars hold a few streams per target, and targets are bounded. */
const WAITING_MAX = 20_000;

/**
 * gRPC to one control service over one HTTP/2 connection, made again with back-off for as long as calls wait for it. A
 * call never fails because the control plane is away: it waits, and its owner decides for how long.
 */
export class Channel {
  readonly #parts: ChannelParts;
  readonly #address: ControlAddress;
  readonly #isAnonymous: boolean;
  #client: Http2Client | null = null;
  #isConnected = false;
  #attempt: Cancel | null = null;
  #backoffMs = 0;
  #isClosed = false;
  #isKeptOpen = false;
  readonly #waiting = new Set<Call>();
  readonly #watchers = new Set<() => void>();

  constructor(parts: ChannelParts, address: ControlAddress, options: { readonly isAnonymous: boolean }) {
    this.#parts = parts;
    this.#address = address;
    this.#isAnonymous = options.isAnonymous;
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** `changed` is called when `isConnected` has changed. */
  watch(changed: () => void): void {
    this.#watchers.add(changed);
  }

  /** Connects now, and again whenever the connection is lost, whether or not calls wait for it. */
  keepOpen(): void {
    this.#isKeptOpen = true;
    this.#connect();
  }

  /** Begins a call. `path` is `/package.Service/Method`; `request` its encoded message. */
  call(path: string, request: Uint8Array, handler: CallHandler): Cancel {
    const call = new Call(path, this.#authority, request, handler);
    if (this.#isClosed || this.#waiting.size >= WAITING_MAX) {
      this.#parts.clock.soon(() =>
        call.refuse(GrpcStatus.UNAVAILABLE, this.#isClosed ? "the channel is closed" : "too many calls wait"),
      );
    } else if (this.#client !== null && this.#client.usable) {
      call.start(this.#client, this.#answered);
    } else {
      this.#waiting.add(call);
      call.unqueue = () => this.#waiting.delete(call);
      this.#connect();
    }
    return call;
  }

  /** Calls under way may finish. */
  close(): void {
    this.#isClosed = true;
    this.#attempt?.cancel();
    this.#attempt = null;
    this.#client?.close();
    for (const call of this.#waiting) call.refuse(GrpcStatus.UNAVAILABLE, "the channel is closed");
  }

  get #authority(): string {
    return `${this.#address.host}:${this.#address.port}`;
  }

  #connect(): void {
    if (this.#attempt !== null || this.#isClosed) return;
    if (this.#waiting.size === 0 && !this.#isKeptOpen) return;
    const { clock, random } = this.#parts;
    const waitMs = this.#backoffMs * (0.5 + random.next());
    const timer: Timer = clock.after(waitMs, () => {
      this.#attempt = new Attempt(this.#parts, this.#address, this.#isAnonymous, (conn) => {
        this.#attempt = null;
        if (conn === null) this.#retry();
        else this.#connected(conn);
      });
    });
    this.#attempt = timer;
  }

  #retry(): void {
    this.#backoffMs = Math.min(BACKOFF_MS_MAX, Math.max(BACKOFF_MS_MIN, this.#backoffMs * 2));
    this.#connect();
  }

  #connected(conn: Conn): void {
    const client = new Http2Client(
      conn,
      this.#parts.clock,
      () => {
        if (this.#client !== client) return;
        this.#client = null;
        this.#setConnected(false);
        if (!this.#isClosed)
          this.#parts.log.info("the connection to the control plane ended", { address: this.#authority });
        // A server that takes connections and drops them at once must not be hammered.
        this.#retry();
      },
      { meshed: false, machine: PINGS },
    );
    this.#client = client;
    this.#setConnected(true);
    this.#parts.log.info("connected to the control plane", { address: this.#authority });
    for (const call of this.#waiting) {
      this.#waiting.delete(call);
      call.start(client, this.#answered);
    }
  }

  /** Only an answer shows that the control plane works; a connection alone may be one that it drops at once. */
  readonly #answered = (): void => {
    this.#backoffMs = 0;
  };

  #setConnected(isConnected: boolean): void {
    if (this.#isConnected === isConnected) return;
    this.#isConnected = isConnected;
    for (const changed of this.#watchers) changed();
  }
}

/** One try: resolve, connect, handshake. */
class Attempt implements Cancel {
  readonly #parts: ChannelParts;
  readonly #address: ControlAddress;
  readonly #isAnonymous: boolean;
  readonly #done: (conn: Conn | null) => void;
  #current: Cancel | null = null;
  #isCancelled = false;

  constructor(
    parts: ChannelParts,
    address: ControlAddress,
    isAnonymous: boolean,
    done: (conn: Conn | null) => void,
  ) {
    this.#parts = parts;
    this.#address = address;
    this.#isAnonymous = isAnonymous;
    this.#done = done;
    const ip = parseIp(address.host);
    if (ip !== null) this.#connect({ ip, port: address.port });
    else this.#resolve();
  }

  cancel(): void {
    this.#isCancelled = true;
    this.#current?.cancel();
  }

  #resolve(): void {
    this.#parts.resolve(this.#address.host).then(
      (texts) => {
        const ips = texts.map(parseIp).filter((ip) => ip !== null);
        const ip = ips[Math.floor(this.#parts.random.next() * ips.length)];
        if (this.#isCancelled) return;
        if (ip === undefined) this.#fail("its name has no address", null);
        else this.#connect({ ip, port: this.#address.port });
      },
      (error: unknown) => {
        if (!this.#isCancelled) this.#fail("its name cannot be resolved", error);
      },
    );
  }

  #connect(to: SocketAddress): void {
    const { transport } = this.#parts;
    this.#current = transport.connect(
      to,
      { timeoutMs: CONNECT_TIMEOUT_MS, keepAliveMs: 10_000 },
      (error, conn) => {
        if (conn === null) this.#fail("it cannot be reached", error);
        else if (isLoopback(to.ip)) this.#done(conn);
        else if (this.#address.name === null) {
          conn.reset();
          this.#fail(`no identity is configured for ${addressKey(to)}, which is not loopback`, null);
        } else this.#secure(conn, this.#address.name);
      },
    );
  }

  #secure(conn: Conn, name: string): void {
    const options = {
      serverName: name,
      expected: name,
      alpn: [],
      timeoutMs: HANDSHAKE_TIMEOUT_MS,
      isAnonymous: this.#isAnonymous,
    };
    this.#current = this.#parts.transport.secureClient(conn, options, (failure, result) => {
      if (result === null) this.#fail(`TLS failed (${failure?.refusal ?? ""})`, failure?.error);
      else this.#done(result.conn);
    });
  }

  #fail(why: string, error: unknown): void {
    this.#parts.log.warn(`the control plane does not answer: ${why}`, {
      address: `${this.#address.host}:${this.#address.port}`,
      error,
    });
    this.#done(null);
  }
}

/** One call, waiting or under way. */
class Call implements Cancel, ResponseSink {
  unqueue: () => void = () => undefined;
  readonly #head: RequestHead;
  readonly #request: Uint8Array;
  readonly #handler: CallHandler;
  readonly #reader = new GrpcMessageReader();
  #sink: RequestSink | null = null;
  #answered: (() => void) | null = null;
  #isOver = false;

  constructor(path: string, authority: string, request: Uint8Array, handler: CallHandler) {
    const fields: Fields = ["content-type", "application/grpc", "te", "trailers", "user-agent", "pillion"];
    this.#head = {
      method: "POST",
      scheme: "http",
      authority,
      path,
      version: "2",
      absoluteForm: false,
      upgrade: null,
      fields,
    };
    this.#request = encodeGrpcMessage(request);
    this.#handler = handler;
  }

  start(client: Http2Client, answered: () => void): void {
    this.unqueue = () => undefined;
    this.#answered = answered;
    const sink = client.call(this.#head, false, this);
    if (this.#isOver) return;
    this.#sink = sink;
    sink.data(this.#request, 0, this.#request.length);
    sink.end(null);
  }

  cancel(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.unqueue();
    this.#sink?.abort(fault("CANCELLED", "no longer needed"));
  }

  informational(): void {}
  requestConsumed(): void {}

  head(head: ResponseHead, last: boolean): void {
    this.#answered?.();
    if (head.status !== 200)
      this.#abort(
        grpcStatusOfHttp(head.status),
        `the control plane answered with HTTP status ${head.status}`,
      );
    else if (last) this.#finishBy(head.fields);
  }

  body(bytes: Uint8Array, start: number, stop: number): void {
    if (this.#isOver) return;
    this.#reader.feed(bytes, start, stop);
    this.#sink?.responseConsumed(stop - start);
    for (let found = this.#reader.next(); found !== GrpcFound.NOTHING; found = this.#reader.next()) {
      if (found === GrpcFound.ERROR || this.#reader.compressed) {
        this.#abort(
          GrpcStatus.INTERNAL,
          this.#reader.error?.message ?? "a compressed message, which was not asked for",
        );
        return;
      }
      this.#handler.message(this.#reader.message);
      if (this.#isOver) return;
    }
  }

  finish(trailers: Fields | null): void {
    this.#finishBy(trailers ?? []);
  }

  /** Ends the call from this side before it went anywhere. */
  refuse(status: number, message: string): void {
    this.#end(status, message);
  }

  fail(cause: Fault): void {
    this.#end(GrpcStatus.UNAVAILABLE, cause.message);
  }

  #finishBy(fields: Fields): void {
    const status = parseGrpcStatus(fieldValue(fields, "grpc-status") ?? "");
    if (status === null) this.#end(GrpcStatus.UNKNOWN, "the answer ended without a status");
    else this.#end(status, decodeGrpcText(fieldValue(fields, "grpc-message") ?? ""));
  }

  #abort(status: number, message: string): void {
    const sink = this.#sink;
    this.#end(status, message);
    sink?.abort(fault("CANCELLED", message));
  }

  #end(status: number, message: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.unqueue();
    this.#handler.ended(status, message);
  }
}
