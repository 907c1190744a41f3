import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import type { SessionPersistence } from "#/model/traffic.ts";
import { parseGrpcStatus } from "#/wire/grpc.ts";
import type { Balancer, Member } from "../balance/balancer.ts";
import { isFailedAnswer } from "./classify.ts";
import type { RequestHead, ResponseHead } from "./exchange.ts";
import type { Fault, FaultCode } from "./fault.ts";
import { isGrpc } from "./mesh-answer.ts";
import { pauseAskedMs } from "./retry-after.ts";

/** One attempt at one endpoint, and the time at which something became of it. */
export interface Attempted<T> {
  readonly balancer: Balancer<T>;
  readonly member: Member<T>;
  readonly request: RequestHead;
  readonly startedAtMs: number;
  /** Of the request's rule. */
  readonly persistence: SessionPersistence | null;
}

const RESOURCE_EXHAUSTED = 8;

/**
 * Tells the balancer what an answer's head says of its endpoint. `last`: nothing follows. Gives the head to pass on: the same, or one
 * that begins a session.
 */
export function reportHead<T>(
  of: Attempted<T>,
  head: ResponseHead,
  last: boolean,
  nowMs: number,
  wallMs: number,
): ResponseHead {
  const { balancer, member, request, startedAtMs, persistence } = of;
  const { status, fields } = head;
  const isFailure = status >= 500;
  balancer.observe(member, nowMs - startedAtMs, isFailure, nowMs);
  // A trailers-only reply has its status in the head.
  const isWholeCall = last && status === 200 && request.version === "2" && isGrpc(request);
  if (isWholeCall) reportCall(of, fields, nowMs, wallMs);
  const { accrual } = balancer.traffic;
  if (status === 429 || isFailure) {
    const pauseMs = pauseAskedMs(fields, wallMs);
    if (status === 429 || pauseMs > 0) balancer.overloaded(member, pauseMs, nowMs);
    if (accrual !== null) balancer.answered(member, isFailure, startedAtMs, pauseMs, nowMs);
  } else if (accrual !== null && !isWholeCall) {
    if (isGrpc(request)) balancer.begunWell(member, startedAtMs);
    else balancer.answered(member, false, startedAtMs, 0, nowMs);
  }
  if (persistence === null || isFailure) return head;
  const withToken = balancer.sessionBegun(request.fields, fields, member, persistence);
  return withToken === null ? head : { ...head, fields: withToken };
}

/** … and what its trailers say. */
export function reportTrailers<T>(of: Attempted<T>, trailers: Fields, nowMs: number, wallMs: number): void {
  if (isGrpc(of.request)) reportCall(of, trailers, nowMs, wallMs);
}

function reportCall<T>(of: Attempted<T>, fields: Fields, nowMs: number, wallMs: number): void {
  const { balancer, member, startedAtMs } = of;
  const grpcStatus = parseGrpcStatus(fieldValue(fields, "grpc-status") ?? "");
  if (grpcStatus === null) return;
  const isFailure = isFailedAnswer(200, grpcStatus);
  const pauseMs = isFailure || grpcStatus === RESOURCE_EXHAUSTED ? pauseAskedMs(fields, wallMs) : 0;
  if (grpcStatus === RESOURCE_EXHAUSTED || pauseMs > 0) balancer.overloaded(member, pauseMs, nowMs);
  balancer.answered(member, isFailure, startedAtMs, pauseMs, nowMs);
}

/** … and what its failing to answer, or to answer in time, says. */
export function reportFault<T>(of: Attempted<T>, cause: Fault, nowMs: number): void {
  const { balancer, member, startedAtMs } = of;
  if (cause.code === "CONNECT_FAILED" || cause.code === "CONNECT_TIMEOUT")
    balancer.connectFailed(member, nowMs);
  else if (isOfEndpoint(cause)) balancer.answered(member, true, startedAtMs, 0, nowMs);
}

/** A far sidecar that cannot reach its application speaks of its endpoint, a stream given back on a connection that ends does not. */
function isOfEndpoint({ code, safe, explanation }: Fault): boolean {
  return explanation !== null || (!safe && ENDPOINT_FAULTS.has(code));
}

const ENDPOINT_FAULTS: ReadonlySet<FaultCode> = new Set(["RESET", "PROTOCOL", "TIMEOUT", "UNEXPECTED"]);
