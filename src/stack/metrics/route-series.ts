import type { Labels } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { HttpSeries } from "../http/measure.ts";
import type { Candidate } from "../route/candidate.ts";
import type { RuleMetrics, RuleSeries } from "../route/layer.ts";
import { isGrpcRoute } from "../route/table.ts";
import { FAMILIES } from "./families.ts";
import type { Family, Registry, Value } from "./registry.ts";
import { sourceLabels } from "./source-labels.ts";

/** Rules and backends that are remembered; past it the longest unused is let go (its series stay until they are idle). */
const SERIES_MAX = 4_096;

/**
 * The families of routes (facts §17.2): what each rule of a route took and answered, and what each of its backends did. Labels are
 * Linkerd's, and the rule by name or number.
 */
export class RouteMetrics implements RuleMetrics {
  readonly #registry: Registry;
  readonly #kept = new Map<string, Counted>();

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  rule(parent: PolicySource, { route, rule, ruleIndex }: Candidate): RuleSeries {
    const labels = {
      ...sourceLabels("parent", parent),
      ...sourceLabels("route", route.source),
      rule: rule.name === "" ? String(ruleIndex + 1) : rule.name,
    };
    const isGrpc = isGrpcRoute(route);
    const make = (): RuleCounters => new RuleCounters(this.#registry, labels, isGrpc, this.#backend);
    return this.#get(`${isGrpc} ${Object.values(labels).join(" ")}`, make);
  }

  readonly #backend = (of: Labels, isGrpc: boolean, backend: PolicySource): HttpSeries => {
    const labels = { ...of, ...sourceLabels("backend", backend) };
    const make = (): StatusCounters =>
      new StatusCounters(this.#registry, labels, isGrpc ? GRPC_BACKEND : HTTP_BACKEND);
    return this.#get(`${isGrpc} ${Object.values(labels).join(" ")}`, make);
  };

  #get<T extends Counted>(key: string, make: () => T): T {
    let counted = this.#kept.get(key) as T | undefined;
    if (counted !== undefined) this.#kept.delete(key);
    else {
      counted = make();
      if (this.#kept.size >= SERIES_MAX) {
        const [oldest, dropped] = this.#kept.entries().next().value as [string, Counted];
        this.#kept.delete(oldest);
        dropped.release();
      }
    }
    this.#kept.set(key, counted);
    return counted;
  }
}

interface Counted {
  release(): void;
}

interface StatusFamilies {
  readonly requests: Family;
  readonly statuses: Family;
  /** The label of an answer's status. */
  readonly label: "http_status" | "grpc_status";
}

const HTTP_ROUTE: StatusFamilies = {
  requests: FAMILIES.httpRouteRequests,
  statuses: FAMILIES.httpRouteStatuses,
  label: "http_status",
};
const GRPC_ROUTE: StatusFamilies = {
  requests: FAMILIES.grpcRouteRequests,
  statuses: FAMILIES.grpcRouteStatuses,
  label: "grpc_status",
};
const HTTP_BACKEND: StatusFamilies = {
  requests: FAMILIES.httpRouteBackendRequests,
  statuses: FAMILIES.httpRouteBackendStatuses,
  label: "http_status",
};
const GRPC_BACKEND: StatusFamilies = {
  requests: FAMILIES.grpcRouteBackendRequests,
  statuses: FAMILIES.grpcRouteBackendStatuses,
  label: "grpc_status",
};

/** Requests, and answers by status and error. */
class StatusCounters implements HttpSeries, Counted {
  readonly #registry: Registry;
  readonly #labels: Labels;
  readonly #families: StatusFamilies;
  readonly #requests: Value;
  /** By status and error: few, since both are closed sets but for what an application invents; the registry bounds that. */
  readonly #statuses = new Map<string, Value>();

  constructor(registry: Registry, labels: Labels, families: StatusFamilies) {
    this.#registry = registry;
    this.#labels = labels;
    this.#families = families;
    this.#requests = registry.counter(families.requests, labels);
  }

  request(): void {
    this.#requests.add(1);
  }

  response(status: number, grpcStatus: number, _latencyMs: number, _success: boolean, error: string): void {
    const { label, statuses } = this.#families;
    const code = label === "grpc_status" ? grpcStatus : status;
    const key = `${code} ${error}`;
    let value = this.#statuses.get(key);
    if (value === undefined) {
      const shown = code < 0 || (code === 0 && label === "http_status") ? "" : String(code);
      value = this.#registry.counter(statuses, { ...this.#labels, [label]: shown, error });
      if (this.#statuses.size < STATUSES_MAX) this.#statuses.set(key, value);
      else value.release();
    }
    value.add(1);
  }

  release(): void {
    this.#requests.release();
    for (const value of this.#statuses.values()) value.release();
    this.#statuses.clear();
  }
}

const STATUSES_MAX = 64;

class RuleCounters implements RuleSeries, Counted {
  readonly #labels: Labels;
  readonly #isGrpc: boolean;
  readonly #counters: StatusCounters;
  readonly #makeBackend: (of: Labels, isGrpc: boolean, backend: PolicySource) => HttpSeries;

  constructor(
    registry: Registry,
    labels: Labels,
    isGrpc: boolean,
    makeBackend: (of: Labels, isGrpc: boolean, backend: PolicySource) => HttpSeries,
  ) {
    this.#labels = labels;
    this.#isGrpc = isGrpc;
    this.#makeBackend = makeBackend;
    this.#counters = new StatusCounters(registry, labels, isGrpc ? GRPC_ROUTE : HTTP_ROUTE);
  }

  request(): void {
    this.#counters.request();
  }
  response(status: number, grpcStatus: number, latencyMs: number, success: boolean, error: string): void {
    this.#counters.response(status, grpcStatus, latencyMs, success, error);
  }
  backend(backend: PolicySource): HttpSeries {
    return this.#makeBackend(this.#labels, this.#isGrpc, backend);
  }
  release(): void {
    this.#counters.release();
  }
}
