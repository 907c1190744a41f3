import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HttpLocalRateLimitSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { InboundLimitsSchema, RateLimitSchema } from "#/gen/pillion/traffic_pb.ts";
import type { InboundLimits, RateLimit } from "#/model/traffic.ts";
import { wireMatch } from "./encode-match.ts";
import type { Lose } from "./standard-refusal.ts";
import { millis, wireSource } from "./wire.ts";

/** All limits of a port, for a sidecar that understands them. */
export function wireLimits(limits: InboundLimits): MessageInitShape<typeof InboundLimitsSchema> {
  const { exempt, rates, concurrency } = limits;
  return {
    exempt: exempt.map(wireMatch),
    rates: rates.map(wireRate),
    ...(concurrency === null
      ? {}
      : {
          concurrency: {
            metadata: wireSource(concurrency.source),
            limitMin: concurrency.limitMin,
            limitMax: concurrency.limitMax,
            priorityHeader: concurrency.priorityHeader,
          },
        }),
  };
}

function wireRate(rate: RateLimit): MessageInitShape<typeof RateLimitSchema> {
  return {
    metadata: wireSource(rate.source),
    matches: rate.matches.map(wireMatch),
    key: wireKey(rate.key),
    requests: rate.requests,
    window: millis(rate.windowMs),
    burst: rate.burst,
    global: rate.scope === "global",
  };
}

function wireKey(key: RateLimit["key"]): NonNullable<MessageInitShape<typeof RateLimitSchema>["key"]> {
  switch (key.kind) {
    case "total":
    case "identity":
      return { case: key.kind, value: {} };
    case "header":
      return { case: "header", value: key.name };
    case "clients":
      return { case: "clients", value: { identities: key.identities.map((name) => ({ name })) } };
  }
}

/** What the standard field holds of the limits, or that nothing of the kind may pass. */
export type StandardLimit =
  | { readonly kind: "none" }
  | { readonly kind: "limit"; readonly limit: MessageInitShape<typeof HttpLocalRateLimitSchema> }
  /** A whole request each second would be too many. */
  | { readonly kind: "refused"; readonly rate: RateLimit };

/**
 * Limits as Linkerd's `HttpLocalRateLimit` can say them: so many requests each second, of all clients and of each. What counts
 * more finely becomes a count that is at least as strict: of some requests, one of all; of each value of a header, one of all;
 * of all pods together, an equal part for each of `pods`. Adaptive concurrency is left out: it sheds what would only queue.
 */
export function standardLimits(limits: InboundLimits, pods: number, lose: Lose): StandardLimit {
  if (limits.concurrency !== null)
    lose(limits.concurrency.source, "bound no requests under way at the workload's side");
  if (limits.rates.length === 0) return { kind: "none" };
  if (limits.exempt.length > 0) lose(limits.rates[0]!.source, "count probes too");
  let total: number | null = null;
  let identity: number | null = null;
  for (const rate of limits.rates) {
    const perSecond = secondly(rate, pods);
    if (perSecond < 1) {
      lose(rate.source, "refuse every request: they count in whole requests a second");
      return { kind: "refused", rate };
    }
    if (!isExact(rate)) lose(rate.source, "keep a stricter limit: so many requests each second, in each pod");
    // Named clients have no more than each client would.
    if (rate.key.kind === "identity" || rate.key.kind === "clients") identity = least(identity, perSecond);
    else total = least(total, perSecond);
  }
  return {
    kind: "limit",
    limit: {
      metadata: wireSource(limits.rates[0]!.source),
      ...(total === null ? {} : { total: { requestsPerSecond: total } }),
      ...(identity === null ? {} : { identity: { requestsPerSecond: identity } }),
    },
  };
}

/** Its bucket holds a second's worth, which may be no more than ours may take at once. */
function secondly({ requests, windowMs, burst, scope }: RateLimit, pods: number): number {
  const share = scope === "global" ? Math.max(1, pods) : 1;
  return Math.floor(Math.min((requests * 1000) / windowMs, Math.max(1, burst)) / share);
}

function isExact({ matches, key, requests, windowMs, burst, scope }: RateLimit): boolean {
  return (
    matches.length === 0 &&
    (key.kind === "total" || key.kind === "identity") &&
    windowMs === 1000 &&
    burst === requests &&
    scope === "local"
  );
}

function least(a: number | null, b: number): number {
  return a === null ? b : Math.min(a, b);
}
