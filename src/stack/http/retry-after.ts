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
  return bounded(retryAfterMs(fields, wallMs));
}

/** RFC 9110 §10.2.3, in milliseconds from now. 0: there is none, it is over, or it cannot be read. */
export function retryAfterMs(fields: Fields, wallMs: number): number {
  const after = fieldValue(fields, "retry-after")?.trim() ?? "";
  if (/^\d{1,10}$/.test(after)) return Number(after) * 1_000;
  // RFC 9110 §5.6.7: a date says its day of the week first.
  const dateMs = /^[A-Z][a-z]{2}/.test(after) ? Date.parse(after) : Number.NaN;
  return Number.isNaN(dateMs) ? 0 : Math.max(0, dateMs - wallMs);
}

function bounded(pauseMs: number): number {
  return Math.min(PAUSE_MS_MAX, pauseMs);
}
