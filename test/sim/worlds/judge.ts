import { startFailures } from "#/sim/failures.ts";
import { startLoads } from "#/sim/load.ts";
import { reportOf } from "#/sim/report.ts";
import { World } from "#/sim/world.ts";
import { Invariants } from "./invariants.ts";
import type { RandomWorld } from "./random-world.ts";
import { randomWorld } from "./random-world.ts";

export interface Verdict {
  readonly seed: number;
  readonly violations: readonly string[];
  /** Requests that programs made, and attempts that sidecars sent for them. */
  readonly requests: number;
  readonly attempts: number;
  /** All that can be told of the run: two runs of one seed have the same. */
  readonly report: string;
}

/** A fault that is put into a world, or into what is claimed of it, to see it found. */
export interface SeededFault {
  readonly inWorld?: (world: World) => void;
  readonly inClaims?: (claims: RandomWorld) => RandomWorld;
}

/** Plays the world of a seed and says what broke. */
export function judge(
  seed: number,
  trace: ((line: string) => void) | null = null,
  { inClaims, inWorld }: SeededFault = {},
): Verdict {
  const made = randomWorld(seed);
  const world = new World(made.plan);
  const invariants = new Invariants(world, inClaims?.(made) ?? made, trace);
  inWorld?.(world);
  try {
    startLoads(world);
    startFailures(world);
    world.run();
    invariants.finish();
  } catch (error) {
    world.violated(
      `an exception: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    );
  }
  let requests = 0;
  let attempts = 0;
  for (const flow of world.flows.values()) for (const tally of flow.phases) requests += tally.requests;
  for (const service of world.services.values()) attempts += service.attempts.total;
  return { seed, violations: world.violations, requests, attempts, report: JSON.stringify(reportOf(world)) };
}
