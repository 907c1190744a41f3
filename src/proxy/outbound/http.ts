import type { IpAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { Fields } from "#/base/fields.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { Backend, FaultAction } from "#/model/route.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { BackendLimit } from "#/stack/balance/backend-bounds.ts";
import type { BalancedClient } from "#/stack/balance/balancer.ts";
import type { PickExplanation } from "#/stack/balance/explain-pick.ts";
import type {
  Dial,
  EndpointSource,
  FirstDialled,
  HttpServing,
  OutboundHttp,
  OutboundTarget,
} from "#/stack/discovery.ts";
import { FaultInjector } from "#/stack/fault/injector.ts";
import { DISPATCH_DEFAULTS, Dispatch } from "#/stack/http/dispatch.ts";
import type { EndpointService } from "#/stack/http/dispatch.ts";
import { EndpointClient } from "#/stack/http/endpoint-client.ts";
import { HTTP1_SERVER_DEFAULTS, Http1Server, type Http1ServerSettings } from "#/stack/http/http1-server.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import type { Guard } from "#/stack/http/guard.ts";
import type { HttpSeries } from "#/stack/http/measure.ts";
import type { Answerer } from "#/stack/http/mesh-answer.ts";
import { Measured } from "#/stack/http/measure.ts";
import { RetryLayer } from "#/stack/retry/retry-layer.ts";
import type { RetryPressure } from "#/stack/retry/retry-pressure.ts";
import type { RetrySeries } from "#/stack/retry/retry-rule.ts";
import { RouteLayer, type Backends, type HeldBackend, type RuleMetrics } from "#/stack/route/layer.ts";
import { Mirrors } from "#/stack/route/mirror.ts";
import { TraceLayer } from "#/stack/trace/trace-layer.ts";
import { FirstThen, serviceOn } from "../first-then.ts";
import { SharedDispatch } from "../shared-dispatch.ts";
import { asUnmeshed } from "./dial.ts";
import type { Egress } from "./egress.ts";

export interface OutboundHttpParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly dial: Dial;
  /** Who we are, in answers that no application gave. */
  readonly answerer: Answerer;
  /** Counters for requests of one target to one endpoint. The same pair gives the same counters. */
  series(target: string, endpoint: Endpoint): HttpSeries;
  readonly metrics: RuleMetrics;
  /** Counters for retries and timeouts of a route that is attached to a parent. */
  retrySeries(parent: PolicySource, route: PolicySource): RetrySeries;
  /** Whose requests these are, for balancing. */
  readonly client: BalancedClient;
  readonly guard: Guard;
  /** The workload's programs may ask what becomes of a request of theirs. */
  readonly tracesRequests: boolean;
  /** The pod's own addresses: a service that it calls may be itself. */
  readonly localIps: readonly IpAddress[];
  /** A request to a service was refused by a bound of its traffic policy. */
  limitReached(service: string, limit: BackendLimit): void;
  /** A copy of a request for a mirror was given up for a bound. */
  mirrorDropped(): void;
  /** A FaultPolicy has hit a request. */
  injected(source: PolicySource, kind: FaultAction["kind"]): void;
  readonly egress: Egress;
  /** Told when a retry is withheld. */
  readonly retryPressure: RetryPressure;
}

/**
 * HTTP from the workload. The life of a request:
 *
 *     Http1Server | Http2Server   reads it from the application's connection
 *     TraceLayer                  writes its way down, where that is allowed and asked for
 *     RouteLayer                  routes of the target: which rule takes it, what is changed, which backend is drawn
 *     RetryLayer                  its timeouts; sends it again as the rule says, within a budget
 *     Dispatch                    picks an endpoint as the service's traffic policy says; sends on what reached nobody
 *     Measured                    counts it for that endpoint
 *     EndpointClient              one HTTP/2 connection to a far sidecar, or a pool of HTTP/1 ones
 */
export class OutboundHttpProxy implements OutboundHttp {
  readonly #parts: OutboundHttpParts;
  /** By `EndpointSource.key`; entries leave when unused (see `SharedDispatch`), so discovery's bound is theirs too. */
  readonly #dispatches = new Map<string, SharedDispatch>();
  readonly #mirrors: Mirrors;
  readonly #retries: RetryLayer;
  readonly #faults: FaultInjector;
  readonly #http1Settings: Http1ServerSettings;

