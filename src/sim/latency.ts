import type { Random } from "#/base/random.ts";

/** How long something takes. Log-normal is what services show: most answers near the median, and a long tail. */
export type Latency =
  | { readonly kind: "constant"; readonly ms: number }
  | { readonly kind: "exponential"; readonly meanMs: number }
  /** `0 < medianMs <= p99Ms`. */
  | { readonly kind: "log-normal"; readonly medianMs: number; readonly p99Ms: number };

export function drawMs(latency: Latency, random: Random): number {
  switch (latency.kind) {
    case "constant":
      return latency.ms;
    case "exponential":
      return drawExponential(latency.meanMs, random);
    case "log-normal":
      return (
        latency.medianMs * Math.exp((Math.log(latency.p99Ms / latency.medianMs) / Z99) * drawNormal(random))
      );
  }
}

/** Gaps between events that do not know of each other (a Poisson process). */
export function drawExponential(mean: number, random: Random): number {
  return -mean * Math.log(1 - random.next());
}

/** Standard normal, by Box and Muller (1958), one of the pair. */
function drawNormal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
}

/** The 99th percentile of the standard normal distribution. */
const Z99 = 2.326347874;
