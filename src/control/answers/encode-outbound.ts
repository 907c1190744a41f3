import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { ReflectMessage } from "@bufbuild/protobuf/reflect";
import { reflect } from "@bufbuild/protobuf/reflect";
import { isDeepStrictEqual } from "node:util";
import type { OutboundPolicy as WirePolicy } from "#/gen/linkerd/outbound_pb.ts";
import type {
  ExponentialBackoffSchema,
  GrpcRoute_RetrySchema,
  GrpcRouteSchema,
  HttpRoute_RetrySchema,
  HttpRouteSchema,
  OpaqueRouteSchema,
  ProxyProtocolSchema,
  TlsRouteSchema,
} from "#/gen/linkerd/outbound_pb.ts";
import {
  FailureAccrualSchema,
  OutboundPolicySchema,
  ProxyProtocol_Http1Schema,
} from "#/gen/linkerd/outbound_pb.ts";
import type { RuleExtensionSchema } from "#/gen/pillion/traffic_pb.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import { defaultBackendOf } from "#/model/policy.ts";
import type { Backoff, HttpRoute, HttpRule, RetryPolicy, RouteBackend, TcpRoute } from "#/model/route.ts";
import { present, wireBackend } from "./encode-backend.ts";
import { isRpcFilter, wireHttpFilters, wireRpcFilters } from "./encode-filter.ts";
import { isRpcMatch, wireHost, wireMatch, wireRpcMatch } from "./encode-match.ts";
import { millis, wireSource } from "./wire.ts";

/** Only told: detection ends after 10 ms of silence in our sidecars, and a linkerd2-proxy takes its own setting. */
const DETECT_MS = 10_000;

/**
 * `outbound.OutboundPolicy` of what the model says, for a sidecar that understands all of it. Routes of the protocols that
 * the target does not speak are left out.
 */
export function encodeOutboundPolicy(policy: OutboundPolicy): WirePolicy {
  return create(OutboundPolicySchema, {
    metadata: wireSource(policy.source),
    protocol: { kind: wireProtocol(policy) },
    ...(isDeepStrictEqual(policy.backend, defaultBackendOf(policy))
      ? {}
      : { backend: wireBackend(policy.backend) }),
  });
}

/**
 * `outbound.OutboundPolicy` for a proxy that knows the standard fields alone, of what `standardPolicy` has made of the model: no
 * field from 10000 up is in it.
 */
export function encodeStandardPolicy(policy: OutboundPolicy): WirePolicy {
  const { source, protocol, http } = policy;
  const message = create(OutboundPolicySchema, {
    metadata: wireSource(source),
    protocol: { kind: wireProtocol(policy) },
  });
  const kind = message.protocol!.kind;
  // Calls over HTTP/1 are none, and a GRPCRoute is for calls alone.
  const http1 = create(ProxyProtocol_Http1Schema, {
    routes: http.filter((route) => route.source.kind !== "GRPCRoute").map(wireHttpRoute),
  });
  if (kind.case === "detect") kind.value.http1 = http1;
  else if (kind.case === "http1") kind.value = http1;
  const accrual = accrualOf(http);
  if (accrual !== null) {
    const failureAccrual = create(FailureAccrualSchema, accrual);
    if (kind.case === "http1" || kind.case === "http2" || kind.case === "grpc")
      kind.value.failureAccrual = failureAccrual;
    else if (kind.case === "detect" && protocol === "detect") {
      kind.value.http1!.failureAccrual = failureAccrual;
      kind.value.http2!.failureAccrual = failureAccrual;
    }
  }
  withoutExtensions(reflect(OutboundPolicySchema, message));
  return message;
}

/** The first backend's that has one: the message says it of a whole protocol. */
function accrualOf(http: readonly HttpRoute[]): MessageInitShape<typeof FailureAccrualSchema> | null {
  for (const { rules } of http)
    for (const { backends } of rules)
      for (const { backend } of backends) {
        const accrual = backend.kind === "forbidden" ? null : (backend.traffic?.accrual ?? null);
        if (accrual === null) continue;
        const { consecutiveFailures, backoff, respectsRetryAfter } = accrual;
        const value = { maxFailures: consecutiveFailures, backoff: wireBackoff(backoff, respectsRetryAfter) };
        return { kind: { case: "consecutiveFailures", value } };
      }
  return null;
}

/** From here up field numbers are ours. */
export const EXTENSION_FIELD_MIN = 10_000;

