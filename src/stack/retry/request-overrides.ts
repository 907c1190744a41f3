import type { Fields } from "#/base/fields.ts";
import { keepNeverIndexed } from "#/base/fields.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import type { RetryPolicy, Timeouts } from "#/model/route.ts";

/** What of a rule a request's own fields may change. `requestFrom` and `responseFrom` name the field that set
 * a timeout, "" for none. */
export interface Overridden {
  readonly fields: Fields;
  readonly timeouts: Timeouts;
  readonly retry: RetryPolicy | null;
  readonly requestFrom: string;
  readonly responseFrom: string;
}

/**
 * Fields by which one request asks for timeouts and retries of its own, where its rule allows it (Linkerd's, facts §8.2). They
 * are for the sidecar and go no further. A value that cannot be read is as if it were not there. Null: it has none of them.
 */
export function readOverrides(
  fields: Fields,
  timeouts: Timeouts,
  retry: RetryPolicy | null,
): Overridden | null {
  if (!hasOverrides(fields)) return null;
  const rest: Fields = [];
  keepNeverIndexed(fields, rest);
  let { requestMs, responseMs } = timeouts;
  let requestFrom = "";
  let responseFrom = "";
  let changed = retry;
  for (let i = 0; i < fields.length; i += 2) {
    const spelled = fields[i] as string;
    const value = fields[i + 1] as string;
    const name = isOurs(spelled) ? spelled.toLowerCase() : "";
    const durationMs = name === "" ? null : parseDuration(value);
    switch (name) {
      case "l5d-timeout":
      case "l5d-request-timeout":
        // The longer name wins, wherever it stands.
        if (durationMs === null || (requestFrom === "l5d-request-timeout" && name !== requestFrom)) break;
        requestMs = durationMs === 0 ? null : durationMs;
        requestFrom = name;
        break;
      case "l5d-response-timeout":
        if (durationMs === null) break;
        responseMs = durationMs === 0 ? null : durationMs;
        responseFrom = name;
        break;
      case "l5d-retry-timeout":
        if (durationMs !== null)
          changed = { ...(changed ?? IMPLIED), attemptTimeoutMs: durationMs === 0 ? null : durationMs };
        break;
      case "l5d-retry-limit":
        if (/^\d{1,3}$/.test(value)) changed = { ...(changed ?? IMPLIED), retriesMax: Number(value) };
        break;
      case "l5d-retry-http": {
        const statusRanges = parseStatusRanges(value);
        if (statusRanges !== null) changed = { ...(changed ?? IMPLIED), statusRanges };
        break;
      }
      case "l5d-retry-grpc": {
        const grpcCodes = parseGrpcCodes(value);
        if (grpcCodes !== null) changed = { ...(changed ?? IMPLIED), grpcCodes };
        break;
      }
      default:
        rest.push(spelled, value);
    }
  }
  return {
    fields: rest,
    timeouts: { ...timeouts, requestMs, responseMs },
    retry: changed,
    requestFrom,
    responseFrom,
  };
}

/** What a request that asks for retries gets where its rule has none (facts §8.2). */
const IMPLIED: RetryPolicy = {
  retriesMax: 1,
  statusRanges: [],
  grpcCodes: [],
  onConnectionError: false,
  attemptTimeoutMs: null,
  bodyBytesMax: 65_536,
  backoff: { minMs: 25, maxMs: 250, jitterRatio: 1 },
  respectsRetryAfter: true,
};

const NAMES: ReadonlySet<string> = new Set([
  "l5d-timeout",
  "l5d-request-timeout",
  "l5d-response-timeout",
  "l5d-retry-http",
  "l5d-retry-grpc",
  "l5d-retry-limit",
  "l5d-retry-timeout",
]);

function hasOverrides(fields: Fields): boolean {
  for (let i = 0; i < fields.length; i += 2) if (isOurs(fields[i] as string)) return true;
  return false;
}

/** Hardly any name begins with an "l", so that the rest is asked of few. */
function isOurs(name: string): boolean {
  return (name.charCodeAt(0) | 0x20) === 0x6c && name.length <= 20 && NAMES.has(name.toLowerCase());
}

/** "500ms", "1m30s" (GEP-2257), also with days, as Linkerd has them; "0" as well. Null: malformed, or longer than 24 days. */
function parseDuration(text: string): number | null {
  if (text === "0") return 0;
  if (text.length > 40 || !/^(?:\d{1,10}(?:ms|s|m|h|d)){1,5}$/.test(text)) return null;
  let sumMs = 0;
  for (const [, digits, unit] of text.matchAll(/(\d+)(ms|s|m|h|d)/g))
    sumMs += Number(digits) * (UNITS_MS.get(unit as string) as number);
  return sumMs < 2 ** 31 ? sumMs : null;
}

const UNITS_MS: ReadonlyMap<string, number> = new Map([
  ["ms", 1],
  ["s", 1_000],
  ["m", 60_000],
  ["h", 3_600_000],
  ["d", 86_400_000],
]);

/** "5xx", "gateway-error", "429", "500-503", by commas. One that is wrong makes all of it wrong. */
function parseStatusRanges(text: string): (readonly [number, number])[] | null {
  const ranges: (readonly [number, number])[] = [];
  for (const part of text.slice(0, 256).split(",")) {
    const word = part.trim().toLowerCase();
    const known = /^([1-5])xx$/.exec(word);
    const range = /^(\d{3})(?:-(\d{3}))?$/.exec(word);
    if (word === "gateway-error") ranges.push([502, 504]);
    else if (known !== null) ranges.push([Number(known[1]) * 100, Number(known[1]) * 100 + 99]);
    else if (range !== null) ranges.push([Number(range[1]), Number(range[2] ?? range[1])]);
    else return null;
  }
  return ranges;
}

function parseGrpcCodes(text: string): number[] | null {
  const codes: number[] = [];
  for (const part of text.slice(0, 256).split(",")) {
    const code = CODES.get(part.trim().toLowerCase());
    if (code === undefined) return null;
    codes.push(code);
  }
  return codes;
}

const CODES: ReadonlyMap<string, number> = new Map([
  ["cancelled", GrpcStatus.CANCELLED],
  ["deadline-exceeded", GrpcStatus.DEADLINE_EXCEEDED],
  ["internal", GrpcStatus.INTERNAL],
  ["resource-exhausted", GrpcStatus.RESOURCE_EXHAUSTED],
  ["unavailable", GrpcStatus.UNAVAILABLE],
]);
