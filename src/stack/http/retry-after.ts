import type { Fields } from "#/base/fields.ts";
import { fieldValue } from "#/base/fields.ts";

/** Facts §12: whoever asks for more is taken to have asked for so much. */
const PAUSE_MS_MAX = 300_000;

/**
 * Milliseconds for which an answer asks to be left alone, at most 300,000: `Retry-After` (RFC 9110 §10.2.3) or
 * `grpc-retry-pushback-ms`. 0: it does not ask, or cannot be read. `wallMs`: now, since 1970.
 */
export function pauseAskedMs(fields: Fields, wallMs: number): number {
  const pushback = fieldValue(fields, "grpc-retry-pushback-ms");
  // A negative one says "never again", of the request and not of the endpoint.
  if (pushback !== null) return /^\d{1,9}$/.test(pushback) ? bounded(Number(pushback)) : 0;
  const after = fieldValue(fields, "retry-after");
  if (after === null) return 0;
  if (/^\d{1,9}$/.test(after)) return bounded(Number(after) * 1000);
  const dateMs = Date.parse(after);
  return Number.isNaN(dateMs) ? 0 : bounded(dateMs - wallMs);
}

function bounded(pauseMs: number): number {
  return Math.min(PAUSE_MS_MAX, Math.max(0, pauseMs));
}
