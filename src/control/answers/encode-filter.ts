import type { MessageInitShape } from "@bufbuild/protobuf";
import type { PathModifierSchema } from "#/gen/linkerd/http_route_pb.ts";
import type { SchemeSchema } from "#/gen/linkerd/http_types_pb.ts";
import { Scheme_Registered } from "#/gen/linkerd/http_types_pb.ts";
import type {
  ExtensionFilterSchema,
  GrpcRoute_FilterSchema,
  HttpRoute_FilterSchema,
} from "#/gen/linkerd/outbound_pb.ts";
import type { FaultSchema } from "#/gen/pillion/traffic_pb.ts";
import type { FaultAction, HeaderChange, HttpFilter, PathChange } from "#/model/route.ts";
import { wireBackend } from "./encode-backend.ts";
import { wireHeader } from "./encode-match.ts";
import { millis, wireSource } from "./wire.ts";

type ExtensionKind = NonNullable<MessageInitShape<typeof ExtensionFilterSchema>["kind"]>;
type HttpKind = NonNullable<MessageInitShape<typeof HttpRoute_FilterSchema>["kind"]>;
type GrpcKind = NonNullable<MessageInitShape<typeof GrpcRoute_FilterSchema>["kind"]>;

/** The filters of a rule or backend: those that the standard message knows, and ours, which remember their place. */
interface WireFilters<Kind> {
  readonly filters: { readonly kind: Kind }[];
  readonly extensionFilters: MessageInitShape<typeof ExtensionFilterSchema>[];
}

export function wireHttpFilters(filters: readonly HttpFilter[]): WireFilters<HttpKind> {
  return split(filters, httpKind);
}

/** Of a rule or backend whose filters are all `isRpcFilter`. */
export function wireRpcFilters(filters: readonly HttpFilter[]): WireFilters<GrpcKind> {
  return split(filters, grpcKind);
}

/** Whether a gRPC route can hold it, in its own message or in ours. */
export function isRpcFilter(filter: HttpFilter): boolean {
  return filter.kind !== "redirect" && (filter.kind !== "fail" || filter.grpcStatus >= 0);
}

function split<Kind>(
  filters: readonly HttpFilter[],
  standard: (filter: HttpFilter) => Kind | null,
): WireFilters<Kind> {
  const out: WireFilters<Kind> = { filters: [], extensionFilters: [] };
  for (const [position, filter] of filters.entries()) {
    const kind = standard(filter);
    if (kind === null) out.extensionFilters.push({ kind: extensionKind(filter), position });
    else out.filters.push({ kind });
  }
  return out;
}

function httpKind(filter: HttpFilter): HttpKind | null {
  switch (filter.kind) {
    case "fail": {
      const { status, grpcStatus, message, ratio } = filter;
      return {
        case: "failureInjector",
        value: { status, message, ratio, ...(grpcStatus < 0 ? {} : { grpcCode: grpcStatus }) },
      };
    }
    case "request-headers":
      return { case: "requestHeaderModifier", value: wireChange(filter.change) };
    case "response-headers":
      return { case: "responseHeaderModifier", value: wireChange(filter.change) };
    case "redirect":
      return {
        case: "redirect",
        value: {
          host: filter.host ?? "",
          port: filter.port ?? 0,
          status: filter.status,
          ...(filter.scheme === null ? {} : { scheme: wireScheme(filter.scheme) }),
          ...wirePathChange(filter.path),
        },
      };
    default:
      return null;
  }
}

function grpcKind(filter: HttpFilter): GrpcKind | null {
  switch (filter.kind) {
    case "fail": {
      const { status, grpcStatus, message, ratio } = filter;
      return {
        case: "failureInjector",
        value: { code: grpcStatus, message, ratio, ...(status === 200 ? {} : { status }) },
      };
    }
    case "request-headers":
      return { case: "requestHeaderModifier", value: wireChange(filter.change) };
    default:
      return null;
  }
}

function extensionKind(filter: HttpFilter): ExtensionKind {
  switch (filter.kind) {
    case "rewrite":
      return { case: "rewrite", value: { host: filter.host ?? "", ...wirePathChange(filter.path) } };
    case "mirror":
      return { case: "mirror", value: { backend: wireBackend(filter.backend), ratio: filter.ratio } };
    case "cors": {
      const { cors } = filter;
      return {
        case: "cors",
        value: {
          allowOrigins: [...cors.allowOrigins],
          allowMethods: [...cors.allowMethods],
          allowHeaders: [...cors.allowHeaders],
          exposeHeaders: [...cors.exposeHeaders],
          allowCredentials: cors.allowCredentials,
          maxAgeSeconds: cors.maxAgeSeconds,
        },
      };
    }
    case "fault":
      return {
        case: "fault",
        value: {
          metadata: wireSource(filter.source),
          ratio: filter.ratio,
          headers: filter.headers.map(wireHeader),
          action: wireAction(filter.action),
        },
      };
    case "response-headers":
      return { case: "responseHeaderModifier", value: wireChange(filter.change) };
    default:
      throw new TypeError(`a ${filter.kind} filter has a standard form`);
  }
}

function wireAction(action: FaultAction): NonNullable<MessageInitShape<typeof FaultSchema>["action"]> {
  switch (action.kind) {
    case "delay":
      return { case: "delay", value: { delay: millis(action.delayMs), jitter: millis(action.jitterMs) } };
    case "abort":
      return {
        case: "abort",
        value: { status: action.status, grpcStatus: action.grpcStatus, message: action.message },
      };
    case "reset":
      return { case: "reset", value: {} };
    case "bandwidth":
      return { case: "bandwidth", value: { bytesPerSecond: BigInt(action.bytesPerSecond) } };
    case "slow-close":
      return { case: "slowClose", value: { delay: millis(action.delayMs) } };
  }
}

const UTF8 = new TextEncoder();

/** `ResponseHeaderModifier` is built alike. */
function wireChange(change: HeaderChange): { add: WireHeaders; set: WireHeaders; remove: string[] } {
  const headers = (fields: HeaderChange["add"]): WireHeaders => ({
    headers: fields.map(([name, value]) => ({ name, value: UTF8.encode(value) })),
  });
  return { add: headers(change.add), set: headers(change.set), remove: [...change.remove] };
}

interface WireHeaders {
  headers: { name: string; value: Uint8Array }[];
}

function wirePathChange(path: PathChange | null): { path?: MessageInitShape<typeof PathModifierSchema> } {
  return path === null ? {} : { path: { replace: { case: path.kind, value: path.value } } };
}

function wireScheme(scheme: string): MessageInitShape<typeof SchemeSchema> {
  if (scheme === "http") return { type: { case: "registered", value: Scheme_Registered.HTTP } };
  if (scheme === "https") return { type: { case: "registered", value: Scheme_Registered.HTTPS } };
  return { type: { case: "unregistered", value: scheme } };
}
