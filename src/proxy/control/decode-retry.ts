import type { RetryPolicy } from "#/model/route.ts";
import type { ProtoReader } from "#/wire/proto.ts";
import type { WireBackoff } from "./decode-common.ts";
import { decodeBackoff, decodeTimeoutMs } from "./decode-common.ts";

/** The standard part of a route's retries. */
export type WireRetry = Pick<
  RetryPolicy,
  "retriesMax" | "statusRanges" | "grpcCodes" | "attemptTimeoutMs" | "bodyBytesMax"
> &
  WireBackoff;

/** As Linkerd's control plane sends it (facts §11.5). */
const BACKOFF: WireBackoff = {
  backoff: { minMs: 25, maxMs: 250, jitterRatio: 1 },
  respectsRetryAfter: false,
};

/** `HttpRoute.Retry` and `GrpcRoute.Retry`, which differ in their conditions. */
export function decodeRetry(reader: ProtoReader, isGrpc: boolean): WireRetry {
  let retriesMax = 0;
  let bodyBytesMax = 0;
  const statusRanges: (readonly [number, number])[] = [];
  const grpcCodes: number[] = [];
  let attemptTimeoutMs: number | null = null;
  let backoff = BACKOFF;
  while (reader.next()) {
    if (reader.field === 1) retriesMax = reader.uint();
    else if (reader.field === 2) bodyBytesMax = reader.uint();
    else if (reader.field === 3 && isGrpc) {
      // The numbers of the fields are the codes.
      const conditions = reader.part();
      while (conditions.next())
        if (CODES.includes(conditions.field) && conditions.flag()) grpcCodes.push(conditions.field);
    } else if (reader.field === 3) {
      const conditions = reader.part();
      while (conditions.next()) if (conditions.field === 1) statusRanges.push(decodeRange(conditions.part()));
    } else if (reader.field === 4) attemptTimeoutMs = decodeTimeoutMs(reader.part());
    else if (reader.field === 5) backoff = decodeBackoff(reader.part());
  }
  return { retriesMax, bodyBytesMax, statusRanges, grpcCodes, attemptTimeoutMs, ...backoff };
}

const CODES: readonly number[] = [1, 4, 8, 13, 14];

/** `StatusRange` of either file. */
function decodeRange(reader: ProtoReader): readonly [number, number] {
  let from = 0;
  let to = 0;
  while (reader.next()) {
    if (reader.field === 1) from = reader.uint();
    else if (reader.field === 2) to = reader.uint();
  }
  return [from, to];
}

/** `pillion.traffic.RuleExtension`. */
export interface RuleExtension {
  readonly name: string;
  readonly attemptTimeoutMs: number | null;
  readonly onConnectionError: boolean;
  readonly grpcCodes: readonly number[];
  readonly statusRanges: readonly (readonly [number, number])[];
}

export const NO_EXTENSION: RuleExtension = {
  name: "",
  attemptTimeoutMs: null,
  onConnectionError: false,
  grpcCodes: [],
  statusRanges: [],
};

export function decodeRuleExtension(reader: ProtoReader): RuleExtension {
  let name = "";
  let attemptTimeoutMs: number | null = null;
  let onConnectionError = false;
  const grpcCodes: number[] = [];
  const statusRanges: (readonly [number, number])[] = [];
  while (reader.next()) {
    if (reader.field === 1) name = reader.text();
    else if (reader.field === 2) attemptTimeoutMs = decodeTimeoutMs(reader.part());
    else if (reader.field === 3) onConnectionError = reader.flag();
    else if (reader.field === 4) reader.uints(grpcCodes);
    else if (reader.field === 5) statusRanges.push(decodeRange(reader.part()));
  }
  return { name, attemptTimeoutMs, onConnectionError, grpcCodes, statusRanges };
}

/** Both parts together: where ours has a list, it is the whole one. */
export function retryOf(retry: WireRetry, extension: RuleExtension): RetryPolicy {
  return {
    ...retry,
    statusRanges: extension.statusRanges.length > 0 ? extension.statusRanges : retry.statusRanges,
    grpcCodes: extension.grpcCodes.length > 0 ? extension.grpcCodes : retry.grpcCodes,
    onConnectionError: extension.onConnectionError,
  };
}
