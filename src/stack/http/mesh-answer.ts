import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";
import { latin1Bytes } from "#/wire/latin1.ts";
import { encodeGrpcText, grpcStatusOfReset } from "#/wire/grpc.ts";
import type { RequestHead, ResponseHead } from "./exchange.ts";
import type { Fault, FaultCode } from "./fault.ts";
import { Http2Code } from "./fault.ts";

/** The sidecar that gives an answer in an application's place. */
export interface Answerer {
  readonly side: "client" | "server";
  /** "pod.namespace"; "" where it is not known. */
  readonly workload: string;
}

export const UNNAMED: Answerer = { side: "server", workload: "" };

/** What a client is told of a fault, whatever it speaks. Made where the fault happened, and passed on as it is. */
export interface Explanation {
  readonly status: number;
  readonly grpcStatus: number;
  /** One line of printable ASCII: which side, what happened, by which rule, what to check. */
  readonly line: string;
  /** The same for programs: one member of Proxy-Status (RFC 9209). */
  readonly proxyStatus: string;
  /** As in the fault; absent: -1. */
  readonly retryAfterMs?: number;
  /** As in the fault. */
  readonly answerFields?: Fields;
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
  NO_ENDPOINTS: { status: 504, grpcStatus: 4, http2Code: Http2Code.REFUSED_STREAM, closes: true },
  OVERLOADED: { status: 503, grpcStatus: 14, http2Code: Http2Code.REFUSED_STREAM, closes: true },
  RATE_LIMITED: { status: 429, grpcStatus: 8, http2Code: Http2Code.ENHANCE_YOUR_CALM, closes: false },
  SHED: { status: 503, grpcStatus: 14, http2Code: Http2Code.REFUSED_STREAM, closes: false },
  FAULT_INJECTED: { status: 503, grpcStatus: 14, http2Code: Http2Code.INTERNAL_ERROR, closes: false },
  REFUSED: { status: 502, grpcStatus: 14, http2Code: Http2Code.REFUSED_STREAM, closes: true },
  // No CANCEL, nor for a timeout: some clients, Node's for one, take it for an end without an error.
  RESET: { status: 502, grpcStatus: 14, http2Code: Http2Code.INTERNAL_ERROR, closes: true },
  PROTOCOL: { status: 502, grpcStatus: 14, http2Code: Http2Code.PROTOCOL_ERROR, closes: true },
  BAD_REQUEST: { status: 400, grpcStatus: 13, http2Code: Http2Code.PROTOCOL_ERROR, closes: true },
  CANCELLED: { status: 499, grpcStatus: 1, http2Code: Http2Code.CANCEL, closes: true },
  NOT_AUTHORIZED: { status: 403, grpcStatus: 7, http2Code: Http2Code.CANCEL, closes: false },
  AMBIGUOUS_PATH: { status: 400, grpcStatus: 3, http2Code: Http2Code.CANCEL, closes: false },
  TOKEN_MISSING: { status: 401, grpcStatus: 16, http2Code: Http2Code.CANCEL, closes: false },
  TOKEN_INVALID: { status: 401, grpcStatus: 16, http2Code: Http2Code.CANCEL, closes: false },
  FORBIDDEN_TARGET: { status: 502, grpcStatus: 14, http2Code: Http2Code.CANCEL, closes: true },
  TIMEOUT: { status: 504, grpcStatus: 4, http2Code: Http2Code.INTERNAL_ERROR, closes: false },
  // Gateway API: HTTPRouteRule and GRPCRouteRule say which.
  NO_ROUTE: { status: 404, grpcStatus: 12, http2Code: Http2Code.CANCEL, closes: false },
  NO_BACKEND: { status: 500, grpcStatus: 14, http2Code: Http2Code.CANCEL, closes: false },
  UNEXPECTED: { status: 500, grpcStatus: 13, http2Code: Http2Code.INTERNAL_ERROR, closes: true },
};