function withoutExtensions(message: ReflectMessage): void {
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    if (field.number >= EXTENSION_FIELD_MIN) message.clear(field);
    else if (field.fieldKind === "message") withoutExtensions(message.get(field));
    else if (field.fieldKind === "list" && field.listKind === "message")
      for (const item of message.get(field)) withoutExtensions(item as ReflectMessage);
  }
}

function wireProtocol(
  policy: OutboundPolicy,
): NonNullable<MessageInitShape<typeof ProxyProtocolSchema>["kind"]> {
  const { http, tcp } = policy;
  switch (policy.protocol) {
    case "opaque":
      return { case: "opaque", value: { routes: tcp.map(wireOpaqueRoute) } };
    case "tls":
      return { case: "tls", value: { routes: tcp.map(wireTlsRoute) } };
    case "http1":
      return { case: "http1", value: { routes: http.map(wireHttpRoute) } };
    case "http2":
      return { case: "http2", value: { routes: http.map(wireHttpRoute) } };
    case "grpc":
      return http.every(isGrpcRoute)
        ? { case: "grpc", value: { routes: http.map(wireGrpcRoute) } }
        : { case: "http2", value: { routes: http.map(wireHttpRoute), grpc: true } };
    case "detect": {
      const routes = http.map(wireHttpRoute);
      const opaque = { routes: tcp.map(wireOpaqueRoute) };
      return {
        case: "detect",
        value: { timeout: millis(DETECT_MS), opaque, http1: { routes }, http2: { routes } },
      };
    }
  }
}

/** Whether `outbound.GrpcRoute` can hold it. */
function isGrpcRoute(route: HttpRoute): boolean {
  return route.rules.every(
    (rule) =>
      rule.matches.every(isRpcMatch) &&
      rule.filters.every(isRpcFilter) &&
      rule.backends.every((backend) => backend.filters.every(isRpcFilter)),
  );
}

function wireHttpRoute(route: HttpRoute): MessageInitShape<typeof HttpRouteSchema> {
  return {
    metadata: wireSource(route.source),
    hosts: route.hosts.map(wireHost),
    rules: route.rules.map((rule) => ({
      matches: rule.matches.map(wireMatch),
      ...wireHttpFilters(rule.filters),
      backends: wireDistribution(rule, (backend) => wireHttpFilters(backend.filters)),
      ...wireTimeouts(rule),
      ...(rule.retry === null ? {} : { retry: wireHttpRetry(rule.retry) }),
      allowL5dRequestHeaders: rule.allowsRequestHeaders,
      ...wireExtension(rule, false),
    })),
  };
}

function wireGrpcRoute(route: HttpRoute): MessageInitShape<typeof GrpcRouteSchema> {
  return {
    metadata: wireSource(route.source),
    hosts: route.hosts.map(wireHost),
    rules: route.rules.map((rule) => ({
      matches: rule.matches.map(wireRpcMatch),
      ...wireRpcFilters(rule.filters),
      backends: wireDistribution(rule, (backend) => wireRpcFilters(backend.filters)),
      ...wireTimeouts(rule),
      ...(rule.retry === null ? {} : { retry: wireRpcRetry(rule.retry) }),
      allowL5dRequestHeaders: rule.allowsRequestHeaders,
      ...wireExtension(rule, true),
    })),
  };
}

function wireOpaqueRoute(route: TcpRoute): MessageInitShape<typeof OpaqueRouteSchema> {
  return {
    metadata: wireSource(route.source),
    snis: route.serverNames.map(wireHost),
    rules: [wireTcpRule(route)],
  };
}

function wireTlsRoute(route: TcpRoute): MessageInitShape<typeof TlsRouteSchema> {
  return {
    metadata: wireSource(route.source),
    snis: route.serverNames.map(wireHost),
    rules: [wireTcpRule(route)],
  };
}

function wireTcpRule(
  route: TcpRoute,
): NonNullable<MessageInitShape<typeof OpaqueRouteSchema>["rules"]>[number] &
  NonNullable<MessageInitShape<typeof TlsRouteSchema>["rules"]>[number] {
  return {
    filters: route.refusal === null ? [] : [forbids(route.refusal)],
    backends: wireDistribution(route, ({ backend }) => ({
      filters: backend.kind === "forbidden" ? [forbids(backend.reason)] : [],
    })),
  };
}

function forbids(reason: string): {
  readonly kind: { readonly case: "forbidden"; readonly value: { reason: string } };
} {
  return { kind: { case: "forbidden", value: { reason } } };
}

