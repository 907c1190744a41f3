import type { RateLimit } from "#/model/traffic.ts";

/** What tests of limits share. */

export const SOURCE = {
  group: "pillion.dev",
  kind: "RateLimitPolicy",
  namespace: "shop",
  name: "web",
  section: "",
  port: 0,
} as const;

/** Ten a second for all, two of them at once. */
export function rate(over: Partial<RateLimit> = {}): RateLimit {
  const key = { kind: "total" } as const;
  return {
    source: SOURCE,
    matches: [],
    key,
    requests: 10,
    windowMs: 1_000,
    burst: 2,
    scope: "local",
    ...over,
  };
}
