import { addressKey } from "#/base/address.ts";
import type { SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { plainEndpoint } from "#/model/endpoint.ts";
import type {
  Cancel,
  EndpointSource,
  HttpServing,
  InboundContext,
  InboundHttp,
  InboundPort,
} from "#/stack/discovery.ts";
import { DISPATCH_DEFAULTS, Dispatch } from "#/stack/http/dispatch.ts";
import { EndpointClient } from "#/stack/http/endpoint-client.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import { HTTP1_SERVER_DEFAULTS, Http1Server } from "#/stack/http/http1-server.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import type { Guard } from "#/stack/http/guard.ts";
import { keepAlive } from "#/stack/http/guard.ts";
import type { HttpSeries } from "#/stack/http/measure.ts";
import type { Answerer } from "#/stack/http/mesh-answer.ts";
import { Measured } from "#/stack/http/measure.ts";
import { TokenLayer, type TokenLayerParts } from "#/stack/jwt/token-layer.ts";
import type { PortLimits } from "#/stack/limits/port-limits.ts";
import { RetryDamping, type RetryPressure } from "#/stack/retry/retry-pressure.ts";
import { TraceLayer } from "#/stack/trace/trace-layer.ts";
import type { AccessRecord } from "./access-record.ts";
import { Authorized } from "./authorized.ts";
import { FirstThen, serviceOn } from "../first-then.ts";
import { SharedDispatch } from "../shared-dispatch.ts";

export interface InboundHttpParts {
  readonly clock: Clock;
  readonly random: Random;
  /** Opens a connection to the application that listens there. */
  readonly dial: (
    target: SocketAddress,
    done: (error: ConnError | null, conn: Conn | null) => void,
  ) => Cancel;
  /** Who we are, in answers that no application gave. */
  readonly answerer: Answerer;
  /** What the workload takes in on that port by its policy of this moment; null: whatever comes. */
  readonly limits: (port: InboundPort) => PortLimits | null;
  /** Counters for requests of one client identity ("" without mTLS) to one port. The same pair gives the same counters. */
  series(target: SocketAddress, clientId: string): HttpSeries;
  readonly guard: Guard;
  readonly access: AccessRecord;
  /** Whose tokens a port takes, by its policy of this moment. */
  readonly tokens: Omit<TokenLayerParts, "clock">;
  /** Far sidecars may ask what happens to a request here. */
  readonly tracesRequests: boolean;
  /** Whether the workload's own requests are out of retries. */
  readonly retryPressure: RetryPressure;
}

/**
 * HTTP to the workload. The life of a request:
 *
 *     Http1Server | Http2Server   reads it from a far sidecar, or from a plaintext client
 *     TraceLayer                  tells a far sidecar what happens here, where that is allowed and asked for
 *     TokenLayer                  verifies its JSON Web Token, where the policy asks for tokens
 *     Authorized                  may this client? asked for every request, by the policy of this moment; settles the path
 *     PortLimits                  rate limits and adaptive concurrency, where the policy has any
 *     RetryDamping                tells a far sidecar not to ask again while the workload is out of retries itself
 *     Measured                    counts it for that client
 *     ByAddress                   finds the application, from the first request that may reach it
 *     Dispatch → EndpointClient   the application's own connections; a stale one is replaced without anybody noticing
 */
export class InboundHttpProxy implements InboundHttp {
  readonly #parts: InboundHttpParts;
  /** By address. Entries are made by permitted requests only and leave when unused (see `SharedDispatch`). */
  readonly #applications = new Map<string, SharedDispatch>();

  constructor(parts: InboundHttpParts) {
    this.#parts = parts;
  }

  serve(conn: Conn, version: "http1" | "http2", context: InboundContext, closed: () => void): HttpServing {
    const { answerer, clock, guard } = this.#parts;
    const clientId = context.peer?.name ?? null;
    const byAddress = new ByAddress(() => this.#acquire(context.target));
    const first =
      context.early === null
        ? null
        : new FirstThen(serviceOn(context.early, version, clock, guard.heads), byAddress);
    const measured = new Measured(
      first ?? byAddress,
      this.#parts.series(context.target, clientId ?? ""),
      clock,
    );
    const { limits, retryPressure, access, tokens } = this.#parts;
    const damped = clientId === null ? measured : new RetryDamping(measured, retryPressure, clock);
    const authorized = new Authorized(damped, context, access, limits);
    const verified = new TokenLayer(authorized, context, { ...tokens, clock });
    const service =
      this.#parts.tracesRequests && context.peer !== null
        ? new TraceLayer(verified, { clock, side: "server", workload: answerer.workload })
        : verified;
    const over = (): void => {
      changes.cancel();
      authorized.release();
      byAddress.release();
      first?.close();
      closed();
    };
    const serving = this.#server(conn, version, context, service, over);
    const changes = context.port.subscribe(() => serving.recheck());
    return serving;
  }

  #server(
    conn: Conn,
    version: "http1" | "http2",
    context: InboundContext,
    service: HttpService,
    over: () => void,
  ): HttpServing {
    const { answerer, clock, guard } = this.#parts;
    const clientId = context.peer?.name ?? null;
    if (version === "http1")
      return new Http1Server(conn, service, clock, over, {
        ...HTTP1_SERVER_DEFAULTS,
        meshed: context.peer !== null,
        clientId,
        answerer,
        guard,
      });
    return new Http2Server(conn, service, clock, over, {
      meshed: context.peer !== null,
      spells: context.spells,
      clientId,
      answerer,
      guard,
      machine: context.peer === null ? {} : keepAlive(guard.limits),
    });
  }

  /** Applications that are kept. */
  get applicationCount(): number {
    return this.#applications.size;
  }

  #acquire(target: SocketAddress): SharedDispatch {
    const { clock } = this.#parts;
    const key = addressKey(target);
    let shared = this.#applications.get(key);
    if (shared === undefined) {
      shared = new SharedDispatch(this.#dispatch(target, key), clock, () => this.#applications.delete(key));
      this.#applications.set(key, shared);
    }
    shared.acquire();
    return shared;
  }

  #dispatch(target: SocketAddress, key: string): Dispatch {
    const { clock, random, dial, guard } = this.#parts;
    return new Dispatch({
      name: `the application at ${key}`,
      source: new FixedEndpoint(target),
      clock,
      random,
      settings: DISPATCH_DEFAULTS,
      make: (endpoint) =>
        new EndpointClient(
          endpoint,
          (_endpoint, _protocol, done) => dial(target, (error, opened) => done(error, opened, null)),
          clock,
          random,
          guard,
        ),
    });
  }
}

/** One client connection's hold on the application. */
class ByAddress implements HttpService {
  readonly #acquire: () => SharedDispatch;
  #shared: SharedDispatch | null = null;

  constructor(acquire: () => SharedDispatch) {
    this.#acquire = acquire;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    this.#shared ??= this.#acquire();
    return this.#shared.dispatch.call(head, last, reply);
  }

  release(): void {
    this.#shared?.release();
    this.#shared = null;
  }
}

class FixedEndpoint implements EndpointSource {
  readonly key: string;
  readonly state = "known";
  readonly endpoints: readonly Endpoint[];

  constructor(address: SocketAddress) {
    this.key = `application:${addressKey(address)}`;
    this.endpoints = [plainEndpoint(address)];
  }

  subscribe(): { cancel(): void } {
    return { cancel: () => {} };
  }
}
