import type { Clock } from "#/base/clock.ts";
import type { Fields } from "#/base/fields.ts";
import type { Random } from "#/base/random.ts";
import { ruleOf, type PolicySource } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import type { SessionPersistence } from "#/model/traffic.ts";
import type { OutboundTarget } from "../discovery.ts";
import type { FaultInjector } from "../fault/injector.ts";
import type { TriedEndpoints } from "../http/dispatch.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import { fault } from "../http/fault.ts";
import type { HttpSeries } from "../http/measure.ts";
import type { RetryBudgetWindow } from "../retry/retry-budget.ts";
import type { RetryLayer } from "../retry/retry-layer.ts";
import type { RetrySeries } from "../retry/retry-rule.ts";
import type { Candidate } from "./candidate.ts";
import type { Mirrors } from "./mirror.ts";
import { RuleService } from "./rule-service.ts";
import type { RouteTable } from "./table.ts";

/** What a client connection is routed by, at this moment. A change of policy is another `table`. */
export type RoutedTarget = Pick<OutboundTarget, "table" | "authority" | "address" | "policy">;

/** A backend's endpoints, balanced. The same for all rules and connections of a sidecar. */
export interface HeldBackend {
  readonly dispatch: BackendDispatch;
  /** What retries to it draw on. */
  readonly budget: RetryBudgetWindow;
  /** It has an endpoint, and not every one failed to connect of late. */
  readonly isReady: boolean;
  /** Keeps its endpoints beyond `Backends.releaseAll`, until it is released as often. */
  acquire(): void;
  release(): void;
}

export interface BackendDispatch extends HttpService {
  /** Whether the request belongs to a session of an endpoint here. */
  holdsSession?(fields: Fields, persistence: SessionPersistence): boolean;
  /** Whether an endpoint in use here has not had the request. */
  hasUntried?(tried: TriedEndpoints): boolean;
  call(
    head: RequestHead,
    last: boolean,
    reply: ResponseSink,
    tried?: TriedEndpoints | null,
    persistence?: SessionPersistence | null,
  ): RequestSink;
}

/** The backends of one client connection's target. */
export interface Backends {
  /** Held until `releaseAll`. Null: it has none to give. */
  hold(backend: Backend): HeldBackend | null;
  releaseAll(): void;
}

/** Counters of a rule's requests, from their head to their answer's end, all attempts together. */
export interface RuleSeries extends HttpSeries {
  /** Of each attempt at one of its backends. */
  backend(source: PolicySource): HttpSeries;
}

export interface RuleMetrics {
  rule(parent: PolicySource, candidate: Candidate): RuleSeries;
}

export interface RouteLayerParts {
  readonly target: RoutedTarget;
  readonly backends: Backends;
  readonly clock: Clock;
  readonly random: Random;
  readonly mirrors: Mirrors;
  readonly retries: RetryLayer;
  /** Rules of routes are counted; the one default rule of a target without routes is not. */
  readonly metrics: RuleMetrics;
  /** Counters for a route's retries and timeouts. */
  retrySeries(route: PolicySource): RetrySeries;
  readonly faults: FaultInjector;
}

/**
 * Sends each request of a client connection where the routes of its target say, by the table of that moment: a live update holds
 * for the next request, and requests under way finish by the rule that they began with.
 *
 *     find the rule > its filters > RetryLayer, where it is asked for > draw a backend > the backend's filters > Dispatch
 */
export class RouteLayer implements HttpService {
  readonly #parts: RouteLayerParts;
  readonly #target: RoutedTarget;
  #table: RouteTable | null = null;
  /** By match, as a match may decide what a rewrite does. Made when first needed; at most as many as the table has. */
  readonly #services = new Map<Candidate, RuleService>();
  /** Of the one rule of a target without any to choose by. */
  #only: HttpService | null = null;
  #lastHead: RequestHead | null = null;
  #lastService: HttpService | null = null;

  constructor(parts: RouteLayerParts) {
    this.#parts = parts;
    this.#target = parts.target;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    const { table } = this.#target;
    if (table !== this.#table) this.#adopt(table);
    if ((head.trace ?? null) !== null) traceRoute(head, table);
    if (this.#only !== null) return this.#only.call(head, last, reply);
    // Equal requests of a connection share one head.
    if (head !== this.#lastHead || this.#lastService === null) {
      const candidate = table.find(head);
      if (candidate === null) return this.#refuse(head, table, reply);
      this.#lastHead = head;
      this.#lastService = this.#serviceOf(candidate);
    }
    return this.#lastService.call(head, last, reply);
  }

  /** The client connection is over. */
  close(): void {
    this.#forget();
  }

  #adopt(table: RouteTable): void {
    this.#forget();
    this.#table = table;
    if (table.only === null) return;
    const held = table.straight === null ? null : this.#parts.backends.hold(table.straight);
    this.#only = held?.dispatch ?? this.#serviceOf(table.only);
  }

  #forget(): void {
    this.#table = null;
    for (const service of this.#services.values()) service.leave();
    // Clearing makes a new table.
    if (this.#services.size > 0) this.#services.clear();
    this.#only = null;
    this.#lastHead = null;
    this.#lastService = null;
    this.#parts.backends.releaseAll();
  }

  #serviceOf(candidate: Candidate): RuleService {
    let service = this.#services.get(candidate);
    if (service === undefined) {
      service = new RuleService(candidate, this.#parts);
      this.#services.set(candidate, service);
    }
    return service;
  }

  /** GEP-1426: where there are routes, what none of them takes is refused. */
  #refuse(head: RequestHead, table: RouteTable, reply: ResponseSink): RequestSink {
    const { authority, policy } = this.#target;
    const count = table.routes.length;
    const why =
      count === 0
        ? "no route takes"
        : count === 1
          ? "its route does not match"
          : `none of its ${count} routes matches`;
    reply.fail(
      fault("NO_ROUTE", `${authority}: ${why} ${head.method} ${head.path} for host "${head.authority}"`, {
        safe: true,
        rule: ruleOf(policy.source),
      }),
    );
    return SPENT;
  }
}

function traceRoute(head: RequestHead, table: RouteTable): void {
  const found = table.find(head);
  if (found === null) {
    head.trace?.add("route", [["none", true]]);
    return;
  }
  const { route, rule, ruleIndex, match, matchIndex, why } = found;
  head.trace?.add("route", [
    ["policy", ruleOf(route.source)],
    ["rule", ruleIndex + 1],
    ["name", rule.name],
    ["match", match === null ? 0 : matchIndex + 1],
    ["why", why],
    ["filters", rule.filters.map(({ kind }) => kind).join(" ")],
  ]);
}
