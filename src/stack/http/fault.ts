import type { Fields } from "#/base/fields.ts";
import type { Explanation } from "./mesh-answer.ts";

/** Why a request got no complete answer from an application. Closed; each has an entry in `docs/reference/errors.md`. */
export type FaultCode =
  | "CONNECT_FAILED" // the endpoint's connection could not be made
  | "CONNECT_TIMEOUT" // … in time
  | "NO_ENDPOINTS" // the service has none that is ready
  | "OVERLOADED" // a bound on waiting requests was reached
  | "RATE_LIMITED" // a rate limit of the workload was reached
  | "SHED" // the workload has as many requests as it can serve well
  | "FAULT_INJECTED" // policy wants the request to fail
  | "REFUSED" // the far side gave the request back untouched
  | "RESET" // the connection or stream ended before the answer was complete
  | "PROTOCOL" // the application's answer broke the protocol
  | "BAD_REQUEST" // the client's request did
  | "CANCELLED" // the client went away
  | "NOT_AUTHORIZED"
  | "TOKEN_MISSING" // policy asks for a token, and the request has none
  | "TOKEN_INVALID" // its token is not good, or there are several
  | "AMBIGUOUS_PATH" // policy tells paths apart, and servers read this one in several ways
  | "FORBIDDEN_TARGET" // policy gives this target nowhere to go
  | "NO_ROUTE" // the target has routes, and none takes the request
  | "NO_BACKEND" // the rule that takes it leads nowhere, or to nothing valid
  | "TIMEOUT"
  | "UNEXPECTED";

/** One failed request: what happened, whether any application may have seen it, and how to say it in each protocol. */
export interface Fault {
  readonly code: FaultCode;
  /**
   * Sending it elsewhere is safe: no byte of the request can have reached an application, or it may be repeated by its method
   * (RFC 9110 §9.2.2) and was lost with a connection that was over, or dead, before it.
   */
  readonly safe: boolean;
  /** What happened, for the person who reads the answer or the log. What to check is added by code (`mesh-answer.ts`). */
  readonly message: string;
  /** The policy, limit or clause that decided; "" where none did. */
  readonly rule: string;
  /** Status to answer with if no head was sent; 0 = by `code`. */
  readonly status: number;
  /** As `status`, for gRPC callers; -1 = by `code`. */
  readonly grpcStatus: number;
  /** When asking again may help, told to the client (RFC 9110 §10.2.3, gRPC A6); -1 where nobody knows. */
  readonly retryAfterMs: number;
  /** The client's stream or connection is cut, whatever it speaks and although an answer could still be given. */
  readonly cuts: boolean;
  /** RFC 9113 §7 code that a stream was reset with, to be passed on; -1 when none was. */
  readonly http2Code: number;
  /** RFC 9209 §2.3 type where it is known better than by `code`; "" otherwise. */
  readonly proxyError: string;
  /** What the far sidecar, whose fault this was first, says of it; null when it is our own. */
  readonly explanation: Explanation | null;
  /** Further fields of the answer; absent from nearly all. */
  readonly answerFields?: Fields;
}

/** RFC 9113 §7, those that faults map to. */
export const Http2Code = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  ENHANCE_YOUR_CALM: 11,
} as const;

export function fault(
  code: FaultCode,
  message: string,
  options?: Partial<Omit<Fault, "code" | "message">>,
): Fault {
  return {
    code,
    message,
    safe: options?.safe ?? false,
    rule: options?.rule ?? "",
    status: options?.status ?? 0,
    grpcStatus: options?.grpcStatus ?? -1,
    retryAfterMs: options?.retryAfterMs ?? -1,
    cuts: options?.cuts ?? false,
    http2Code: options?.http2Code ?? -1,
    proxyError: options?.proxyError ?? "",
    explanation: options?.explanation ?? null,
  };
}