/** By code: the error type of RFC 9209 §2.3, and what the reader is to look at. */
const REASONS: Readonly<Record<FaultCode, readonly [proxyError: string, check: string]>> = {
  CONNECT_FAILED: [
    "destination_unavailable",
    "that the program runs and listens on the Service's targetPort",
  ],
  CONNECT_TIMEOUT: ["connection_timeout", "whether the pod is overloaded or its machine away"],
  NO_ENDPOINTS: [
    "destination_unavailable",
    "that the service's pods are ready and its selector matches them",
  ],
  OVERLOADED: ["connection_limit_reached", "whether the service is slower than its callers"],
  RATE_LIMITED: ["http_request_denied", "the limit of the rule, and who sends so much"],
  SHED: ["connection_limit_reached", "whether the workload has the replicas and CPU that its load needs"],
  FAULT_INJECTED: ["proxy_internal_response", "the FaultPolicy, which wants this"],
  REFUSED: ["destination_unavailable", "whether the far pod is ending, or over its limit of streams"],
  RESET: ["connection_terminated", "the application's log at this moment: did it crash, or close early?"],
  PROTOCOL: ["http_protocol_error", "the application: its answer is not valid"],
  BAD_REQUEST: ["http_request_error", "the client: its request is not valid"],
  CANCELLED: ["http_request_error", "the client's own timeout"],
  NOT_AUTHORIZED: ["http_request_denied", "the policy of the port, and the client's service account"],
  AMBIGUOUS_PATH: ["http_request_error", "how the client writes the path"],
  TOKEN_MISSING: ["http_request_denied", "whether the client sends a token, and in which header"],
  TOKEN_INVALID: ["http_request_denied", "the client's token, and the JwtPolicy"],
  FORBIDDEN_TARGET: ["destination_ip_prohibited", "the route or egress policy of the target"],
  NO_ROUTE: ["destination_not_found", "the matches of the routes that are attached to the Service or Server"],
  NO_BACKEND: [
    "destination_unavailable",
    "the backendRefs of the rule: do they exist, with this port and a weight?",
  ],
  TIMEOUT: ["http_response_timeout", "the timeout of the route, and what the application waits for"],
  UNEXPECTED: ["proxy_internal_error", "the sidecar's log, and report this"],
};

/** A fault in the words of `by`; in those of the far sidecar where it was that one's. */
export function explain(cause: Fault, by: Answerer): Explanation {
  const { answerFields } = cause;
  if (cause.explanation !== null)
    return answerFields === undefined ? cause.explanation : { ...cause.explanation, answerFields };
  const mapping = MAPPINGS[cause.code];
  const [proxyError, check] = REASONS[cause.code];
  const message = printable(cause.message, MESSAGE_CHARS_MAX);
  const rule = printable(cause.rule, RULE_CHARS_MAX);
  const who = by.workload === "" ? `${by.side}'s sidecar` : `${by.side}'s sidecar (${by.workload})`;
  const why = rule === "" ? message : `${message} [${rule}]`;
  // RFC 9651 §3.1.2: a parameter without a value is true. It comes first, so that the other sidecar finds it there.
  let proxyStatus = cause.safe ? UNSEEN : PROXY_NAME;
  proxyStatus += `;error=${cause.proxyError === "" ? proxyError : cause.proxyError}`;
  proxyStatus += `;pillion-code=${cause.code};pillion-side=${by.side}`;
  if (by.workload !== "") proxyStatus += `;pillion-workload=${quoted(by.workload)}`;
  if (rule !== "") proxyStatus += `;pillion-rule=${quoted(rule)}`;
  return {
    status: cause.status === 0 ? mapping.status : cause.status,
    grpcStatus: grpcStatusOf(cause),
    line: `${who}: ${why}; check ${check} (${cause.code})`,
    proxyStatus: `${proxyStatus};details=${quoted(message)}`,
    retryAfterMs: cause.retryAfterMs,
    ...(answerFields === undefined ? {} : { answerFields }),
  };
}

function grpcStatusOf(cause: Fault): number {
  if (cause.grpcStatus >= 0) return cause.grpcStatus;
  return isRemoteReset(cause) ? grpcStatusOfReset(cause.http2Code) : MAPPINGS[cause.code].grpcStatus;
}

/** An answer in an application's place. */
export interface MeshAnswer {
  readonly head: ResponseHead;
  /** The line for who accepts text; null for others. */
  readonly body: Uint8Array | null;
}

/**
 * The answer that a fault becomes when no head was sent yet. gRPC callers get a trailers-only reply (facts §8.4), clients
 * that accept text the line as a body. `request` is null when it could not be read. `isUnseen`: for the client's sidecar,
 * which may send the request elsewhere, and else gives the line to its client; always without a body.
 */
