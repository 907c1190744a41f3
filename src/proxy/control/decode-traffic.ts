import type {
  BackendTraffic,
  Balancing,
  BalancingAlgorithm,
  FailureAccrual,
  HashKey,
  RetryBudget,
  SessionPersistence,
  ZonePreference,
} from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import { decodeBackoff, decodeDurationMs, decodeShare, decodeTimeoutMs } from "./decode-common.ts";

/** `pillion.traffic.BackendTraffic`. */
export function decodeTraffic(reader: ProtoReader): BackendTraffic {
  let balancing = BACKEND_TRAFFIC_DEFAULTS.balancing;
  let persistence: SessionPersistence | null = null;
  let zone: ZonePreference | null = null;
  let slowStartMs = 0;
  let subsetSize = 0;
  let accrual: FailureAccrual | null = null;
  let ejectionFloor = 0;
  let panicThreshold = 0;
  const limits = { requestsMax: 0, pendingMax: 0, connectionsMax: 0 };
  let retryBudget = BACKEND_TRAFFIC_DEFAULTS.retryBudget;
  let overloadPenaltyMs = 0;
  let connectTimeoutMs: number | null = null;
  while (reader.next()) {
    if (reader.field === 1) balancing = decodeBalancing(reader.part());
    else if (reader.field === 2) persistence = decodePersistence(reader.part());
    else if (reader.field === 3) zone = decodeZone(reader.part());
    else if (reader.field === 4) slowStartMs = decodeDurationMs(reader.part());
    else if (reader.field === 5) subsetSize = reader.uint();
    else if (reader.field === 6) accrual = decodeOwnAccrual(reader.part());
    else if (reader.field === 7) ejectionFloor = decodeShare(reader.double(), reader);
    else if (reader.field === 8) panicThreshold = decodeShare(reader.double(), reader);
    else if (reader.field === 9) limits.requestsMax = reader.uint();
    else if (reader.field === 10) limits.pendingMax = reader.uint();
    else if (reader.field === 11) limits.connectionsMax = reader.uint();
    else if (reader.field === 12) retryBudget = decodeRetryBudget(reader.part());
    else if (reader.field === 13) overloadPenaltyMs = decodeDurationMs(reader.part());
    else if (reader.field === 14) connectTimeoutMs = decodeTimeoutMs(reader.part());
  }
  return {
    balancing,
    persistence,
    zone,
    slowStartMs,
    subsetSize,
    accrual,
    ejectionFloor,
    panicThreshold,
    limits,
    retryBudget,
    overloadPenaltyMs,
    connectTimeoutMs,
  };
}

/** By number. A later one that is not known is a preference that cannot be kept: the default takes its place. */
const ALGORITHMS: readonly BalancingAlgorithm[] = [
  "p2c-ewma",
  "round-robin",
  "random",
  "least-request",
  "consistent-hash",
];

function decodeBalancing(reader: ProtoReader): Balancing {
  let algorithm: BalancingAlgorithm = "p2c-ewma";
  const hashOn: HashKey[] = [];
  let boundedLoad = 0;
  while (reader.next()) {
    if (reader.field === 1) algorithm = ALGORITHMS[reader.uint()] ?? "p2c-ewma";
    else if (reader.field === 2) {
      const key = decodeHashKey(reader.part());
      if (key !== null) hashOn.push(key);
    } else if (reader.field === 3) boundedLoad = decodeShare(reader.double(), reader);
  }
  return { algorithm, hashOn, boundedLoad };
}

function decodeHashKey(reader: ProtoReader): HashKey | null {
  let key: HashKey | null = null;
  while (reader.next()) {
    if (reader.field === 1) key = { kind: "header", name: reader.text() };
    else if (reader.field === 2) key = { kind: "cookie", name: reader.text() };
    else if (reader.field === 3) key = { kind: "source" };
  }
  return key;
}

function decodePersistence(reader: ProtoReader): SessionPersistence | null {
  let kind: SessionPersistence["kind"] | null = null;
  let name = "";
  let absoluteTimeoutMs: number | null = null;
  let isPermanent = false;
  let path = "";
  while (reader.next()) {
    if (reader.field === 1 || reader.field === 2) {
      kind = reader.field === 1 ? "cookie" : "header";
      name = reader.text();
    } else if (reader.field === 3) absoluteTimeoutMs = decodeTimeoutMs(reader.part());
    else if (reader.field === 4) isPermanent = reader.flag();
    else if (reader.field === 5) path = reader.text();
  }
  return kind === null ? null : { kind, name, absoluteTimeoutMs, isPermanent, path };
}

