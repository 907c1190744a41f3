import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WeightedAddrSchema } from "#/gen/linkerd/destination_pb.ts";
import type { Backend_BalanceP2cSchema, BackendSchema } from "#/gen/linkerd/outbound_pb.ts";
import type { BackendTrafficSchema } from "#/gen/pillion/traffic_pb.ts";
import { Balancing_Algorithm } from "#/gen/pillion/traffic_pb.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { Backend } from "#/model/route.ts";
import type { BackendTraffic, BalancingAlgorithm, FailureAccrual } from "#/model/traffic.ts";
import { millis, millisOrNone, wireAddress, wireSource } from "./wire.ts";

type BackendInit = MessageInitShape<typeof BackendSchema>;

/**
 * Where traffic goes. What is forbidden is a backend of no kind, which every proxy fails, and for ours the reason. A proxy
 * of another kind takes the queue's bounds from its own settings; they must be there.
 */
export function wireBackend(backend: Backend): BackendInit {
  const base = {
    metadata: wireSource(backend.source),
    queue: { capacity: 100, failfastTimeout: millis(3_000) },
  };
  if (backend.kind === "forbidden") return { ...base, forbiddenReason: backend.reason };
  const traffic = backend.traffic === null ? {} : { traffic: wireTraffic(backend.traffic) };
  if (backend.kind === "forward")
    return { ...base, ...traffic, kind: { case: "forward", value: wireEndpoint(backend.endpoint) } };
  return {
    ...base,
    ...traffic,
    kind: {
      case: "balancer",
      value: {
        discovery: { kind: { case: "dst", value: { path: backend.path } } },
        load: {
          case: "peakEwma",
          value: { defaultRtt: millis(backend.defaultRttMs), decay: millis(backend.decayMs) },
        },
      } satisfies MessageInitShape<typeof Backend_BalanceP2cSchema>,
    },
  };
}

function wireEndpoint(endpoint: Endpoint): MessageInitShape<typeof WeightedAddrSchema> {
  const { address, weight, identity, protocolHint, tunnelPort, authorityOverride, labels } = endpoint;
  const { originatedTls } = endpoint;
  return {
    addr: wireAddress(address.ip, address.port),
    weight,
    metricLabels: { ...labels },
    ...(identity === null
      ? {}
      : {
          tlsIdentity: {
            strategy: identity.name.startsWith("spiffe://")
              ? { case: "uriLikeIdentity" as const, value: { uri: identity.name } }
              : { case: "dnsLikeIdentity" as const, value: { name: identity.name } },
            serverName: { name: identity.serverName },
          },
        }),
    ...(protocolHint === "unknown" && tunnelPort === null
      ? {}
      : {
          protocolHint: {
            ...(protocolHint === "unknown"
              ? {}
              : { protocol: { case: protocolHint === "http2" ? ("h2" as const) : "opaque", value: {} } }),
            ...(tunnelPort === null ? {} : { opaqueTransport: { inboundPort: tunnelPort } }),
          },
        }),
    ...(originatedTls === undefined ? {} : { originateTls: { ...originatedTls } }),
    ...(authorityOverride === null ? {} : { authorityOverride: { authorityOverride } }),
  };
}

const ALGORITHMS: Readonly<Record<BalancingAlgorithm, Balancing_Algorithm>> = {
  "p2c-ewma": Balancing_Algorithm.P2C_EWMA,
  "round-robin": Balancing_Algorithm.ROUND_ROBIN,
  random: Balancing_Algorithm.RANDOM,
  "least-request": Balancing_Algorithm.LEAST_REQUEST,
  "consistent-hash": Balancing_Algorithm.CONSISTENT_HASH,
};

function wireTraffic(traffic: BackendTraffic): MessageInitShape<typeof BackendTrafficSchema> {
  const { balancing, persistence, zone, accrual, limits, retryBudget } = traffic;
  return {
    balancing: {
      algorithm: ALGORITHMS[balancing.algorithm],
      boundedLoad: balancing.boundedLoad,
      hashOn: balancing.hashOn.map((key) => ({
        kind:
          key.kind === "source"
            ? { case: "source" as const, value: {} }
            : { case: key.kind, value: key.name },
      })),
    },
    ...(persistence === null
      ? {}
      : {
          persistence: {
            kind: { case: persistence.kind, value: persistence.name },
            permanent: persistence.isPermanent,
            path: persistence.path,
            ...present("absoluteTimeout", persistence.absoluteTimeoutMs),
          },
        }),
    ...(zone === null
      ? {}
      : { zone: { spillAtPending: zone.spillAtPending, healthyShareMin: zone.healthyShareMin } }),
    slowStart: millis(traffic.slowStartMs),
    subsetSize: traffic.subsetSize,
    ...(accrual === null ? {} : { accrual: wireAccrual(accrual) }),
    ejectionFloor: traffic.ejectionFloor,
    panicThreshold: traffic.panicThreshold,
    requestsMax: limits.requestsMax,
    pendingMax: limits.pendingMax,
    connectionsMax: limits.connectionsMax,
    retryBudget: {
      percent: retryBudget.percent,
      interval: millis(retryBudget.intervalMs),
      floorCount: retryBudget.floorCount,
      floorInterval: millis(retryBudget.floorIntervalMs),
    },
    overloadPenalty: millis(traffic.overloadPenaltyMs),
    ...present("connectTimeout", traffic.connectTimeoutMs),
  };
}

function wireAccrual(
  accrual: FailureAccrual,
): NonNullable<MessageInitShape<typeof BackendTrafficSchema>["accrual"]> {
  return {
    consecutiveFailures: accrual.consecutiveFailures,
    successRateMin: accrual.successRateMin,
    window: millis(accrual.windowMs),
    requestsMin: accrual.requestsMin,
    backoffMin: millis(accrual.backoff.minMs),
    backoffMax: millis(accrual.backoff.maxMs),
    backoffJitter: accrual.backoff.jitterRatio,
    respectRetryAfter: accrual.respectsRetryAfter,
  };
}

/** A duration field that is there or not. */
export function present<Name extends string>(
  name: Name,
  ms: number | null,
): Partial<Record<Name, NonNullable<ReturnType<typeof millisOrNone>>>> {
  const duration = millisOrNone(ms);
  return duration === undefined ? {} : ({ [name]: duration } as Record<Name, typeof duration>);
}
