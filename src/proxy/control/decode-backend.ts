import type { PolicySource } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import { BACKEND_TRAFFIC_DEFAULTS } from "#/model/traffic.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import { decodeDurationMs, decodeSource, NO_SOURCE } from "./decode-common.ts";
import { decodeEndpoint, decodeName } from "./decode-endpoint.ts";
import { decodeTraffic } from "./decode-traffic.ts";

/**
 * `outbound.Backend`. What cannot be used is forbidden, with the reason. The queue's bounds are not read: Linkerd's control
 * plane sends some and its proxy goes by its own settings (facts §11.4), as ours does.
 */
export function decodeBackend(reader: ProtoReader): Backend {
  let source = NO_SOURCE;
  let backend: Backend | null = null;
  let traffic: BackendTraffic | null = null;
  let reason = "";
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) backend = decodeForward(reader.part());
    else if (reader.field === 3) backend = decodeBalancer(reader.part());
    else if (reader.field === 10_000) traffic = decodeTraffic(reader.part());
    else if (reader.field === 10_001) reason = reader.text();
  }
  if (backend === null) return forbidden(source, reason || "the backend is of no known kind");
  if (backend.kind === "forbidden") return { ...backend, source };
  return { ...backend, source, traffic: traffic ?? backend.traffic };
}

/** Its source comes with the rest of the backend. */
function decodeForward(reader: ProtoReader): Backend {
  const endpoint = decodeEndpoint(reader, {});
  return endpoint === null
    ? forbidden(NO_SOURCE, "the backend has no address")
    : { kind: "forward", source: NO_SOURCE, endpoint, traffic: null };
}

function decodeBalancer(reader: ProtoReader): Backend {
  let path = "";
  let load: Load = { defaultRttMs: 30, decayMs: 10_000, penaltyMs: null };
  while (reader.next()) {
    if (reader.field === 1) path = decodeDiscovery(reader.part());
    else if (reader.field === 2 || reader.field === 3) load = decodeLoad(reader.part(), reader.field === 3);
  }
  if (path === "") return forbidden(NO_SOURCE, "the backend names no service");
  const { defaultRttMs, decayMs, penaltyMs } = load;
  const traffic = penaltyMs === null ? null : { ...BACKEND_TRAFFIC_DEFAULTS, overloadPenaltyMs: penaltyMs };
  return { kind: "balancer", source: NO_SOURCE, path, defaultRttMs, decayMs, traffic };
}

function decodeDiscovery(reader: ProtoReader): string {
  let path = "";
  while (reader.next()) if (reader.field === 1) path = decodeName(reader.part());
  return path;
}

interface Load {
  readonly defaultRttMs: number;
  readonly decayMs: number;
  /** Null: this kind of load has none. */
  readonly penaltyMs: number | null;
}

/** `PeakEwma`, and `PenaltyPeakEwma`, which begins alike. */
function decodeLoad(reader: ProtoReader, hasPenalty: boolean): Load {
  let defaultRttMs = 0;
  let decayMs = 0;
  let penaltyMs = 0;
  while (reader.next()) {
    if (reader.field === 1) defaultRttMs = decodeDurationMs(reader.part());
    else if (reader.field === 2) decayMs = decodeDurationMs(reader.part());
    else if (reader.field === 3) penaltyMs = decodeDurationMs(reader.part());
  }
  return {
    defaultRttMs: defaultRttMs || 30,
    decayMs: decayMs || 10_000,
    penaltyMs: hasPenalty ? penaltyMs : null,
  };
}

export function forbidden(source: PolicySource, reason: string): Backend {
  return { kind: "forbidden", source, reason };
}
