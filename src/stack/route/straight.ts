import type { Backend, HttpRule, RouteBackend } from "#/model/route.ts";
import type { SessionPersistence } from "#/model/traffic.ts";
import { needsRetryLayer } from "../retry/retry-rule.ts";
import type { Candidate } from "./candidate.ts";

/** Kind of what made the one rule of a target without routes; its requests are counted by endpoint alone. */
export const DEFAULT = "default";

/** The one backend of a target without routes of its own, if that its requests go there is all that becomes of them; null otherwise. */
export function straightBackend({ route, rule }: Candidate): Backend | null {
  const [only] = rule.backends;
  const isStraight =
    route.source.kind === DEFAULT &&
    only !== undefined &&
    rule.backends.length === 1 &&
    only.weight > 0 &&
    only.filters.length === 0 &&
    persistenceOf(only) === null &&
    rule.filters.length === 0 &&
    !isRetried(rule);
  return isStraight ? only.backend : null;
}

export function persistenceOf({ backend }: RouteBackend): SessionPersistence | null {
  return backend.kind === "forbidden" ? null : (backend.traffic?.persistence ?? null);
}

export function isRetried(rule: HttpRule): boolean {
  return needsRetryLayer(
    rule,
    rule.backends.map(({ attemptTimeoutMs }) => attemptTimeoutMs),
  );
}
