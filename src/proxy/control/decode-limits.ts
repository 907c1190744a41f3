import type { PolicySource } from "#/model/policy.ts";
import type { HttpMatch } from "#/model/route.ts";
import type { ConcurrencyLimit, InboundLimits, RateLimit } from "#/model/traffic.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import { decodeDurationMs, decodeSource, NO_SOURCE } from "./decode-common.ts";
import { decodeName } from "./decode-endpoint.ts";
import { decodeHttpMatch } from "./decode-match.ts";

/** `pillion.traffic.InboundLimits`. */
export function decodeLimits(reader: ProtoReader): InboundLimits {
  const exempt: HttpMatch[] = [];
  const rates: RateLimit[] = [];
  let concurrency: ConcurrencyLimit | null = null;
  while (reader.next()) {
    if (reader.field === 1) rates.push(decodeRate(reader.part()));
    else if (reader.field === 2) concurrency = decodeConcurrency(reader.part());
    else if (reader.field === 3) exempt.push(decodeHttpMatch(reader.part()));
  }
  return { exempt, rates, concurrency };
}

function decodeRate(reader: ProtoReader): RateLimit {
  let source = NO_SOURCE;
  const matches: HttpMatch[] = [];
  let key: RateLimit["key"] | null = null;
  let requests = 0;
  let windowMs = 0;
  let burst = 0;
  let isGlobal = false;
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) matches.push(decodeHttpMatch(reader.part()));
    else if (reader.field === 3) key = { kind: "total" };
    else if (reader.field === 4) key = { kind: "identity" };
    else if (reader.field === 5) key = { kind: "header", name: reader.text() };
    else if (reader.field === 6) requests = reader.uint();
    else if (reader.field === 7) windowMs = decodeDurationMs(reader.part());
    else if (reader.field === 8) burst = reader.uint();
    else if (reader.field === 9) isGlobal = reader.flag();
    else if (reader.field === 10) key = { kind: "clients", identities: decodeIdentities(reader.part()) };
  }
  if (key === null) reader.reject("a rate limit whose key is of no known kind");
  if (windowMs === 0) reader.reject("a rate limit without a window");
  return {
    source,
    matches,
    key: key ?? { kind: "total" },
    requests,
    windowMs,
    burst,
    scope: isGlobal ? "global" : "local",
  };
}

function decodeConcurrency(reader: ProtoReader): ConcurrencyLimit {
  let source = NO_SOURCE;
  let limitMin = 0;
  let limitMax = 0;
  let priorityHeader = "";
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) limitMin = reader.uint();
    else if (reader.field === 3) limitMax = reader.uint();
    else if (reader.field === 4) priorityHeader = reader.text();
  }
  return { source, limitMin, limitMax, priorityHeader };
}

/** Linkerd's `inbound.HttpLocalRateLimit`: requests each second, all together, of each client, and of clients by name. */
export function decodeStandardLimit(reader: ProtoReader): InboundLimits {
  let source = NO_SOURCE;
  let total: number | null = null;
  let identity: number | null = null;
  const overrides: { requests: number; identities: readonly string[] }[] = [];
  while (reader.next()) {
    if (reader.field === 1) source = decodeSource(reader.part());
    else if (reader.field === 2) total = decodeRequests(reader.part());
    else if (reader.field === 3) identity = decodeRequests(reader.part());
    else if (reader.field === 4) overrides.push(decodeOverride(reader.part()));
  }
  const rates = [
    ...(total === null ? [] : [secondly(source, { kind: "total" }, total)]),
    ...(identity === null ? [] : [secondly(source, { kind: "identity" }, identity)]),
    ...overrides.map(({ requests, identities }) =>
      secondly(source, { kind: "clients", identities }, requests),
    ),
  ];
  return { exempt: [], rates, concurrency: null };
}

function secondly(source: PolicySource, key: RateLimit["key"], requests: number): RateLimit {
  return { source, matches: [], key, requests, windowMs: 1000, burst: requests, scope: "local" };
}

function decodeRequests(reader: ProtoReader): number {
  let requests = 0;
  while (reader.next()) if (reader.field === 1) requests = reader.uint();
  return requests;
}

function decodeOverride(reader: ProtoReader): { requests: number; identities: readonly string[] } {
  let requests = 0;
  let identities: readonly string[] = [];
  while (reader.next()) {
    if (reader.field === 1) requests = decodeRequests(reader.part());
    else if (reader.field === 2) identities = decodeIdentities(reader.part());
  }
  return { requests, identities };
}

function decodeIdentities(reader: ProtoReader): readonly string[] {
  const identities: string[] = [];
  while (reader.next()) if (reader.field === 1) identities.push(decodeName(reader.part()));
  return identities;
}
