import type { Spread } from "./report.ts";
import type { Results } from "./results.ts";

/** Of a run in which nothing was measured. */
export const NO_RESULTS: Results = {
  machine: "a machine",
  versions: { Node: "26.0.0" },
  rounds: 3,
  seconds: 1,
  skipped: [],
  rows: [],
  memory: [],
  reference: null,
  watched: [],
  crowd: [],
  meshSizes: [],
  letThrough: null,
  policy: [],
};

/** The same in all rounds. */
export function flat(value: number): Spread {
  return { min: value, median: value, max: value };
}
