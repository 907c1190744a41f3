import type { Backend, HttpFilter, RetryPolicy, Timeouts } from "./route.ts";
import type { BackendTraffic, ConcurrencyLimit, RateLimit } from "./traffic.ts";

/** A request that somebody wants explained. */
export interface ExplainQuestion {
  /** `deployment/web`, or a pod's or a workload's name. */
  readonly client: string;
  /** Of the client; null: wherever it is. */
  readonly namespace: string | null;
  /** `name`, `name.namespace` or a whole name in the cluster's domain, with or without `:port`. */
  readonly service: string;
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** HTTP/2, as gRPC needs it. A `content-type` of gRPC says so too. */
  readonly isHttp2: boolean;
}

/** Where something was said. A default has no file (""). */
export interface Origin {
  /** `HTTPRoute shop/web`, `the default` */
  readonly object: string;
  readonly file: string;
  /** 0 without a file. */
  readonly line: number;
}

/** What becomes of a request that a client sends, by the state of one moment, with whatever decided it. */
export interface Explanation {
  readonly client: {
    /** `namespace/name`. */
    readonly pod: string;
    readonly podUid: string;
    readonly workload: string;
    readonly identity: string;
    readonly ip: string;
    readonly isMeshed: boolean;
  };
  readonly target: {
    /** `web.shop.svc.cluster.local:80`. */
    readonly name: string;
    readonly protocol: string;
    readonly from: Origin;
  };
  readonly route: RouteVerdict;
  /** Matches that do not take it, and why. At most 100. */
  readonly others: readonly LosingMatch[];
  /** Of the rule, in the order in which they act. */
  readonly filters: readonly ExplainedFilter[];
  readonly backends: readonly ExplainedBackend[];
  /** Null where nothing is routed. */
  readonly timeouts: ExplainedTimeouts | null;
  readonly retry: ExplainedRetry | null;
}

export type RouteVerdict =
  /** `rule` and `match` count from 1; `match` 0: the rule has none. */
  | {
      readonly kind: "http";
      /** `HTTPRoute/shop/web`; `default/…` for a target without routes. */
      readonly route: string;
      readonly rule: number;
      readonly ruleName: string;
      readonly match: number;
      readonly why: string;
      readonly from: Origin;
    }
  /** For connections whose bytes are not looked into. */
  | { readonly kind: "connection"; readonly route: string; readonly why: string; readonly from: Origin }
  | { readonly kind: "none"; readonly why: string; readonly from: Origin };

export interface LosingMatch {
  readonly route: string;
  readonly rule: number;
  readonly ruleName: string;
  readonly match: number;
  readonly why: string;
  readonly from: Origin;
}

export interface ExplainedFilter {
  readonly filter: HttpFilter;
  /** Whether it does something to this request: chance aside. */
  readonly applies: boolean;
  /** Where a redirect leads, what a rewrite makes of host and path; "" otherwise. */
  readonly note: string;
  readonly from: Origin;
}

export interface ExplainedBackend {
  /** `web.shop.svc.cluster.local:80`, or an address. */
  readonly name: string;
  readonly kind: Backend["kind"];
  /** Of the rule's requests, 0 … 1, as endpoints are there or not. */
  readonly share: number;
  readonly weight: number;
  /** Why its requests are answered with an error; "" otherwise. */
  readonly refusal: string;
  readonly from: Origin;
  readonly filters: readonly ExplainedFilter[];
  readonly attemptTimeoutMs: number | null;
  readonly traffic: BackendTraffic;
  /** The objects that balancing, budget and bounds come from; the default alone where nobody says anything. */
  readonly trafficFrom: readonly Origin[];
  readonly endpoints: ExplainedEndpoints;
  /** How the workloads behind it take the request in. */
  readonly inbound: readonly ExplainedInbound[];
}

export interface ExplainedEndpoints {
  /** `sidecar`: as the client's own has them now. `folder`, `mesh`: all that are ready; nothing is known of how they do. */
  readonly seenBy: "sidecar" | "mesh" | "folder";
  /** The one it must get, or null where chance or a turn decides. */
  readonly endpoint: string | null;
  readonly reason: string;
  readonly members: readonly ExplainedMember[];
  /** Members beyond the first 100. */
  readonly omitted: number;
}

export interface ExplainedMember {
  readonly address: string;
  readonly pod: string;
  /** "in use", "set aside", … */
  readonly state: string;
  /** Why it is set aside; "" otherwise. */
  readonly why: string;
  /** -1: not known. */
  readonly pending: number;
  readonly latencyMs: number;
}

export interface ExplainedInbound {
  readonly workload: string;
  readonly port: number;
  readonly isMeshed: boolean;
  readonly authorization: {
    readonly allowed: boolean;
    /** The rule that allows; or for people, why it is refused. */
    readonly by: string;
    readonly from: Origin;
    /** Were policies in mode Audit enforced; null: the same. */
    readonly would: {
      readonly verdict: "would_deny" | "would_allow";
      readonly rule: string;
      readonly from: Origin;
    } | null;
  };
  readonly rates: readonly {
    readonly limit: RateLimit;
    /** Whether it counts this request. */
    readonly applies: boolean;
    readonly from: Origin;
  }[];
  readonly concurrency: { readonly limit: ConcurrencyLimit; readonly from: Origin } | null;
}

export interface ExplainedTimeouts extends Timeouts {
  /** A gRPC call's own deadline. */
  readonly callMs: number | null;
  readonly from: Origin;
  /** Fields of the request that set one of them. */
  readonly fields: readonly string[];
}

export interface ExplainedRetry {
  readonly policy: RetryPolicy;
  readonly from: Origin;
}
