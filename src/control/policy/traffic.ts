import { durationMs } from "#/kube/duration.ts";
import type {
  BackendTrafficPolicyObject,
  RetryConstraintSpec,
  SessionPersistenceSpec,
  TrafficPolicyObject,
} from "#/kube/policy-objects.ts";
import type { AccrualAnnotations } from "#/kube/traffic-annotations.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type {
  BackendTraffic,
  Balancing,
  BalancingAlgorithm,
  FailureAccrual,
  HashKey,
  RetryBudget,
  SessionPersistence,
} from "#/model/traffic.ts";
import { shortHash } from "../workloads/hash.ts";

/** What is said about one port of a Service. The standard's kind goes before ours, and both before annotations. */
export interface TrafficSpecs {
  /** `namespace/name` */
  readonly serviceKey: string;
  readonly accrual: AccrualAnnotations | null;
  readonly policy: TrafficPolicyObject | null;
  readonly standard: BackendTrafficPolicyObject | null;
}

/** Null: nothing is said, the defaults hold. */
export function backendTraffic({
  serviceKey,
  accrual,
  policy,
  standard,
}: TrafficSpecs): BackendTraffic | null {
  if (accrual === null && policy === null && standard === null) return null;
  const spec = policy?.spec;
  const defaults = BACKEND_TRAFFIC_DEFAULTS;
  const breaking = spec?.circuitBreaking;
  const constraint = standard?.spec.retryConstraint ?? spec?.retryConstraint;
  const persistence = standard?.spec.sessionPersistence ?? spec?.sessionPersistence;
  return {
    balancing: spec?.balancing === undefined ? defaults.balancing : balancingOf(spec.balancing),
    persistence: persistence === undefined ? null : persistenceOf(persistence, `Service ${serviceKey}`),
    zone:
      spec?.zone === undefined
        ? null
        : {
            spillAtPending: spec.zone.spillAtPending ?? ZONE_SPILL_AT_PENDING,
            healthyShareMin: (spec.zone.healthyPercentMin ?? ZONE_HEALTHY_PERCENT_MIN) / 100,
          },
    slowStartMs: ms(spec?.balancing?.slowStart, defaults.slowStartMs),
    subsetSize: spec?.balancing?.subsetSize ?? defaults.subsetSize,
    accrual: accrualOf(breaking, accrual),
    ejectionFloor:
      breaking?.ejectedPercentMax === undefined
        ? defaults.ejectionFloor
        : 1 - breaking.ejectedPercentMax / 100,
    panicThreshold:
      breaking?.panicPercent === undefined ? defaults.panicThreshold : breaking.panicPercent / 100,
    limits: { ...defaults.limits, ...spec?.limits },
    retryBudget: constraint === undefined ? defaults.retryBudget : budgetOf(constraint),
    overloadPenaltyMs: ms(spec?.balancing?.overloadPenalty, defaults.overloadPenaltyMs),
    connectTimeoutMs: spec?.connectTimeout === undefined ? null : nullIfZero(ms(spec.connectTimeout, 0)),
  };
}

/**
 * GEP-1619: a unique name is made where none is given, for rules and Services must not share sessions; every sidecar is told
 * the same. `owner` is what the sessions are of.
 */
export function persistenceOf(spec: SessionPersistenceSpec, owner: string): SessionPersistence {
  const kind = spec.type === "Header" ? "header" : "cookie";
  return {
    kind,
    name: spec.sessionName ?? madeName(kind, owner),
    absoluteTimeoutMs: spec.absoluteTimeout === undefined ? null : nullIfZero(ms(spec.absoluteTimeout, 0)),
    isPermanent: spec.cookieConfig?.lifetimeType === "Permanent",
    path: "/",
  };
}

/** … also where a policy of the Service asks for them, `serviceKey`: each rule to it gets a name of its own. A name that is given stays. */
export function persistenceOfRule(
  ofService: SessionPersistence,
  serviceKey: string,
  owner: string,
): SessionPersistence {
  const { kind, name } = ofService;
  if (name !== madeName(kind, `Service ${serviceKey}`)) return ofService;
  return { ...ofService, name: madeName(kind, `${owner} Service ${serviceKey}`) };
}

