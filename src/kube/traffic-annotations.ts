import { durationMs } from "./duration.ts";

/**
 * Linkerd's annotations on Services, HTTPRoutes and GRPCRoutes. On a route they count for its rules; on a Service for the
 * routes that say nothing themselves, and for requests that no route is there for.
 */
export interface TrafficAnnotations {
  readonly timeouts: {
    readonly requestMs?: number;
    readonly responseMs?: number;
    readonly idleMs?: number;
  };
  readonly retry: RetryAnnotations | null;
  readonly accrual: AccrualAnnotations | null;
  /** Whether a request's own `l5d-timeout` and `l5d-retry-…` headers count; null: nothing is said. */
  readonly allowsRequestHeaders: boolean | null;
}

export interface RetryAnnotations {
  readonly statusRanges: readonly (readonly [from: number, to: number])[];
  readonly grpcCodes: readonly number[];
  readonly limit: number;
  readonly timeoutMs: number | null;
}

export interface AccrualAnnotations {
  readonly consecutiveFailures: number;
  readonly minPenaltyMs: number;
  readonly maxPenaltyMs: number;
  readonly jitterRatio: number;
  readonly honorsRetryAfter: boolean;
}

type Raw = Readonly<Record<string, string>>;

/** Whether an annotation says how traffic is treated, or would. */
export function isTrafficAnnotation(key: string): boolean {
  return (
    key === ALLOW_REQUEST_HEADERS || /^(retry|timeout|balancer|balancer\.alpha)\.linkerd\.io\//.test(key)
  );
}

/** What is wrong with an annotation that would say how traffic is treated; null when nothing is, or when it is no such. */
export function checkTrafficAnnotation(key: string, value: string, kind: string): string | null {
  if (!isTrafficAnnotation(key)) return null;
  const check = Object.hasOwn(CHECKS, key) ? CHECKS[key] : undefined;
  if (check === undefined)
    return `is not honoured: it would have no effect; remove it (honoured here: ${Object.keys(CHECKS).join(", ")})`;
  const kinds = key.startsWith("balancer.") ? ["Service"] : ["Service", "HTTPRoute", "GRPCRoute"];
  if (!kinds.includes(kind)) return `has no effect on a ${kind}; move it to a ${kinds.join(", ")}`;
  return check(value);
}

/** Of annotations that passed `checkTrafficAnnotation`. */
export function trafficAnnotations(raw: Raw | undefined): TrafficAnnotations {
  const timeouts: { requestMs?: number; responseMs?: number; idleMs?: number } = {};
  for (const name of ["request", "response", "idle"] as const) {
    const value = raw?.[`timeout.linkerd.io/${name}`];
    if (value !== undefined) timeouts[`${name}Ms`] = durationMs(value)!;
  }
  const allows = raw?.[ALLOW_REQUEST_HEADERS];
  return {
    timeouts,
    retry: retryOf(raw ?? {}),
    accrual: accrualOf(raw ?? {}),
    allowsRequestHeaders: allows === undefined ? null : allows === "true",
  };
}

function retryOf(raw: Raw): RetryAnnotations | null {
  const http = raw["retry.linkerd.io/http"];
  const grpc = raw["retry.linkerd.io/grpc"];
  if (http === undefined && grpc === undefined) return null;
  const timeout = raw["retry.linkerd.io/timeout"];
  return {
    statusRanges: http === undefined ? [] : parseStatuses(http)!,
    grpcCodes: grpc === undefined ? [] : parseGrpcCodes(grpc)!,
    limit: Number(raw["retry.linkerd.io/limit"] ?? 1),
    timeoutMs: timeout === undefined ? null : durationMs(timeout),
  };
}

function accrualOf(raw: Raw): AccrualAnnotations | null {
  if (raw["balancer.linkerd.io/failure-accrual"] !== "consecutive") return null;
  const of = (name: string): string | undefined =>
    raw[`balancer.linkerd.io/failure-accrual-consecutive-${name}`];
  const min = of("min-penalty");
  const max = of("max-penalty");
  return {
    consecutiveFailures: Number(of("max-failures") ?? 7),
    minPenaltyMs: min === undefined ? 1000 : durationMs(min)!,
    maxPenaltyMs: max === undefined ? 60_000 : durationMs(max)!,
    jitterRatio: Number(of("jitter-ratio") ?? 0.5),
    honorsRetryAfter: raw[HONOR_RETRY_AFTER] === "true",
  };
}

const ALLOW_REQUEST_HEADERS = "config.pillion.dev/allow-request-headers";
const HONOR_RETRY_AFTER = "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after";

/** "5xx,429,502-504" and "gateway-error" (502 to 504); null when it is no such list. */
function parseStatuses(text: string): (readonly [number, number])[] | null {
  const out: (readonly [number, number])[] = [];
  for (const word of text.split(",").map((part) => part.trim())) {
    const match = /^([1-5]\d\d)(?:-([1-5]\d\d))?$/.exec(word);
    const from = Number(match?.[1]);
    const to = Number(match?.[2] ?? match?.[1]);
    if (word === "5xx") out.push([500, 599]);
    else if (word === "gateway-error") out.push([502, 504]);
    else if (match === null || from > to) return null;
    else out.push([from, to]);
  }
  return out;
}

const GRPC_CODES: Readonly<Record<string, number>> = {
  cancelled: 1,
  "deadline-exceeded": 4,
  "resource-exhausted": 8,
  internal: 13,
  unavailable: 14,
};

function parseGrpcCodes(text: string): number[] | null {
  const out: number[] = [];
  for (const word of text.split(",").map((part) => part.trim())) {
    if (!Object.hasOwn(GRPC_CODES, word)) return null;
    out.push(GRPC_CODES[word]!);
  }
  return out;
}

const DURATION = (value: string): string | null =>
  durationMs(value) === null ? "must be a duration such as 500ms or 10s" : null;
const BOOLEAN = (value: string): string | null =>
  value === "true" || value === "false" ? null : "must be true or false";
const COUNT = (value: string): string | null =>
  /^[1-9]\d{0,4}$/.test(value) && Number(value) < 65_536 ? null : "must be a number from 1 to 65,535";

const CHECKS: Readonly<Record<string, (value: string) => string | null>> = {
  "retry.linkerd.io/http": (value) =>
    parseStatuses(value) === null ? "must list statuses: 5xx, gateway-error, 429, 502-504" : null,
  "retry.linkerd.io/grpc": (value) =>
    parseGrpcCodes(value) === null ? `must list codes of ${Object.keys(GRPC_CODES).join(", ")}` : null,
  "retry.linkerd.io/limit": COUNT,
  "retry.linkerd.io/timeout": DURATION,
  "timeout.linkerd.io/request": DURATION,
  "timeout.linkerd.io/response": DURATION,
  "timeout.linkerd.io/idle": DURATION,
  "balancer.linkerd.io/failure-accrual": (value) =>
    value === "consecutive" ? null : 'only "consecutive" is known; for a success rate write a TrafficPolicy',
  "balancer.linkerd.io/failure-accrual-consecutive-max-failures": COUNT,
  "balancer.linkerd.io/failure-accrual-consecutive-min-penalty": DURATION,
  "balancer.linkerd.io/failure-accrual-consecutive-max-penalty": DURATION,
  "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio": (value) =>
    /^\d+(\.\d+)?$/.test(value) && Number(value) <= 100 ? null : "must be a number from 0 to 100",
  [HONOR_RETRY_AFTER]: BOOLEAN,
  [ALLOW_REQUEST_HEADERS]: BOOLEAN,
};
