import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { ruleOf } from "#/model/policy.ts";
import type {
  Dial,
  EndpointSource,
  FirstDialled,
  HttpServing,
  OutboundHttp,
  OutboundTarget,
} from "#/stack/discovery.ts";
import { DISPATCH_DEFAULTS, Dispatch } from "#/stack/http/dispatch.ts";
import type { EndpointService } from "#/stack/http/dispatch.ts";
import { EndpointClient } from "#/stack/http/endpoint-client.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import { fault } from "#/stack/http/fault.ts";
import { HTTP1_SERVER_DEFAULTS, Http1Server } from "#/stack/http/http1-server.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import type { Guard } from "#/stack/http/guard.ts";
import type { HttpSeries } from "#/stack/http/measure.ts";
import type { Answerer } from "#/stack/http/mesh-answer.ts";
import { Measured } from "#/stack/http/measure.ts";
import { FirstThen, serviceOn } from "../first-then.ts";
import { SharedDispatch } from "../shared-dispatch.ts";

export interface OutboundHttpParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly dial: Dial;
  /** Who we are, in answers that no application gave. */
  readonly answerer: Answerer;
  /** Counters for requests of one target to one endpoint. The same pair gives the same counters. */
  series(target: string, endpoint: Endpoint): HttpSeries;
  readonly guard: Guard;
}

/**
 * HTTP from the workload. The life of a request:
 *
 *     Http1Server | Http2Server   reads it from the application's connection
 *     ByTarget                    policy of the target: where may it go?
 *     Dispatch                    picks an endpoint (P2C, peak EWMA); sends on what reached nobody
 *     Measured                    counts it for that endpoint
 *     EndpointClient              one HTTP/2 connection to a far sidecar, or a pool of HTTP/1 ones
 */
export class OutboundHttpProxy implements OutboundHttp {
  readonly #parts: OutboundHttpParts;
  /** By `EndpointSource.key`; entries leave when unused (see `SharedDispatch`), so discovery's bound is theirs too. */
  readonly #dispatches = new Map<string, SharedDispatch>();

  constructor(parts: OutboundHttpParts) {
    this.#parts = parts;
  }

  serve(
    conn: Conn,
    version: "http1" | "http2",
    target: OutboundTarget,
    first: FirstDialled | null,
    closed: () => void,
  ): HttpServing {
    const { answerer, clock, guard } = this.#parts;
    const byTarget = new ByTarget(target, (source) => this.#acquire(source, target.authority));
    const service =
      first === null ? byTarget : new FirstThen(this.#firstService(first, version, target), byTarget);
    const over = (): void => {
      byTarget.release();
      if (service instanceof FirstThen) service.close();
      closed();
    };
    if (version === "http1")
      return new Http1Server(conn, service, clock, over, { ...HTTP1_SERVER_DEFAULTS, answerer, guard });
    return new Http2Server(conn, service, clock, over, { meshed: false, clientId: null, answerer, guard });
  }

  #firstService(first: FirstDialled, version: "http1" | "http2", target: OutboundTarget): EndpointService {
    const { clock, guard } = this.#parts;
    const client = serviceOn(first.conn, version, clock, guard.heads);
    const measured = new Measured(client, this.#parts.series(target.authority, first.endpoint), clock);
    return { call: (head, last, reply) => measured.call(head, last, reply), close: () => client.close() };
  }

  #acquire(source: EndpointSource, authority: string): SharedDispatch {
    let shared = this.#dispatches.get(source.key);
    if (shared === undefined) {
      shared = new SharedDispatch(this.#dispatch(source, authority), this.#parts.clock, () =>
        this.#dispatches.delete(source.key),
      );
      this.#dispatches.set(source.key, shared);
    }
    shared.acquire();
    return shared;
  }

  #dispatch(source: EndpointSource, authority: string): Dispatch {
    const { clock, random, dial, guard } = this.#parts;
    return new Dispatch({
      name: authority,
      source,
      clock,
      random,
      settings: DISPATCH_DEFAULTS,
      make: (endpoint) => {
        const client = new EndpointClient(endpoint, dial, clock, random, guard);
        const measured = new Measured(client, this.#parts.series(authority, endpoint), clock);
        return { call: (head, last, reply) => measured.call(head, last, reply), close: () => client.close() };
      },
    });
  }
}

/** Asks the target's policy of this moment, so that a live update holds for the next request of an open connection. */
class ByTarget implements HttpService {
  readonly #target: OutboundTarget;
  readonly #acquire: (source: EndpointSource) => SharedDispatch;
  #source: EndpointSource | null = null;
  #shared: SharedDispatch | null = null;

  constructor(target: OutboundTarget, acquire: (source: EndpointSource) => SharedDispatch) {
    this.#target = target;
    this.#acquire = acquire;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const { policy, endpoints, authority } = this.#target;
    if (policy.backend.kind === "forbidden" || endpoints === null) {
      const reason = policy.backend.kind === "forbidden" ? policy.backend.reason : "no backend";
      reply.fail(
        fault("FORBIDDEN_TARGET", `${authority}: ${reason}`, { safe: true, rule: ruleOf(policy.source) }),
      );
      return SPENT;
    }
    if (endpoints !== this.#source) {
      this.release();
      this.#source = endpoints;
      this.#shared = this.#acquire(endpoints);
    }
    return (this.#shared as SharedDispatch).dispatch.call(head, last, reply);
  }

  release(): void {
    this.#shared?.release();
    this.#shared = null;
    this.#source = null;
  }
}
