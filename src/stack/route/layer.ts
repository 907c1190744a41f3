import type { Random } from "#/base/random.ts";
import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { Backend, HttpRule, RouteBackend } from "#/model/route.ts";
import type { OutboundTarget } from "../discovery.ts";
import type { TriedEndpoints } from "../http/dispatch.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import { fault } from "../http/fault.ts";
import type { Candidate } from "./candidate.ts";
import { filtersOf, type Filters } from "./filters.ts";
import { MirroredRequest, type MirrorCopy, type Mirrors } from "./mirror.ts";
import type { RetryBudgetWindow } from "../retry/retry-budget.ts";
import type { RetryLayer } from "../retry/retry-layer.ts";
import type { Destination, Destinations, RetryRule, RetrySeries } from "../retry/retry-rule.ts";
import { needsRetryLayer } from "../retry/retry-rule.ts";
import { drawBackend, type SplitState } from "./split.ts";
import { nameOf, type RouteTable } from "./table.ts";

/** Whether all that a rule does is to send requests to its one backend. */
export function isPlain({ backends, filters, retry, timeouts, allowsRequestHeaders }: HttpRule): boolean {
  const [only] = backends;
  return (
    only !== undefined &&
    backends.length === 1 &&
    only.weight > 0 &&
    only.filters.length === 0 &&
    only.attemptTimeoutMs === null &&
    filters.length === 0 &&
    retry === null &&
    !allowsRequestHeaders &&
    Object.values(timeouts).every((ms) => ms === null)
  );
}

/** What a client connection is routed by, at this moment. A change of policy is another `table`. */
export type RoutedTarget = Pick<OutboundTarget, "table" | "authority" | "address" | "policy">;

/** A backend's endpoints. Those in `tried` are taken only where there is no other. */
export interface BalancedService extends HttpService {
  call(head: RequestHead, last: boolean, reply: ResponseSink, tried?: TriedEndpoints | null): RequestSink;
}

/** The backends of one client connection's target, as services. */
export interface BackendServices {
  /** Balances over the backend's endpoints; held until `releaseAll`. Null: it has none to give. */
  serviceOf(backend: Backend): BalancedService | null;
  /** What retries to the backend draw on; null where it has no endpoints to give. */
  budgetOf(backend: Backend): RetryBudgetWindow | null;
  /** Whether the backend has an endpoint that can be used. */
  isReady(backend: Backend): boolean;
  releaseAll(): void;
}

export interface RouteLayerParts {
  readonly target: RoutedTarget;
  readonly backends: BackendServices;
  readonly random: Random;
  readonly mirrors: Mirrors;
  readonly retries: RetryLayer;
  /** Counters for a route's retries and timeouts. */
  retrySeries(route: PolicySource): RetrySeries;
}

/**
 * Sends each request of a client connection where the routes of its target say, by the table of that moment: a live update holds
 * for the next request, and requests under way finish by the rule that they began with.
 *
 *     find the rule > its filters > timeouts and retries > draw a backend > the backend's filters > Dispatch
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
    const service = this.#serviceOf(table.only);
    this.#only = service.plain ?? service;
  }

  #forget(): void {
    this.#table = null;
    this.#services.clear();
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

/** Serves what one match takes, on one client connection. */
class RuleService implements HttpService, Filtered, SplitState, Destinations {
  readonly #parts: RouteLayerParts;
  readonly #candidate: Candidate;
  readonly #label: string;
  readonly #filters: Filters | null;
  readonly #backends: BackendService[];
  /** Null: no timeouts and no retries. */
  readonly #retry: RetryRule | null;

  constructor(candidate: Candidate, parts: RouteLayerParts) {
    const { route, rule } = candidate;
    this.#parts = parts;
    this.#candidate = candidate;
    this.#label = ruleOf(route.source);
    const context = { candidate, port: parts.target.address.port, random: parts.random, label: this.#label };
    this.#filters = filtersOf(rule.filters, context);
    this.#backends = rule.backends.map(
      (backend) => new BackendService(backend, filtersOf(backend.filters, context), parts, this.#label),
    );
    this.#retry = !needsRetryLayer(
      rule,
      rule.backends.map(({ attemptTimeoutMs }) => attemptTimeoutMs),
    )
      ? null
      : {
          timeouts: rule.timeouts,
          retry: rule.retry,
          allowsRequestHeaders: rule.allowsRequestHeaders,
          label: nameOf(candidate),
          series: parts.retrySeries(route.source),
        };
  }

