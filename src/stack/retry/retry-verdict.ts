import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type { Backoff, RetryPolicy } from "#/model/route.ts";
import { grpcStatusOfHttp, parseGrpcStatus } from "#/wire/grpc.ts";
import type { Fault, FaultCode } from "../http/fault.ts";
import { explain, UNNAMED } from "../http/mesh-answer.ts";
import { retryAfterMs } from "../http/retry-after.ts";

/** Ends that another attempt cannot better: the client's own, and bounds that it would meet again. */
const FINAL: ReadonlySet<FaultCode> = new Set([
  "BAD_REQUEST",
  "CANCELLED",
  "FAULT_INJECTED",
  "FORBIDDEN_TARGET",
  "NO_BACKEND",
  "NO_ROUTE",
  "NOT_AUTHORIZED",
  "OVERLOADED",
  "UNEXPECTED",
]);
const CONNECTION: ReadonlySet<FaultCode> = new Set(["CONNECT_FAILED", "CONNECT_TIMEOUT", "REFUSED", "RESET"]);

/** Whether the policy has an answer with this head sent again. `isCall`: of a gRPC call. */
export function isRetryableAnswer(
  policy: RetryPolicy,
  isCall: boolean,
  status: number,
  fields: Fields,
): boolean {
  if (isInRanges(policy, status)) return true;
  if (policy.onConnectionError && (isCall || status >= 500) && isLostBehind(fields)) return true;
  if (!isCall || policy.grpcCodes.length === 0) return false;
  const code = grpcStatusIn(fields);
  return policy.grpcCodes.includes(code ?? (status === 200 ? 0 : grpcStatusOfHttp(status)));
}

export function isRetryableTrailers(policy: RetryPolicy, trailers: Fields): boolean {
  return policy.grpcCodes.includes(grpcStatusIn(trailers) ?? 0);
}

/** Whether a gRPC answer's code is still to come: its head says nothing, and the policy would want to know. */
export function awaitsTrailers(policy: RetryPolicy, status: number, fields: Fields): boolean {
  return policy.grpcCodes.length > 0 && status === 200 && fieldValue(fields, "grpc-status") === null;
}

/** Whether the policy has an attempt without an answer sent again. An attempt's timeout always is, for that is what it is for. */
export function isRetryableFault(policy: RetryPolicy, isCall: boolean, cause: Fault): boolean {
  if (cause.code === "TIMEOUT") return true;
  if (FINAL.has(cause.code)) return false;
  if (policy.onConnectionError && CONNECTION.has(cause.code)) return true;
  const { status, grpcStatus } = explain(cause, UNNAMED);
  return isInRanges(policy, status) || (isCall && policy.grpcCodes.includes(grpcStatus));
}

/**
 * How long the server asks to be left alone: `Retry-After` (RFC 9110 §10.2.3), or for gRPC `grpc-retry-pushback-ms` (gRFC A6).
 * 0: it says nothing. Infinity: it does not want to be asked again.
 */
export function hintMs(policy: RetryPolicy, isCall: boolean, fields: Fields, wallMs: number): number {
  const pushback = isCall ? fieldValue(fields, "grpc-retry-pushback-ms") : null;
  if (pushback !== null) {
    // gRFC A6: negative or unreadable means no retry.
    if (!/^\d{1,10}$/.test(pushback)) return Infinity;
    return policy.respectsRetryAfter ? Number(pushback) : 0;
  }
  if (!policy.respectsRetryAfter) return 0;
  return retryAfterMs(fields, wallMs);
}

/** Before the `retry`-th retry, from 1: doubled each time up to the bound, and a share at random, so that many do not come at once. */
export function backoffMs({ minMs, maxMs, jitterRatio }: Backoff, retry: number, random: number): number {
  const base = Math.min(minMs * 2 ** Math.min(retry - 1, 30), Math.max(minMs, maxMs));
  return base * (1 + jitterRatio * random);
}

/** A far sidecar says that it has no answer because of its connection to the application. Nobody else can say so (decision 7). */
function isLostBehind(fields: Fields): boolean {
  if (fieldValue(fields, "l5d-proxy-error") === null) return false;
  const code = /^pillion;.*;pillion-code=([A-Z_]+)/.exec(fieldValue(fields, "proxy-status") ?? "")?.[1];
  return CONNECTION.has(code as FaultCode);
}

function isInRanges(policy: RetryPolicy, status: number): boolean {
  for (const [from, to] of policy.statusRanges) if (status >= from && status <= to) return true;
  return false;
}

function grpcStatusIn(fields: Fields): number | null {
  const value = fieldValue(fields, "grpc-status");
  return value === null ? null : parseGrpcStatus(value);
}
