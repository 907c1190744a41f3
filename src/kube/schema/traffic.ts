import {
  bool,
  checked,
  dnsLabel,
  dnsSubdomain,
  int,
  kindSchema,
  labelSelector,
  list,
  object,
  oneOf,
  text,
} from "./language.ts";
import type { Schema } from "./language.ts";

const VERSION = "pillion.dev/v1alpha1";
const SERVICE = { group: "", kind: "Service" } as const;
const HTTP_ROUTE = { group: "gateway.networking.k8s.io", kind: "HTTPRoute" } as const;
const GRPC_ROUTE = { group: "gateway.networking.k8s.io", kind: "GRPCRoute" } as const;

const duration = checked("duration");
const percent = int(0, 100);

function targetRefs(...kinds: readonly { readonly group: string; readonly kind: string }[]): Schema {
  return {
    ...list(
      object(
        {
          group: oneOf(...new Set(kinds.map((each) => each.group))),
          kind: oneOf(...kinds.map((each) => each.kind)),
          name: dnsSubdomain,
          sectionName: text,
        },
        ["group", "kind", "name"],
      ),
      1,
    ),
    maxItems: 16,
  };
}

const headerMatch = object(
  { name: checked("headerName"), value: text, type: oneOf("Exact", "RegularExpression") },
  ["name", "value"],
);
const fraction = object({ numerator: int(), denominator: int(1) }, ["numerator"]);

const retryConstraint = object({
  budget: object({ percent, interval: duration }),
  minRetryRate: object({ count: int(1, 1_000_000), interval: duration }),
});
const sessionPersistence = object(
  {
    sessionName: text,
    absoluteTimeout: duration,
    type: oneOf("Cookie", "Header"),
    cookieConfig: object({ lifetimeType: oneOf("Permanent", "Session") }),
  },
  ["type"],
);

const trafficSpec = object(
  {
    targetRefs: targetRefs(SERVICE),
    balancing: object({
      algorithm: oneOf("PeakEWMA", "RoundRobin", "Random", "LeastRequest", "ConsistentHash"),
      hashOn: list(object({ header: checked("headerName"), cookie: checked("headerName"), source: bool }), 1),
      boundedLoadPercent: int(101, 1000),
      slowStart: duration,
      subsetSize: int(1, 10_000),
      overloadPenalty: duration,
    }),
    zone: object({ spillAtPending: int(1, 1_000_000), healthyPercentMin: percent }),
    circuitBreaking: object({
      consecutiveFailures: int(1, 65_535),
      successRate: object({ percentMin: int(1, 100), requestsMin: int(1, 1_000_000), window: duration }, [
        "percentMin",
      ]),
      backoff: object({ min: duration, max: duration }),
      respectRetryAfter: bool,
      ejectedPercentMax: percent,
      panicPercent: percent,
    }),
    limits: object({
      requestsMax: int(1, 1_000_000),
      pendingMax: int(1, 1_000_000),
      connectionsMax: int(1, 100_000),
    }),
    connectTimeout: duration,
    retryConstraint,
    sessionPersistence,
  },
  ["targetRefs"],
);

const fault = object({
  percent,
  fraction,
  headers: list(headerMatch, 1),
  delay: object({ duration, jitter: duration }, ["duration"]),
  abort: object({ httpStatus: int(400, 599), grpcStatus: int(1, 16), message: text }),
  reset: object({}),
  bandwidth: object({ bytesPerSecond: int(1) }, ["bytesPerSecond"]),
  slowClose: object({ duration }, ["duration"]),
});

const faultSpec = object(
  {
    targetRefs: targetRefs(SERVICE, HTTP_ROUTE, GRPC_ROUTE),
    from: list(object({ namespace: dnsLabel, serviceAccount: dnsSubdomain }), 1),
    faults: { ...list(fault, 1), maxItems: 16 },
  },
  ["targetRefs", "faults"],
);

const httpMatch = object({
  path: object({ type: oneOf("Exact", "PathPrefix", "RegularExpression"), value: checked("matchPath") }, [
    "type",
    "value",
  ]),
  headers: list(headerMatch, 1),
  queryParams: list(
    object({ name: text, value: text, type: oneOf("Exact", "RegularExpression") }, ["name", "value"]),
    1,
  ),
  method: oneOf("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
});

const rateLimitSpec = object({
  targetRefs: targetRefs(SERVICE),
  selector: labelSelector,
  ports: list(int(1, 65_535), 1),
  rates: {
    ...list(
      object(
        {
          requests: int(1, 1_000_000_000),
          window: duration,
          burst: int(1, 1_000_000_000),
          scope: oneOf("Local", "Global"),
          per: object({ identity: bool, header: checked("headerName") }),
          matches: list(httpMatch, 1),
        },
        ["requests"],
      ),
      1,
    ),
    maxItems: 32,
  },
  concurrency: object({
    min: int(1, 100_000),
    max: int(1, 100_000),
    priorityHeader: checked("headerName"),
  }),
});

const egressSpec = object(
  {
    mode: oneOf("Allow", "Audit", "Deny"),
    selector: labelSelector,
    allow: list(
      object({
        hosts: list(checked("hostPattern"), 1),
        cidrs: list(checked("cidr"), 1),
        ports: list(int(1, 65_535), 1),
      }),
    ),
  },
  ["mode"],
);

/** Kinds of our own, where no standard has one. */
export const TRAFFIC_KINDS: Readonly<Record<string, Schema>> = {
  TrafficPolicy: kindSchema([VERSION], "TrafficPolicy", { spec: trafficSpec }, ["spec"]),
  FaultPolicy: kindSchema([VERSION], "FaultPolicy", { spec: faultSpec }, ["spec"]),
  RateLimitPolicy: kindSchema([VERSION], "RateLimitPolicy", { spec: rateLimitSpec }, ["spec"]),
  EgressPolicy: kindSchema([VERSION], "EgressPolicy", { spec: egressSpec }, ["spec"]),
};