  /** Where all requests of this rule go unchanged; null where something is to be done to them, or they are refused. */
  get plain(): HttpService | null {
    return isPlain(this.#candidate.rule) ? this.#backends[0]!.service : null;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (this.#filters === null) return this.send(head, last, reply);
    return throughFilters(this.#filters, this.#parts, this, head, last, reply, null);
  }

  isReady(index: number): boolean {
    const { backend, filters } = this.#backends[index]!;
    return filters?.alwaysAnswer === true || this.#parts.backends.isReady(backend.backend);
  }

  isInvalid(index: number): boolean {
    const { backend, filters } = this.#backends[index]!;
    return backend.backend.kind === "forbidden" && filters?.alwaysAnswer !== true;
  }

  send(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (this.#retry === null) return this.draw().call(head, last, reply, null);
    return this.#parts.retries.call(this.#retry, this, head, last, reply);
  }

  draw(): Destination {
    const { rule } = this.#candidate;
    const index = drawBackend(rule.choice, rule.backends, this, this.#parts.random);
    return this.#backends[index] ?? this.#nowhere;
  }

  /** Where a rule sends that has no backend to draw. */
  readonly #nowhere: Destination = {
    budget: null,
    attemptTimeoutMs: null,
    call: (_head, _last, reply) => this.#refuse(reply),
  };

  #refuse(reply: ResponseSink): RequestSink {
    const { rule } = this.#candidate;
    const why = rule.backends.length === 0 ? "has no backend" : "has only backends of weight 0";
    reply.fail(
      fault("NO_BACKEND", `${this.#parts.target.authority}: ${nameOf(this.#candidate)} ${why}`, {
        safe: true,
        rule: this.#label,
      }),
    );
    return SPENT;
  }
}

/** One backend of a rule, behind its own filters. */
class BackendService implements Destination, Filtered {
  readonly backend: RouteBackend;
  readonly filters: Filters | null;
  readonly #parts: RouteLayerParts;
  readonly #label: string;
  #service: BalancedService | null = null;

  constructor(backend: RouteBackend, filters: Filters | null, parts: RouteLayerParts, label: string) {
    this.backend = backend;
    this.filters = filters;
    this.#parts = parts;
    this.#label = label;
  }

  get attemptTimeoutMs(): number | null {
    return this.backend.attemptTimeoutMs;
  }

  get budget(): RetryBudgetWindow | null {
    return this.#parts.backends.budgetOf(this.backend.backend);
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink, tried: TriedEndpoints | null): RequestSink {
    const { filters } = this;
    if (filters === null) return this.send(head, last, reply, tried);
    return throughFilters(filters, this.#parts, this, head, last, reply, tried);
  }

  send(head: RequestHead, last: boolean, reply: ResponseSink, tried: TriedEndpoints | null): RequestSink {
    const service = this.service;
    if (service !== null) return service.call(head, last, reply, tried);
    const { backend } = this.backend;
    const { authority } = this.#parts.target;
    if (backend.kind === "forbidden" && backend.source.kind === "default") {
      reply.fail(
        fault("FORBIDDEN_TARGET", `${authority}: ${backend.reason}`, { safe: true, rule: this.#label }),
      );
    } else {
      const why = backend.kind === "forbidden" ? backend.reason : "more backends than a target may have";
      reply.fail(fault("NO_BACKEND", `${authority}: ${why}`, { safe: true, rule: this.#label }));
    }
    return SPENT;
  }

  get service(): BalancedService | null {
    return (this.#service ??= this.#parts.backends.serviceOf(this.backend.backend));
  }
}

/** What stands behind filters. */
interface Filtered {
  send(head: RequestHead, last: boolean, reply: ResponseSink, tried: TriedEndpoints | null): RequestSink;
}

function throughFilters(
  filters: Filters,
  parts: RouteLayerParts,
  behind: Filtered,
  head: RequestHead,
  last: boolean,
  reply: ResponseSink,
  tried: TriedEndpoints | null,
): RequestSink {
  const answered = filters.answer(head, last, reply);
  if (answered !== null) return answered;
  const changed = filters.change(head);
  const answerTo = filters.replyTo(head, reply);
  // A request that is sent again is not copied again.
  const isAgain = tried !== null && tried.attempts > 1;
  const copies = isAgain ? NO_COPIES : startCopies(filters, changed, last, parts);
  if (copies.length === 0 || last) return behind.send(changed, last, answerTo, tried);
  const mirrored = new MirroredRequest(copies, answerTo);
  mirrored.main = behind.send(changed, last, mirrored, tried);
  return mirrored;
}

const NO_COPIES: MirrorCopy[] = [];

function startCopies(
  filters: Filters,
  head: RequestHead,
  last: boolean,
  { backends, mirrors }: RouteLayerParts,
): MirrorCopy[] {
  const copies: MirrorCopy[] = [];
  // What turns a connection over cannot be copied: its bytes are a conversation.
  if (filters.mirrors.length === 0 || head.upgrade !== null || head.method === "CONNECT") return copies;
  for (const { backend, ratio } of filters.mirrors) {
    if (!filters.isHit(ratio)) continue;
    const service = backends.serviceOf(backend);
    if (service !== null) copies.push(mirrors.begin(service, head, last));
  }
  return copies;
}
