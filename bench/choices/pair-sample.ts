import type { Namespaces } from "../lib/namespaces.ts";
import { runBurst } from "../lib/load.ts";
import { cpuBetween, cpuUsed } from "../lib/process-cost.ts";
import { showSpread, spread } from "../lib/report.ts";
import type { Shape } from "../lib/shapes.ts";
import { applicationsUs } from "./applications.ts";

/** What one burst of load cost, each per request. */
export interface Sample {
  /** Of the processes looked at, in their order. */
  eachUs: number[];
  /** Load generator and nginx. */
  applicationsUs: number;
  perSecond: number;
  p50Ms: number;
  p99Ms: number;
}

/** One burst of HTTP/1.1 at `http1`. Throws when a request failed: its figures would say nothing. */
export async function sampleBurst(
  world: Namespaces,
  http1: string,
  pids: readonly number[],
  shape: Shape,
  seconds: number,
): Promise<Sample> {
  const before = pids.map(cpuUsed);
  const applicationsBefore = applicationsUs(world);
  const burst = await runBurst({ world, places: { http1 } }, shape, seconds, 0);
  if (burst === null) throw new Error(`${shape.name} asks for more than HTTP/1.1`);
  const { done, failed, perSecond, p50Us, p99Us } = burst;
  if (failed > 0) throw new Error(`${failed} of ${done} requests failed`);
  const eachUs = pids.map((pid, i) => {
    const { userUs, systemUs } = cpuBetween(before[i]!, cpuUsed(pid));
    return (userUs + systemUs) / done;
  });
  const applications = (applicationsUs(world) - applicationsBefore) / done;
  return { eachUs, applicationsUs: applications, perSecond, p50Ms: p50Us / 1000, p99Ms: p99Us / 1000 };
}

/** Least, middle and greatest of everything. */
export function showSamples(samples: readonly Sample[], roles: readonly string[]): string {
  const of = (value: (sample: Sample) => number, digits: number): string =>
    showSpread(spread(samples.map(value)), digits);
  const each = roles.map((role, i) => `${role} ${of(({ eachUs }) => eachUs[i] ?? 0, 1)} µs`);
  return (
    `${each.join(", ")}, applications ${of((one) => one.applicationsUs, 1)} µs, ${of((one) => one.perSecond, 0)}/s, ` +
    `p50 ${of((one) => one.p50Ms, 2)} ms, p99 ${of((one) => one.p99Ms, 2)} ms`
  );
}
