import type { PolicySource } from "#/model/policy.ts";
import type {
  Cors,
  FaultAction,
  FieldMatch,
  HeaderChange,
  HttpFilter,
  PathChange,
  Ratio,
} from "#/model/route.ts";
import { pathProblem } from "#/stack/route/path-change.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import { decodeBackend } from "./decode-backend.ts";
import { decodeDurationMs, decodeSource, NO_SOURCE } from "./decode-common.ts";
import { decodeHeader } from "./decode-match.ts";

/** One of our own filters, and where it stands among all of the rule or backend. */
export interface PlacedFilter {
  readonly filter: HttpFilter;
  readonly position: number;
}

/** Both lists as one: each of ours at its place, the standard ones around them in their order. */
export function mergeFilters(
  standard: readonly HttpFilter[],
  placed: readonly PlacedFilter[],
): readonly HttpFilter[] {
  if (placed.length === 0) return standard;
  const all: HttpFilter[] = [];
  const rest = standard.values();
  for (const { filter, position } of placed.toSorted((a, b) => a.position - b.position)) {
    while (all.length < position) {
      const { value } = rest.next();
      if (value === undefined) break;
      all.push(value);
    }
    all.push(filter);
  }
  return [...all, ...rest];
}

/** `outbound.HttpRoute.Filter`. A kind that is not known might be a restriction, so the policy cannot be followed. */
export function decodeHttpFilter(reader: ProtoReader): HttpFilter {
  let filter: HttpFilter | null = null;
  while (reader.next()) {
    if (reader.field === 1) filter = decodeHttpFailure(reader.part());
    else if (reader.field === 2) filter = { kind: "request-headers", change: decodeChange(reader.part()) };
    else if (reader.field === 3) filter = decodeRedirect(reader.part());
    else if (reader.field === 4) filter = { kind: "response-headers", change: decodeChange(reader.part()) };
  }
  return known(filter, reader);
}

/** `outbound.GrpcRoute.Filter`. */
export function decodeRpcFilter(reader: ProtoReader): HttpFilter {
  let filter: HttpFilter | null = null;
  while (reader.next()) {
    if (reader.field === 1) filter = decodeRpcFailure(reader.part());
    else if (reader.field === 2) filter = { kind: "request-headers", change: decodeChange(reader.part()) };
  }
  return known(filter, reader);
}

/** `outbound.ExtensionFilter`. */
export function decodeExtensionFilter(reader: ProtoReader): PlacedFilter {
  let filter: HttpFilter | null = null;
  let position = 0;
  while (reader.next()) {
    if (reader.field === 1) filter = decodeRewrite(reader.part());
    else if (reader.field === 2) filter = decodeMirror(reader.part());
    else if (reader.field === 3) filter = { kind: "cors", cors: decodeCors(reader.part()) };
    else if (reader.field === 4) filter = decodeFault(reader.part());
    else if (reader.field === 5) filter = { kind: "response-headers", change: decodeChange(reader.part()) };
    else if (reader.field === 6) position = reader.uint();
  }
  return { filter: known(filter, reader), position };
}

const REFUSING: HttpFilter = {
  kind: "fail",
  status: 500,
  grpcStatus: -1,
  message: "the policy cannot be followed",
  ratio: { numerator: 1, denominator: 1 },
};

function known(filter: HttpFilter | null, reader: ProtoReader): HttpFilter {
  if (filter === null) reader.reject("a filter of no known kind");
  return filter ?? REFUSING;
}

/** A failure injector without a ratio hits every request. */
const ALWAYS: Ratio = { numerator: 1, denominator: 1 };

function decodeHttpFailure(reader: ProtoReader): HttpFilter {
  let status = 0;
  let grpcStatus = -1;
  let message = "";
  let ratio = ALWAYS;
  while (reader.next()) {
    if (reader.field === 1) status = reader.uint();
    else if (reader.field === 2) message = reader.text();
    else if (reader.field === 3) ratio = decodeRatio(reader.part());
    else if (reader.field === 10_000) grpcStatus = reader.uint();
  }
  return { kind: "fail", status, grpcStatus, message, ratio };
}

function decodeRpcFailure(reader: ProtoReader): HttpFilter {
  let status = 200;
  let grpcStatus = 0;
  let message = "";
  let ratio = ALWAYS;
  while (reader.next()) {
    if (reader.field === 1) grpcStatus = reader.uint();
    else if (reader.field === 2) message = reader.text();
    else if (reader.field === 3) ratio = decodeRatio(reader.part());
    else if (reader.field === 10_000) status = reader.uint();
  }
  return { kind: "fail", status, grpcStatus, message, ratio };
}

export function decodeRatio(reader: ProtoReader): Ratio {
  let numerator = 0;
  let denominator = 0;
  while (reader.next()) {
    if (reader.field === 1) numerator = reader.uint();
    else if (reader.field === 2) denominator = reader.uint();
  }
  return { numerator, denominator };
}

/** `RequestHeaderModifier` and `ResponseHeaderModifier`. */
function decodeChange(reader: ProtoReader): HeaderChange {
  let add: HeaderChange["add"] = [];
  let set: HeaderChange["set"] = [];
  const remove: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) add = decodeHeaders(reader.part());
    else if (reader.field === 2) set = decodeHeaders(reader.part());
    else if (reader.field === 3) remove.push(reader.text());
  }
  return { add, set, remove };
}

function decodeHeaders(reader: ProtoReader): HeaderChange["add"] {
  const headers: (readonly [string, string])[] = [];
  while (reader.next()) {
    if (reader.field !== 1) continue;
    const header = reader.part();
    let name = "";
    let value = "";
    while (header.next()) {
      if (header.field === 1) name = header.text();
      else if (header.field === 2) value = header.text();
    }
    headers.push([name, value]);
  }
  return headers;
}

function decodeRedirect(reader: ProtoReader): HttpFilter {
  let scheme: string | null = null;
  let host = "";
  let path: PathChange | null = null;
  let port = 0;
  let status = 0;
  while (reader.next()) {
    if (reader.field === 1) scheme = decodeScheme(reader.part());
    else if (reader.field === 2) host = reader.text();
    else if (reader.field === 3) path = decodePathChange(reader.part());
    else if (reader.field === 4) port = reader.uint();
    else if (reader.field === 5) status = reader.uint();
  }
  return { kind: "redirect", scheme, host: host || null, path, port: port || null, status };
}

function decodeScheme(reader: ProtoReader): string | null {
  let scheme: string | null = null;
  while (reader.next()) {
    if (reader.field === 1) scheme = reader.uint() === 0 ? "http" : "https";
    else if (reader.field === 2) scheme = reader.text();
  }
  return scheme;
}

/** A message without a kind changes nothing: Linkerd's proxy refuses it, and so do we. */
function decodePathChange(reader: ProtoReader): PathChange | null {
  let path: PathChange | null = null;
  while (reader.next()) {
    if (reader.field === 1) path = { kind: "full", value: reader.text() };
    else if (reader.field === 2) path = { kind: "prefix", value: reader.text() };
  }
  if (path === null) reader.reject("a change of the path of no known kind");
  else {
    const problem = pathProblem(path.value);
    if (problem !== null) reader.reject(`a path to change to ${problem}`);
  }
  return path;
}

function decodeRewrite(reader: ProtoReader): HttpFilter {
  let host = "";
  let path: PathChange | null = null;
  while (reader.next()) {
    if (reader.field === 1) host = reader.text();
    else if (reader.field === 2) path = decodePathChange(reader.part());
  }
  return { kind: "rewrite", host: host || null, path };
}

function decodeMirror(reader: ProtoReader): HttpFilter {
  let backend = null;
  let ratio: Ratio = { numerator: 0, denominator: 0 };
  while (reader.next()) {
    if (reader.field === 1) backend = decodeBackend(reader.part());
    else if (reader.field === 2) ratio = decodeRatio(reader.part());
  }
  return {
    kind: "mirror",
    backend: backend ?? { kind: "forbidden", source: NO_SOURCE, reason: "the mirror names no backend" },
    ratio,
  };
}

function decodeCors(reader: ProtoReader): Cors {
  const allowOrigins: string[] = [];
  const allowMethods: string[] = [];
  const allowHeaders: string[] = [];
  const exposeHeaders: string[] = [];
  let allowCredentials = false;
  let maxAgeSeconds = 0;
  while (reader.next()) {
    if (reader.field === 1) allowOrigins.push(reader.text());
    else if (reader.field === 2) allowMethods.push(reader.text());
    else if (reader.field === 3) allowHeaders.push(reader.text());
    else if (reader.field === 4) exposeHeaders.push(reader.text());
    else if (reader.field === 5) allowCredentials = reader.flag();
    else if (reader.field === 6) maxAgeSeconds = reader.uint();
  }
  return { allowOrigins, allowMethods, allowHeaders, exposeHeaders, allowCredentials, maxAgeSeconds };
}

function decodeFault(reader: ProtoReader): HttpFilter {
  let source: PolicySource = NO_SOURCE;
  let ratio: Ratio = { numerator: 0, denominator: 0 };
  const headers: FieldMatch[] = [];
  let action: FaultAction | null = null;
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) ratio = decodeRatio(reader.part());
    else if (reader.field === 3) headers.push(decodeHeader(reader.part()));
    else if (reader.field === 4) action = decodeDelay(reader.part());
    else if (reader.field === 5) action = decodeAbort(reader.part());
    else if (reader.field === 6) action = { kind: "reset" };
    else if (reader.field === 7) action = decodeBandwidth(reader.part());
    else if (reader.field === 8) action = { kind: "slow-close", delayMs: decodeDelay(reader.part()).delayMs };
  }
  if (action === null) reader.reject("a fault of no known kind");
  return { kind: "fault", source, ratio, headers, action: action ?? { kind: "reset" } };
}

function decodeDelay(reader: ProtoReader): FaultAction & { readonly kind: "delay" } {
  let delayMs = 0;
  let jitterMs = 0;
  while (reader.next()) {
    if (reader.field === 1) delayMs = decodeDurationMs(reader.part());
    else if (reader.field === 2) jitterMs = decodeDurationMs(reader.part());
  }
  return { kind: "delay", delayMs, jitterMs };
}

function decodeAbort(reader: ProtoReader): FaultAction {
  let status = 0;
  let grpcStatus = 0;
  let message = "";
  while (reader.next()) {
    if (reader.field === 1) status = reader.uint();
    else if (reader.field === 2) grpcStatus = reader.uint();
    else if (reader.field === 3) message = reader.text();
  }
  return { kind: "abort", status, grpcStatus, message };
}

function decodeBandwidth(reader: ProtoReader): FaultAction {
  let bytesPerSecond = 0;
  while (reader.next()) if (reader.field === 1) bytesPerSecond = Math.max(0, reader.int());
  return { kind: "bandwidth", bytesPerSecond };
}
