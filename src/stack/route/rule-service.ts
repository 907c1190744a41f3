import { ruleOf } from "#/model/policy.ts";
import type { RouteBackend } from "#/model/route.ts";
import type { SessionPersistence } from "#/model/traffic.ts";
import type { TriedEndpoints } from "../http/dispatch.ts";
import type { HttpService, RequestHead, RequestSink, ResponseSink } from "../http/exchange.ts";
import { SPENT } from "../http/exchange.ts";
import { fault } from "../http/fault.ts";
import { MeasuredExchange, type HttpSeries } from "../http/measure.ts";
import type { RetryBudgetWindow } from "../retry/retry-budget.ts";
import { type Destination, type Destinations, type RetryRule } from "../retry/retry-rule.ts";
import { Request } from "../http/translate.ts";
import type { Candidate } from "./candidate.ts";
import { filtersOf, type Filters } from "./filters.ts";
import { DEFAULT, isRetried, persistenceOf } from "./straight.ts";
import type { HeldBackend, RouteLayerParts, RuleSeries } from "./layer.ts";
import { MirroredRequest, type MirrorCopy } from "./mirror.ts";
import { drawBackend, type SplitState } from "./split.ts";
import { nameOf } from "./table.ts";

/** Serves what one match takes, on one client connection. */
export class RuleService implements HttpService, SplitState, Destinations {
  readonly #parts: RouteLayerParts;
  readonly #candidate: Candidate;
  readonly #filters: Filters | null;
  readonly #backends: BackendService[];
  readonly #nowhere: Nowhere;
  /** Sessions may keep a request from the draw. */
  readonly #hasSessions: boolean;
  /** Null where nothing is to be kept or sent again. */
  readonly #retryRule: RetryRule | null;
  /** Null for the default rule of a target without routes. */
  readonly #series: RuleSeries | null;
  /** Requests that may be sent again. */
  #underWay = 0;
  /** The connection goes by other rules now, and its hold on these backends is given up. */
  #hasLeft = false;