function decodeZone(reader: ProtoReader): ZonePreference {
  let spillAtPending = 0;
  let healthyShareMin = 0;
  while (reader.next()) {
    if (reader.field === 1) spillAtPending = reader.uint();
    else if (reader.field === 2) healthyShareMin = decodeShare(reader.double(), reader);
  }
  return { spillAtPending, healthyShareMin };
}

function decodeOwnAccrual(reader: ProtoReader): FailureAccrual {
  let consecutiveFailures = 0;
  let successRateMin = 0;
  let windowMs = 0;
  let requestsMin = 0;
  const backoff = { minMs: 0, maxMs: 0, jitterRatio: 0 };
  let respectsRetryAfter = false;
  while (reader.next()) {
    if (reader.field === 1) consecutiveFailures = reader.uint();
    else if (reader.field === 2) successRateMin = decodeShare(reader.double(), reader);
    else if (reader.field === 3) windowMs = decodeDurationMs(reader.part());
    else if (reader.field === 4) requestsMin = reader.uint();
    else if (reader.field === 5) backoff.minMs = decodeDurationMs(reader.part());
    else if (reader.field === 6) backoff.maxMs = decodeDurationMs(reader.part());
    else if (reader.field === 7) backoff.jitterRatio = decodeShare(reader.double(), reader);
    else if (reader.field === 8) respectsRetryAfter = reader.flag();
  }
  return { consecutiveFailures, successRateMin, windowMs, requestsMin, backoff, respectsRetryAfter };
}

function decodeRetryBudget(reader: ProtoReader): RetryBudget {
  let percent = 0;
  let intervalMs = 0;
  let floorCount = 0;
  let floorIntervalMs = 0;
  while (reader.next()) {
    if (reader.field === 1) percent = reader.uint();
    else if (reader.field === 2) intervalMs = decodeDurationMs(reader.part());
    else if (reader.field === 3) floorCount = reader.uint();
    else if (reader.field === 4) floorIntervalMs = decodeDurationMs(reader.part());
  }
  return { percent, intervalMs, floorCount, floorIntervalMs };
}

/** Linkerd's own `outbound.FailureAccrual`, which is of a whole protocol; null for one of no known kind. */
export function decodeStandardAccrual(reader: ProtoReader): FailureAccrual | null {
  let accrual: FailureAccrual | null = null;
  while (reader.next())
    if (reader.field === 1) accrual = decodeConsecutive(reader.part());
    else if (reader.field === 2) accrual = decodeUnified(reader.part());
  return accrual;
}

/** As its proxy does where nothing is said (facts §12). */
const ACCRUAL_BACKOFF = {
  backoff: { minMs: 1_000, maxMs: 60_000, jitterRatio: 0.5 },
  respectsRetryAfter: false,
};

function decodeConsecutive(reader: ProtoReader): FailureAccrual {
  let consecutiveFailures = 0;
  let backoff = ACCRUAL_BACKOFF;
  while (reader.next()) {
    if (reader.field === 1) consecutiveFailures = reader.uint();
    else if (reader.field === 2) backoff = decodeBackoff(reader.part());
  }
  return { consecutiveFailures, successRateMin: 0, windowMs: 0, requestsMin: 0, ...backoff };
}

function decodeUnified(reader: ProtoReader): FailureAccrual {
  let successRateMin = 0;
  let windowMs = 0;
  let requestsMin = 0;
  let consecutiveFailures = 0;
  let backoff = ACCRUAL_BACKOFF;
  while (reader.next()) {
    if (reader.field === 1) successRateMin = decodeShare(reader.double(), reader);
    else if (reader.field === 2) windowMs = decodeDurationMs(reader.part());
    else if (reader.field === 3) requestsMin = reader.uint();
    else if (reader.field === 4) consecutiveFailures = reader.uint();
    else if (reader.field === 5) backoff = decodeBackoff(reader.part());
  }
  return { consecutiveFailures, successRateMin, windowMs, requestsMin, ...backoff };
}