export function meshAnswer(
  request: RequestHead | null,
  explanation: Explanation,
  isUnseen: boolean = false,
): MeshAnswer {
  const isCall = request !== null && isGrpc(request);
  const hasText = !isUnseen && !isCall && (request === null || acceptsText(request));
  const body = hasText ? latin1Bytes(`${explanation.line}\n`) : null;
  const fields: Fields = ["content-length", String(body?.length ?? 0)];
  if (hasText) fields.push("content-type", "text/plain; charset=utf-8");
  if (isCall) fields.push("content-type", GRPC, ...grpcTrailers(explanation));
  const { retryAfterMs = -1 } = explanation;
  if (retryAfterMs >= 0) {
    // Whole seconds, and not too early.
    fields.push("retry-after", String(Math.ceil(retryAfterMs / 1000)));
    if (isCall) fields.push("grpc-retry-pushback-ms", String(Math.ceil(retryAfterMs)));
  }
  fields.push("l5d-proxy-error", explanation.line, "proxy-status", explanation.proxyStatus);
  if (explanation.answerFields !== undefined) fields.push(...explanation.answerFields);
  return { head: { status: isCall ? 200 : explanation.status, version: "1.1", reason: null, fields }, body };
}

/** The same of a request of which an earlier attempt may have been seen: it no longer says that to repeat it is safe. */
export function asSeen(cause: Fault): Fault {
  if (!cause.safe) return cause;
  const { explanation } = cause;
  if (explanation === null) return { ...cause, safe: false };
  const proxyStatus = explanation.proxyStatus.replace(UNSEEN, PROXY_NAME);
  return { ...cause, safe: false, explanation: { ...explanation, proxyStatus } };
}

/** Reads an unseen answer as it arrives from a far sidecar; null for any other. */
export function readUnseen(fields: Fields): Explanation | null {
  // Only a sidecar's own answers have this field: applications' are stripped of it.
  const line = fieldValue(fields, "l5d-proxy-error");
  if (line === null) return null;
  const proxyStatus = fieldValue(fields, "proxy-status") ?? "";
  if (!proxyStatus.startsWith(UNSEEN)) return null;
  const grpcStatus = Number(fieldValue(fields, "grpc-status") ?? 14);
  return { status: Number(fieldValue(fields, ":status")), grpcStatus, line, proxyStatus };
}

/** What ends a gRPC answer that broke off. */
export function grpcTrailers(explanation: Explanation): Fields {
  return ["grpc-status", String(explanation.grpcStatus), "grpc-message", encodeGrpcText(explanation.line)];
}

/** Whether an HTTP/1.1 client's connection is wound down after the answer to this fault. */
export function closesAfter(cause: Fault): boolean {
  return MAPPINGS[cause.code].closes;
}

/** The RST_STREAM code for a fault after which no answer can be given any more: the far side's own where there is one. */
export function http2CodeOf(cause: Fault): number {
  return cause.http2Code >= 0 ? cause.http2Code : MAPPINGS[cause.code].http2Code;
}

/**
 * Over HTTP/2 and of its content type (facts §8.4). gRPC-Web is not: its clients read HTTP's status, and its trailers lie in
 * the body.
 */
export function isGrpc(request: Pick<RequestHead, "version" | "fields">): boolean {
  return request.version === "2" && isGrpcType(fieldValue(request.fields, "content-type"));
}

export function isGrpcType(contentType: string | null): boolean {
  if (contentType === null || !contentType.startsWith(GRPC)) return false;
  const next = contentType.charAt(GRPC.length);
  return next === "" || next === "+" || next === ";";
}

/** A stream that the far side reset, with a code that tells more than ours would. */
function isRemoteReset(cause: Fault): boolean {
  return cause.code === "RESET" && cause.http2Code >= 0;
}

/** RFC 9110 §12.5.1: no Accept means anything. A quality of 0 takes a type out. */
function acceptsText({ method, fields }: RequestHead): boolean {
  if (method === "HEAD") return false;
  let hasAccept = false;
  for (let i = 0; i < fields.length; i += 2) {
    if ((fields[i] as string).toLowerCase() !== "accept") continue;
    hasAccept = true;
    for (const range of (fields[i + 1] as string).toLowerCase().split(","))
      if (TEXT.test(range) && !QUALITY_ZERO.test(range)) return true;
  }
  return !hasAccept;
}

/** A field value without control characters or bytes above ASCII. */
function printable(text: string, charsMax: number): string {
  return text.slice(0, charsMax).replace(/[^\x20-\x7e]/g, "?");
}

/** RFC 9651 §3.3.3 of printable ASCII. */
function quoted(ascii: string): string {
  return `"${ascii.replace(/["\\]/g, "\\$&")}"`;
}

const GRPC = "application/grpc";
const TEXT = /^\s*(?:text\/plain|text\/\*|\*\/\*)\s*(?:;|$)/;
const QUALITY_ZERO = /;\s*q=0(?:\.0*)?\s*(?:;|$)/;
const PROXY_NAME = "pillion";
const UNSEEN = `${PROXY_NAME};pillion-unseen`;
const MESSAGE_CHARS_MAX = 512;
const RULE_CHARS_MAX = 128;