function madeName(kind: SessionPersistence["kind"], owner: string): string {
  const made = `pillion-${shortHash(owner, NAME_CHARS)}`;
  return kind === "header" ? `x-${made}` : made;
}

const NAME_CHARS = 8;
const ZONE_SPILL_AT_PENDING = 64;
const ZONE_HEALTHY_PERCENT_MIN = 70;

/** Linkerd's for an endpoint set aside. */
const ACCRUAL = {
  consecutiveFailures: 0,
  successRateMin: 0,
  windowMs: 10_000,
  requestsMin: 5,
  backoff: { minMs: 1000, maxMs: 60_000, jitterRatio: 0.5 },
  respectsRetryAfter: false,
} as const;

const ALGORITHMS: Readonly<Record<string, BalancingAlgorithm>> = {
  PeakEWMA: "p2c-ewma",
  RoundRobin: "round-robin",
  Random: "random",
  LeastRequest: "least-request",
  ConsistentHash: "consistent-hash",
};

function balancingOf(spec: NonNullable<TrafficPolicyObject["spec"]["balancing"]>): Balancing {
  const { balancing } = BACKEND_TRAFFIC_DEFAULTS;
  return {
    algorithm: spec.algorithm === undefined ? balancing.algorithm : ALGORITHMS[spec.algorithm]!,
    hashOn: (spec.hashOn ?? []).map((key): HashKey => {
      if (key.header !== undefined) return { kind: "header", name: key.header.toLowerCase() };
      if (key.cookie !== undefined) return { kind: "cookie", name: key.cookie };
      return { kind: "source" };
    }),
    boundedLoad:
      spec.boundedLoadPercent === undefined ? balancing.boundedLoad : spec.boundedLoadPercent / 100,
  };
}

function accrualOf(
  breaking: TrafficPolicyObject["spec"]["circuitBreaking"],
  annotations: AccrualAnnotations | null,
): FailureAccrual | null {
  if (breaking?.consecutiveFailures !== undefined || breaking?.successRate !== undefined)
    return {
      consecutiveFailures: breaking.consecutiveFailures ?? 0,
      successRateMin: (breaking.successRate?.percentMin ?? 0) / 100,
      windowMs: ms(breaking.successRate?.window, ACCRUAL.windowMs),
      requestsMin: breaking.successRate?.requestsMin ?? ACCRUAL.requestsMin,
      backoff: {
        minMs: ms(breaking.backoff?.min, ACCRUAL.backoff.minMs),
        maxMs: ms(breaking.backoff?.max, ACCRUAL.backoff.maxMs),
        jitterRatio: ACCRUAL.backoff.jitterRatio,
      },
      respectsRetryAfter: breaking.respectRetryAfter ?? ACCRUAL.respectsRetryAfter,
    };
  if (annotations === null) return null;
  return {
    ...ACCRUAL,
    consecutiveFailures: annotations.consecutiveFailures,
    backoff: {
      minMs: annotations.minPenaltyMs,
      maxMs: annotations.maxPenaltyMs,
      jitterRatio: annotations.jitterRatio,
    },
    respectsRetryAfter: annotations.honorsRetryAfter,
  };
}

function budgetOf(spec: RetryConstraintSpec): RetryBudget {
  const { retryBudget } = BACKEND_TRAFFIC_DEFAULTS;
  return {
    percent: spec.budget?.percent ?? retryBudget.percent,
    intervalMs: ms(spec.budget?.interval, retryBudget.intervalMs),
    floorCount: spec.minRetryRate?.count ?? retryBudget.floorCount,
    floorIntervalMs: ms(spec.minRetryRate?.interval, retryBudget.floorIntervalMs),
  };
}

function ms(text: string | undefined, otherwise: number): number {
  return text === undefined ? otherwise : (durationMs(text) ?? otherwise);
}

function nullIfZero(value: number): number | null {
  return value === 0 ? null : value;
}