  constructor(candidate: Candidate, parts: RouteLayerParts) {
    const { route, rule } = candidate;
    const { metrics, random, target } = parts;
    const label = ruleOf(route.source);
    const context = { candidate, port: target.address.port, random, label };
    this.#parts = parts;
    this.#candidate = candidate;
    this.#series = route.source.kind === DEFAULT ? null : metrics.rule(target.policy.source, candidate);
    this.#filters = filtersOf(rule.filters, context);
    this.#backends = rule.backends.map((backend) => {
      const of = this.#series?.backend(backend.backend.source) ?? null;
      return new BackendService(backend, filtersOf(backend.filters, context), parts, label, of);
    });
    this.#hasSessions =
      rule.backends.length > 1 && rule.backends.some((each) => persistenceOf(each) !== null);
    this.#nowhere = new Nowhere(candidate, target.authority, label);
    const { timeouts, retry, allowsRequestHeaders } = rule;
    this.#retryRule = isRetried(rule)
      ? {
          timeouts,
          retry,
          allowsRequestHeaders,
          label: nameOf(candidate),
          series: parts.retrySeries(route.source),
        }
      : null;
    // What is sent later may be so when the policy is another one already: where it leads is taken hold of while that is named.
    const delays = [this.#filters, ...this.#backends.map(({ filters }) => filters)].some(
      (filters) => filters?.mayDelay === true,
    );
    if (delays || this.#retryRule !== null) for (const backend of this.#backends) void backend.held;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (this.#series === null) return this.#pass(head, last, reply);
    const measured = new MeasuredExchange(this.#series, this.#parts.clock, head, reply);
    measured.sink = this.#pass(head, last, measured);
    return measured;
  }

  #pass(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (this.#filters === null) return this.send(head, last, reply);
    return throughFilters(this.#filters, this.#parts, this, head, last, reply, null);
  }

  send(head: RequestHead, last: boolean, reply: ResponseSink): RequestSink {
    if (this.#retryRule !== null) return this.#parts.retries.call(this.#retryRule, this, head, last, reply);
    return this.draw(head, null).call(head, last, reply, null);
  }

  /** GEP-1619: the first attempt goes where the request's session is, whatever the weights are now, but for 0. */
  draw(head: RequestHead, tried: TriedEndpoints | null): Destination {
    const { rule } = this.#candidate;
    if (this.#hasSessions && tried === null)
      for (const each of this.#backends) if (each.holdsSession(head)) return each;
    const state = tried === null || this.#backends.length === 1 ? this : this.#untried(tried);
    const index = drawBackend(rule.choice, rule.backends, state, this.#parts.random);
    return this.#backends[index] ?? this.#nowhere;
  }

  /** Without the backends whose every endpoint had the request already, as long as any other is left. */
  #untried(tried: TriedEndpoints): SplitState {
    const isOffered = (index: number): boolean =>
      this.#candidate.rule.backends[index]!.weight > 0 &&
      !this.isInvalid(index) &&
      this.isReady(index) &&
      this.#backends[index]!.hasUntried(tried);
    if (!this.#backends.some((_, index) => isOffered(index))) return this;
    return { isReady: isOffered, isInvalid: (index) => this.isInvalid(index) };
  }

  hold(): void {
    this.#underWay++;
  }

  release(): void {
    if (--this.#underWay > 0 || !this.#hasLeft) return;
    for (const { held } of this.#backends) held?.release();
  }

  /** The table is another one: requests that may be sent again hold their backends themselves from now on. */
  leave(): void {
    if (this.#underWay === 0) return;
    this.#hasLeft = true;
    for (const { held } of this.#backends) held?.acquire();
  }

  isReady(index: number): boolean {
    const { filters, held } = this.#backends[index]!;
    return filters?.alwaysAnswer === true || held?.isReady === true;
  }

  isInvalid(index: number): boolean {
    const { backend, filters } = this.#backends[index]!;
    return backend.backend.kind === "forbidden" && filters?.alwaysAnswer !== true;
  }
}

/** One backend of a rule, behind its own filters. */
class BackendService implements Destination {
  readonly backend: RouteBackend;
  readonly filters: Filters | null;
  readonly attemptTimeoutMs: number | null;
  readonly #parts: RouteLayerParts;
  readonly #label: string;
  readonly #series: HttpSeries | null;
  readonly #persistence: SessionPersistence | null;
  #held: HeldBackend | null = null;

  constructor(
    backend: RouteBackend,
    filters: Filters | null,
    parts: RouteLayerParts,
    label: string,
    series: HttpSeries | null,
  ) {
    this.backend = backend;
    this.filters = filters;
    this.attemptTimeoutMs = backend.attemptTimeoutMs;
    this.#parts = parts;
    this.#label = label;
    this.#series = series;
    this.#persistence = persistenceOf(backend);
  }

  get held(): HeldBackend | null {
    return (this.#held ??= this.#parts.backends.hold(this.backend.backend));
  }

  holdsSession({ fields }: RequestHead): boolean {
    const persistence = this.#persistence;
    if (persistence === null || this.backend.weight === 0) return false;
    return this.held?.dispatch.holdsSession?.(fields, persistence) ?? false;
  }

  hasUntried(tried: TriedEndpoints): boolean {
    return this.held?.dispatch.hasUntried?.(tried) ?? true;
  }

  get budget(): RetryBudgetWindow | null {
    return this.held?.budget ?? null;
  }

  call(head: RequestHead, last: boolean, reply: ResponseSink, tried: TriedEndpoints | null): RequestSink {
    if (this.#series === null) return this.#pass(head, last, reply, tried);
    const measured = new MeasuredExchange(this.#series, this.#parts.clock, head, reply);
    measured.sink = this.#pass(head, last, measured, tried);
    return measured;
  }

  #pass(head: RequestHead, last: boolean, reply: ResponseSink, tried: TriedEndpoints | null): RequestSink {
    if (this.filters === null) return this.send(head, last, reply, tried);
    return throughFilters(this.filters, this.#parts, this, head, last, reply, tried);
  }

  send(head: RequestHead, last: boolean, reply: ResponseSink, tried: TriedEndpoints | null): RequestSink {
    const { held } = this;
    if (held !== null) return held.dispatch.call(head, last, reply, tried, this.#persistence);
    const { backend } = this.backend;
    const { authority } = this.#parts.target;
    const isForbidden = backend.kind === "forbidden";
    // A default forbids a target as a whole; what a route names and does not exist is an error of the route.
    const code = isForbidden && backend.source.kind === DEFAULT ? "FORBIDDEN_TARGET" : "NO_BACKEND";
    const why = isForbidden ? backend.reason : "there are more backends than are followed";
    reply.fail(fault(code, `${authority}: ${why}`, { safe: true, rule: this.#label }));
    return SPENT;
  }
}

/** Of a rule that has no backend to draw. */
class Nowhere implements Destination {
  readonly budget = null;
  readonly attemptTimeoutMs = null;
  readonly #candidate: Candidate;
  readonly #authority: string;
  readonly #label: string;

  constructor(candidate: Candidate, authority: string, label: string) {
    this.#candidate = candidate;
    this.#authority = authority;
    this.#label = label;
  }

  call(_head: RequestHead, _last: boolean, reply: ResponseSink): RequestSink {
    const { rule } = this.#candidate;
    const why = rule.backends.length === 0 ? "has no backend" : "has only backends of weight 0";
    reply.fail(
      fault("NO_BACKEND", `${this.#authority}: ${nameOf(this.#candidate)} ${why}`, {
        safe: true,
        rule: this.#label,
      }),
    );
    return SPENT;
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
  if (filters.faults.length === 0) return onward(filters, parts, behind, head, last, reply, tried);
  const rest: HttpService = {
    call: (sent, isLast, to) => onward(filters, parts, behind, sent, isLast, to, tried),
  };
  return parts.faults.around(rest, filters.faults, head).call(head, last, reply);
}

/** What comes after the answers in a backend's place, and after faults. */
function onward(
  filters: Filters,
  parts: RouteLayerParts,
  behind: Filtered,
  head: RequestHead,
  last: boolean,
  reply: ResponseSink,
  tried: TriedEndpoints | null,
): RequestSink {
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

const NO_COPIES: readonly MirrorCopy[] = [];

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
    const held = backends.hold(backend);
    if (held === null) continue;
    const { trace = null } = head;
    trace?.add("mirror", [["backend", ruleOf(backend.source)]]);
    // A copy goes its own way, of which nobody asks.
    const copied = trace === null ? head : new Request({ ...head, trace: null });
    copies.push(mirrors.begin(held.dispatch, copied, last));
  }
  return copies;
}