/** Distributions of all routes are built alike; an empty list must be said as such (facts §11.3). */
function wireDistribution<Filters extends object>(
  { choice, backends }: { readonly choice: "first" | "random"; readonly backends: readonly RouteBackend[] },
  filters: (backend: RouteBackend) => Filters,
): Distribution<Filters> {
  if (backends.length === 0) return { kind: { case: "empty", value: {} } };
  const wired = backends.map((one) => ({
    backend: wireBackend(one.backend),
    ...filters(one),
    ...present("requestTimeout", one.attemptTimeoutMs),
  }));
  return choice === "first"
    ? { kind: { case: "firstAvailable", value: { backends: wired } } }
    : {
        kind: {
          case: "randomAvailable",
          value: { backends: wired.map((backend, i) => ({ backend, weight: backends[i]!.weight })) },
        },
      };
}

type WireRouteBackend<Filters> = { readonly backend: ReturnType<typeof wireBackend> } & Filters;

type Distribution<Filters> = {
  readonly kind:
    | { readonly case: "empty"; readonly value: Record<never, never> }
    | { readonly case: "firstAvailable"; readonly value: { backends: WireRouteBackend<Filters>[] } }
    | {
        readonly case: "randomAvailable";
        readonly value: { backends: { backend: WireRouteBackend<Filters>; weight: number }[] };
      };
};

function wireTimeouts({
  timeouts,
}: HttpRule): Pick<NonNullable<MessageInitShape<typeof HttpRouteSchema>["rules"]>[number], "timeouts"> {
  const { requestMs, responseMs, idleMs } = timeouts;
  if (requestMs === null && responseMs === null && idleMs === null) return {};
  return {
    timeouts: {
      ...present("request", requestMs),
      ...present("response", responseMs),
      ...present("idle", idleMs),
    },
  };
}

function wireHttpRetry(retry: RetryPolicy): MessageInitShape<typeof HttpRoute_RetrySchema> {
  return {
    ...wireRetry(retry),
    conditions: { statusRanges: retry.statusRanges.map(([start, end]) => ({ start, end })) },
  };
}

function wireRpcRetry(retry: RetryPolicy): MessageInitShape<typeof GrpcRoute_RetrySchema> {
  const has = (code: number): boolean => retry.grpcCodes.includes(code);
  return {
    ...wireRetry(retry),
    conditions: {
      cancelled: has(1),
      deadineExceeded: has(4),
      resourceExhausted: has(8),
      internal: has(13),
      unavailable: has(14),
    },
  };
}

function wireRetry(
  retry: RetryPolicy,
): Pick<
  MessageInitShape<typeof HttpRoute_RetrySchema> & MessageInitShape<typeof GrpcRoute_RetrySchema>,
  "maxRetries" | "maxRequestBytes" | "timeout" | "backoff"
> {
  const { backoff } = retry;
  return {
    maxRetries: retry.retriesMax,
    maxRequestBytes: retry.bodyBytesMax,
    ...present("timeout", retry.attemptTimeoutMs),
    backoff: wireBackoff(backoff, retry.respectsRetryAfter),
  };
}

function wireBackoff(
  { minMs, maxMs, jitterRatio }: Backoff,
  respectRetryAfterHint: boolean,
): MessageInitShape<typeof ExponentialBackoffSchema> {
  return { minBackoff: millis(minMs), maxBackoff: millis(maxMs), jitterRatio, respectRetryAfterHint };
}

/** gRPC codes that the message of a gRPC route can hold, in the order in which they are read back. */
const STANDARD_CODES: readonly number[] = [1, 4, 8, 13, 14];

/** What a rule says beyond the standard fields; nothing where it says no more. */
function wireExtension(
  rule: HttpRule,
  isGrpc: boolean,
): { extension?: MessageInitShape<typeof RuleExtensionSchema> } {
  const { name, timeouts, retry } = rule;
  const codes = retry?.grpcCodes ?? [];
  const isStandard =
    isGrpc &&
    isDeepStrictEqual(
      STANDARD_CODES.filter((code) => codes.includes(code)),
      codes,
    );
  const statuses = isGrpc ? (retry?.statusRanges ?? []) : [];
  const retriesConnections = retry?.onConnectionError ?? false;
  const hasCodes = codes.length > 0 && !isStandard;
  if (name === "" && timeouts.attemptMs === null && !retriesConnections && !hasCodes && statuses.length === 0)
    return {};
  return {
    extension: {
      name,
      ...present("attemptTimeout", timeouts.attemptMs),
      retryOnConnectionError: retriesConnections,
      retryGrpcCodes: hasCodes ? [...codes] : [],
      retryStatuses: statuses.map(([from, to]) => ({ from, to })),
    },
  };
}
