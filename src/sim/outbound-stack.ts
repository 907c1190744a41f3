import type { Clock } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import type { EndpointSource } from "#/stack/discovery.ts";
import { DISPATCH_DEFAULTS, Dispatch } from "#/stack/http/dispatch.ts";
import type { EndpointService } from "#/stack/http/dispatch.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import { fault } from "#/stack/http/fault.ts";

export interface OutboundStackParts {
  readonly clock: Clock;
  readonly random: Random;
  /** By the path of a service. */
  readonly policyOf: (path: string) => OutboundPolicy;
  readonly sourceOf: (path: string) => EndpointSource;
  /** In place of an `EndpointClient`. */
  readonly make: (endpoint: Endpoint, path: string) => EndpointService;
}

/** The outbound side of one sidecar: the layers that a request meets there, from the route to the endpoint. */
export class OutboundStack {
  readonly #parts: OutboundStackParts;
  readonly #targets = new Map<string, HttpService>();
  readonly #dispatches = new Map<string, Dispatch>();

  constructor(parts: OutboundStackParts) {
    this.#parts = parts;
  }

  /** What takes requests that were meant for a service. */
  target(path: string): HttpService {
    let target = this.#targets.get(path);
    if (target === undefined) {
      target = this.#backend(this.#parts.policyOf(path).backend);
      this.#targets.set(path, target);
    }
    return target;
  }

  get dispatches(): ReadonlyMap<string, Dispatch> {
    return this.#dispatches;
  }

  close(): void {
    for (const dispatch of this.#dispatches.values()) dispatch.close();
  }

  #backend(backend: Backend): HttpService {
    if (backend.kind !== "balancer") return new Nowhere(backend);
    const known = this.#dispatches.get(backend.path);
    if (known !== undefined) return known;
    const { clock, make, random, sourceOf } = this.#parts;
    const dispatch = new Dispatch({
      name: backend.path,
      source: sourceOf(backend.path),
      clock,
      random,
      make: (endpoint) => make(endpoint, backend.path),
      settings: { ...DISPATCH_DEFAULTS, balancer: backend },
    });
    this.#dispatches.set(backend.path, dispatch);
    return dispatch;
  }
}

/** A backend that is none. */
class Nowhere implements HttpService {
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  call(_head: RequestHead, _last: boolean, reply: ResponseSink): RequestSink {
    const { kind, source } = this.#backend;
    const reason = kind === "forbidden" ? this.#backend.reason : "an address outside is not simulated";
    reply.fail(fault("FORBIDDEN_TARGET", reason, { safe: true, rule: ruleOf(source) }));
    return SPENT;
  }
}
