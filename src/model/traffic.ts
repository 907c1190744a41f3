import type { HttpMatch } from "./route.ts";
import type { PolicySource } from "./policy.ts";

/** How a client's sidecar uses one backend. Null parts: as without them. */
export interface BackendTraffic {
  readonly balancing: Balancing;
  /** Sessions stay with their endpoint while it is there (GEP-1619). */
  readonly persistence: SessionPersistence | null;
  readonly zone: ZonePreference | null;
  /** A new endpoint's share grows to the full one over this time; 0: at once. */
  readonly slowStartMs: number;
  /** At most so many endpoints are used by one client, always the same; 0: all. */
  readonly subsetSize: number;
  readonly accrual: FailureAccrual | null;
  /** At least this share of endpoints is never set aside for its answers, 0 … 1. What cannot be connected to is another matter. */
  readonly ejectionFloor: number;
  /** Once a smaller share is in use, all are used that can be connected to (panic), 0 … 1. */
  readonly panicThreshold: number;
  readonly limits: BackendLimits;
  readonly retryBudget: RetryBudget;
  /** 429, RESOURCE_EXHAUSTED and `Retry-After` count as a latency of so much, so that load moves away; 0: they do not. */
  readonly overloadPenaltyMs: number;
  readonly connectTimeoutMs: number | null;
}

export type BalancingAlgorithm = "p2c-ewma" | "round-robin" | "random" | "least-request" | "consistent-hash";

export interface Balancing {
  readonly algorithm: BalancingAlgorithm;
  /** Of consistent hashing: the first part that the request has decides; none has: as without. Empty otherwise. */
  readonly hashOn: readonly HashKey[];
  /** Consistent hashing: an endpoint takes at most so many times the average of requests under way (bounded loads). */
  readonly boundedLoad: number;
}

export type HashKey =
  | { readonly kind: "header" | "cookie"; readonly name: string }
  | { readonly kind: "source" };

export interface SessionPersistence {
  readonly kind: "cookie" | "header";
  readonly name: string;
  /** The session ends so long after its start; null: never. */
  readonly absoluteTimeoutMs: number | null;
  /** A cookie that outlives the browser's session. */
  readonly isPermanent: boolean;
  /** Cookie's Path attribute. */
  readonly path: string;
}

/** Traffic stays in the client's zone until its endpoints are loaded or few. */
export interface ZonePreference {
  /** Spills to other zones once the mean of requests under way per local endpoint exceeds this. */
  readonly spillAtPending: number;
  /** … or once fewer than this share of the local endpoints is not set aside, 0 … 1. */
  readonly healthyShareMin: number;
}

/** When an endpoint is set aside for its answers. HTTP 5xx and the gRPC codes 2, 4, 7, 13, 14, 15 are failures. */
export interface FailureAccrual {
  /** So many in a row; 0: not by this. */
  readonly consecutiveFailures: number;
  /** Below this rate over `windowMs`, if there were at least `requestsMin`; 0: not by this. 0 … 1. */
  readonly successRateMin: number;
  readonly windowMs: number;
  readonly requestsMin: number;
  /** How long it is set aside before one request may try it. */
  readonly backoff: { readonly minMs: number; readonly maxMs: number; readonly jitterRatio: number };
  readonly respectsRetryAfter: boolean;
}

/** Of one client's sidecar to one service. 0: no bound but the sidecar's own. */
export interface BackendLimits {
  readonly requestsMax: number;
  readonly pendingMax: number;
  readonly connectionsMax: number;
}

/** GEP-3388: retries may make up `percent` of requests over `intervalMs`, and a floor of them is always allowed. */
export interface RetryBudget {
  readonly percent: number;
  readonly intervalMs: number;
  readonly floorCount: number;
  readonly floorIntervalMs: number;
}

export const BACKEND_TRAFFIC_DEFAULTS: BackendTraffic = {
  balancing: { algorithm: "p2c-ewma", hashOn: [], boundedLoad: 1.25 },
  persistence: null,
  zone: null,
  slowStartMs: 0,
  subsetSize: 0,
  accrual: null,
  ejectionFloor: 0.5,
  panicThreshold: 0.25,
  limits: { requestsMax: 0, pendingMax: 0, connectionsMax: 0 },
  retryBudget: { percent: 20, intervalMs: 10_000, floorCount: 10, floorIntervalMs: 1_000 },
  overloadPenaltyMs: 5_000,
  connectTimeoutMs: null,
};

/** What a workload takes in, at its own sidecar, on one port. */
export interface InboundLimits {
  /** Requests of plaintext clients that nothing here counts: the machine's probes, which a limit would make fail. */
  readonly exempt: readonly HttpMatch[];
  readonly rates: readonly RateLimit[];
  readonly concurrency: ConcurrencyLimit | null;
}

export interface RateLimit {
  readonly source: PolicySource;
  /** Requests it counts; empty: all. */
  readonly matches: readonly HttpMatch[];
  /**
   * One count for all, or one for each client identity or value of a header (bounded in number). `clients`: one for each of
   * these identities, which limits by `identity` then do not count.
   */
  readonly key:
    | { readonly kind: "total" | "identity" }
    | { readonly kind: "header"; readonly name: string }
    | { readonly kind: "clients"; readonly identities: readonly string[] };
  readonly requests: number;
  readonly windowMs: number;
  /** Requests that may come at once. */
  readonly burst: number;
  /** `local`: each pod by itself. `global`: all pods of the workload together. */
  readonly scope: "local" | "global";
}

/** Adaptive concurrency: sheds early what would only queue. */
export interface ConcurrencyLimit {
  readonly source: PolicySource;
  readonly limitMin: number;
  readonly limitMax: number;
  /** Header whose value orders requests, "high" before "normal" before "low"; "" for none. */
  readonly priorityHeader: string;
}
