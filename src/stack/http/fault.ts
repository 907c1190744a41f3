import type { Fields } from "#/base/fields.ts";
import type { RequestHead, ResponseHead } from "./exchange.ts";
import { fieldValue } from "#/base/fields.ts";

/** Why a request got no complete answer from an application. Closed; each has an entry in `docs/reference/errors.md`. */
export type FaultCode =
  | "CONNECT_FAILED" // the endpoint's connection could not be made
  | "CONNECT_TIMEOUT" // … in time
  | "NO_ENDPOINTS" // the service has none that is ready
  | "OVERLOADED" // a bound on waiting requests was reached
  | "REFUSED" // the far side gave the request back untouched
  | "RESET" // the connection or stream ended before the answer was complete
  | "PROTOCOL" // the application's answer broke the protocol
  | "BAD_REQUEST" // the client's request did
  | "CANCELLED" // the client went away
  | "NOT_AUTHORIZED"
  | "FORBIDDEN_TARGET" // policy gives this target nowhere to go
  | "TIMEOUT"
  | "UNEXPECTED";

/** One failed request: what happened, whether any application may have seen it, and how to say it in each protocol. */
export interface Fault {
  readonly code: FaultCode;
  /** No byte of the request can have reached an application, so sending it elsewhere is always safe. */
  readonly safe: boolean;
  /** What was tried and what to check, for the person who reads the answer or the log. */
  readonly message: string;
  /** Status to answer with if no head was sent; 0 = by `code`. */
  readonly status: number;
  /** RFC 9113 §7 code that a stream was reset with, to be passed on; -1 when none was. */
  readonly http2Code: number;
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
  options?: { safe?: boolean; status?: number; http2Code?: number },
): Fault {
  return {
    code,
    message,
    safe: options?.safe ?? false,
    status: options?.status ?? 0,
    http2Code: options?.http2Code ?? -1,
  };
}

interface Mapping {
  readonly status: number;
  readonly grpcStatus: number;
  readonly http2Code: number;
  /** Whether an HTTP/1.1 client's connection is wound down after the answer. */
  readonly closes: boolean;
}

/** The one table from fault to answer (Linkerd's: facts §8.4). */
const MAPPINGS: Readonly<Record<FaultCode, Mapping>> = {
  CONNECT_FAILED: { status: 502, grpcStatus: 14, http2Code: Http2Code.REFUSED_STREAM, closes: true },
  CONNECT_TIMEOUT: { status: 504, grpcStatus: 4, http2Code: Http2Code.REFUSED_STREAM, closes: true },
  NO_ENDPOINTS: { status: 503, grpcStatus: 14, http2Code: Http2Code.REFUSED_STREAM, closes: true },
  OVERLOADED: { status: 503, grpcStatus: 14, http2Code: Http2Code.REFUSED_STREAM, closes: true },
  REFUSED: { status: 503, grpcStatus: 14, http2Code: Http2Code.REFUSED_STREAM, closes: false },
  RESET: { status: 502, grpcStatus: 14, http2Code: Http2Code.CANCEL, closes: true },
  PROTOCOL: { status: 502, grpcStatus: 14, http2Code: Http2Code.PROTOCOL_ERROR, closes: true },
  BAD_REQUEST: { status: 400, grpcStatus: 13, http2Code: Http2Code.PROTOCOL_ERROR, closes: true },
  CANCELLED: { status: 499, grpcStatus: 1, http2Code: Http2Code.CANCEL, closes: true },
  NOT_AUTHORIZED: { status: 403, grpcStatus: 7, http2Code: Http2Code.CANCEL, closes: false },
  FORBIDDEN_TARGET: { status: 502, grpcStatus: 14, http2Code: Http2Code.CANCEL, closes: false },
  TIMEOUT: { status: 504, grpcStatus: 4, http2Code: Http2Code.CANCEL, closes: false },
  UNEXPECTED: { status: 500, grpcStatus: 13, http2Code: Http2Code.INTERNAL_ERROR, closes: true },
};

/** The answer that a fault becomes when no head was sent yet, and what becomes of an HTTP/1.1 client's connection. */
export interface Rescue {
  readonly head: ResponseHead;
  readonly closes: boolean;
}

/**
 * Turns a fault into an answer: `l5d-proxy-error` says why, and gRPC callers get a trailers-only reply (facts §8.4).
 * A request counts as gRPC only over HTTP/2 and with its content type.
 */
export function rescue(request: RequestHead | null, cause: Fault): Rescue {
  const mapping = MAPPINGS[cause.code];
  const reason = printable(cause.message);
  const fields: Fields = ["content-length", "0"];
  let status = cause.status === 0 ? mapping.status : cause.status;
  if (request !== null && isGrpc(request)) {
    status = 200;
    fields.push(
      "content-type",
      "application/grpc",
      "grpc-status",
      String(mapping.grpcStatus),
      "grpc-message",
      percentEncode(reason),
    );
  }
  fields.push("l5d-proxy-error", reason);
  return { head: { status, version: "1.1", reason: "", fields }, closes: mapping.closes };
}

/** The RST_STREAM code for a fault after which no answer can be given any more: the far side's own where there is one. */
export function http2CodeOf(cause: Fault): number {
  return cause.http2Code >= 0 ? cause.http2Code : MAPPINGS[cause.code].http2Code;
}

export function isGrpc(request: RequestHead): boolean {
  return (
    request.version === "2" &&
    (fieldValue(request.fields, "content-type") ?? "").startsWith("application/grpc")
  );
}

/** A message as a field value: no control characters, no bytes above ASCII, at most 512 characters. */
function printable(message: string): string {
  return message.slice(0, 512).replace(/[^\x20-\x7e]/g, "?");
}

/** gRPC over HTTP2, "Percent-Encoded": everything but printable ASCII, and '%', is escaped. */
function percentEncode(ascii: string): string {
  return ascii.replaceAll("%", "%25");
}
