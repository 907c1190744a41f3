/**
 * A duration as Gateway API writes it (GEP-2257: up to four parts such as `1h30m`, `500ms`), in milliseconds; null when it
 * is none. `0s` is 0.
 */
export function durationMs(text: string): number | null {
  if (!/^([0-9]{1,5}(h|m|s|ms)){1,4}$/.test(text)) return null;
  let sum = 0;
  for (const [, count, unit] of text.matchAll(/([0-9]+)(ms|h|m|s)/g)) sum += Number(count) * UNIT_MS[unit!]!;
  return sum;
}

const UNIT_MS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };
