import type { IpAddress, SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import { SharedDispatch } from "#/proxy/shared-dispatch.ts";
import type { BackendBounds, BackendLimit } from "#/stack/balance/backend-bounds.ts";
import type { BalancedClient } from "#/stack/balance/balancer.ts";
import type { EndpointSource } from "#/stack/discovery.ts";
import { FaultInjector } from "#/stack/fault/injector.ts";
import { DISPATCH_DEFAULTS, Dispatch } from "#/stack/http/dispatch.ts";
import type { EndpointService } from "#/stack/http/dispatch.ts";
import type { HttpService } from "#/stack/http/exchange.ts";
import type { HttpSeries } from "#/stack/http/measure.ts";
import { RetryLayer } from "#/stack/retry/retry-layer.ts";
import type { RetrySeries } from "#/stack/retry/retry-rule.ts";
import type { Backends, RuleMetrics } from "#/stack/route/layer.ts";
import { RouteLayer } from "#/stack/route/layer.ts";
import { Mirrors } from "#/stack/route/mirror.ts";
import { RouteTable } from "#/stack/route/table.ts";

export interface OutboundStackParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly client: BalancedClient;
  /** By the path of a service. */
  readonly policyOf: (path: string) => OutboundPolicy;
  readonly sourceOf: (path: string) => EndpointSource;
  /** In place of an `EndpointClient`. */
  readonly make: (endpoint: Endpoint, path: string, bounds: BackendBounds) => EndpointService;
  readonly seriesOf: (path: string) => RetrySeries;
  /** A fault of this FaultPolicy hit a request. */
  readonly injected: (rule: string, kind: string) => void;
  readonly limitReached: (path: string, limit: BackendLimit) => void;
}

/**
 * The outbound side of one sidecar: the layers that a request meets there, in the order that `OutboundHttpProxy` has them.
 *
 *     RouteLayer > RetryLayer > Dispatch > what `make` gives
 */
export class OutboundStack implements Backends {
  readonly retries: RetryLayer;
  readonly mirrors: Mirrors = new Mirrors();
  readonly faults: FaultInjector;
  readonly #parts: OutboundStackParts;
  readonly #targets = new Map<string, HttpService>();
  readonly #dispatches = new Map<string, SharedDispatch>();

  constructor(parts: OutboundStackParts) {
    this.#parts = parts;
    this.retries = new RetryLayer(parts);
    this.faults = new FaultInjector({
      clock: parts.clock,
      random: parts.random,
      injected: (source, kind) => parts.injected(ruleOf(source), kind),
    });
  }

  /** By the path of a service. */
  get dispatches(): ReadonlyMap<string, SharedDispatch> {
    return this.#dispatches;
  }

  /** What takes requests that were meant for a service. */
  target(path: string): HttpService {
    let target = this.#targets.get(path);
    if (target === undefined) {
      const { clock, policyOf, random, seriesOf } = this.#parts;
      const policy = policyOf(path);
      target = new RouteLayer({
        target: { table: new RouteTable(policy.http), authority: path, address: NO_ADDRESS, policy },
        backends: this,
        clock,
        random,
        metrics: UNCOUNTED,
        mirrors: this.mirrors,
        faults: this.faults,
        retries: this.retries,
        retrySeries: () => seriesOf(path),
      });
      this.#targets.set(path, target);
    }
    return target;
  }

  close(): void {
    for (const shared of this.#dispatches.values()) shared.dispatch.close();
  }

  /** Addresses outside the mesh are not simulated. */
  hold(backend: Backend): SharedDispatch | null {
    if (backend.kind !== "balancer") return null;
    const known = this.#dispatches.get(backend.path);
    if (known !== undefined) return known;
    const { client, clock, limitReached, make, random, sourceOf } = this.#parts;
    const traffic = backend.traffic ?? BACKEND_TRAFFIC_DEFAULTS;
    const dispatch = new Dispatch({
      name: backend.path,
      source: sourceOf(backend.path),
      clock,
      random,
      client,
      traffic,
      settings: { ...DISPATCH_DEFAULTS, balancer: backend },
      limitReached: (limit) => limitReached(backend.path, limit),
      make: (endpoint, bounds) => make(endpoint, backend.path, bounds),
    });
    const shared = new SharedDispatch(dispatch, clock, () => this.#dispatches.delete(backend.path));
    shared.configure(traffic);
    this.#dispatches.set(backend.path, shared);
    return shared;
  }

  releaseAll(): void {}
}

/** Callers and links count by themselves. */
const UNCOUNTED: RuleMetrics = {
  rule: () => ({ ...NO_SERIES, backend: () => NO_SERIES }),
};
const NO_SERIES: HttpSeries = { request: () => undefined, response: () => undefined };
/** Routes are asked about requests alone. */
const NO_ADDRESS: SocketAddress = { ip: "0.0.0.0" as IpAddress, port: 80 };