  constructor(parts: OutboundHttpParts) {
    this.#parts = parts;
    const { answerer, clock, guard, random, retryPressure: pressure } = parts;
    this.#http1Settings = { ...HTTP1_SERVER_DEFAULTS, answerer, guard };
    this.#mirrors = new Mirrors(() => parts.mirrorDropped());
    this.#retries = new RetryLayer({ clock, random, pressure });
    this.#faults = new FaultInjector({
      clock,
      random,
      injected: (source, kind) => parts.injected(source, kind),
    });
  }

  serve(
    conn: Conn,
    version: "http1" | "http2",
    target: OutboundTarget,
    first: FirstDialled | null,
    closed: () => void,
  ): HttpServing {
    const { answerer, clock, guard, metrics, random } = this.#parts;
    const backends = new ConnectionBackends(target, (source, backend) =>
      this.#acquire(source, backend, target.authority),
    );
    const routes = new RouteLayer({
      target,
      backends,
      clock,
      random,
      mirrors: this.#mirrors,
      retries: this.#retries,
      metrics,
      retrySeries: (route) => this.#parts.retrySeries(target.policy.source, route),
      faults: this.#faults,
    });
    const firstThen =
      first === null ? null : new FirstThen(this.#firstService(first, version, target), routes);
    const way = this.#parts.egress.watch(firstThen ?? routes, target);
    const service = this.#parts.tracesRequests
      ? new TraceLayer(way, { clock, side: "client", workload: answerer.workload })
      : way;
    const over = (): void => {
      routes.close();
      firstThen?.close();
      closed();
    };
    if (version === "http1") return new Http1Server(conn, service, clock, over, this.#http1Settings);
    return new Http2Server(conn, service, clock, over, { meshed: false, clientId: null, answerer, guard });
  }

  /** Where a request with such fields would go among a Service's endpoints; null where the workload has not used it of late. */
  explainPick(path: string, fields: Fields): PickExplanation | null {
    let shared: SharedDispatch | null = null;
    for (const [key, each] of this.#dispatches) if (key.startsWith(`balancer:${path}#`)) shared = each;
    if (shared === null) return null;
    const { balancer } = shared.dispatch;
    // Rules may differ in their sessions, and the one that is meant is not said: as the first that sent something here has them.
    const { persistence } = balancer.traffic;
    return balancer.explainPick(this.#parts.clock.nowMs(), [], fields, undefined, persistence);
  }

  #firstService(first: FirstDialled, version: "http1" | "http2", target: OutboundTarget): EndpointService {
    const { clock, guard } = this.#parts;
    const client = serviceOn(first.conn, version, clock, guard.heads);
    const measured = new Measured(client, this.#parts.series(target.authority, first.endpoint), clock);
    return { call: (head, last, reply) => measured.call(head, last, reply), close: () => client.close() };
  }

  #acquire(source: EndpointSource, backend: Backend, authority: string): SharedDispatch {
    let shared = this.#dispatches.get(source.key);
    if (shared === undefined) {
      const name = backend.kind === "balancer" ? backend.path : authority;
      shared = new SharedDispatch(this.#dispatch(source, backend, name), this.#parts.clock, () =>
        this.#dispatches.delete(source.key),
      );
      this.#dispatches.set(source.key, shared);
    }
    // Of a live update the table is another one, and what it leads to is acquired anew.
    shared.configure(trafficOf(backend));
    shared.acquire();
    return shared;
  }

  #dispatch(source: EndpointSource, backend: Backend, name: string): Dispatch {
    const { client, clock, random, dial, guard, localIps } = this.#parts;
    return new Dispatch({
      name,
      source,
      clock,
      random,
      client,
      traffic: trafficOf(backend),
      settings: backend.kind === "balancer" ? { ...DISPATCH_DEFAULTS, balancer: backend } : DISPATCH_DEFAULTS,
      limitReached: (limit) => this.#parts.limitReached(name, limit),
      make: (endpoint, bounds) => {
        const spoken = localIps.includes(endpoint.address.ip) ? asUnmeshed(endpoint) : endpoint;
        const service = new EndpointClient(spoken, dial, clock, random, guard, bounds);
        const measured = new Measured(service, this.#parts.series(name, endpoint), clock);
        return {
          call: (head, last, reply) => measured.call(head, last, reply),
          close: () => service.close(),
        };
      },
    });
  }
}

/** One client connection's hold on the dispatches that its requests went to. */
class ConnectionBackends implements Backends {
  readonly #target: OutboundTarget;
  readonly #acquire: (source: EndpointSource, backend: Backend) => SharedDispatch;
  readonly #held = new Map<EndpointSource, SharedDispatch>();

  constructor(target: OutboundTarget, acquire: (source: EndpointSource, backend: Backend) => SharedDispatch) {
    this.#target = target;
    this.#acquire = acquire;
  }

  hold(backend: Backend): HeldBackend | null {
    const source = this.#target.sourceOf(backend);
    if (source === null) return null;
    let shared = this.#held.get(source);
    if (shared === undefined) {
      shared = this.#acquire(source, backend);
      this.#held.set(source, shared);
    }
    return shared;
  }

  releaseAll(): void {
    for (const shared of this.#held.values()) shared.release();
    this.#held.clear();
  }
}

function trafficOf(backend: Backend): BackendTraffic {
  return (backend.kind === "forbidden" ? null : backend.traffic) ?? BACKEND_TRAFFIC_DEFAULTS;
}
