/**
 * What the protocol machines and whole sidecars cost by themselves, in memory, without sockets.
 *
 *     npm run bench:machines -- [--ms N] [--only TEXT]
 *
 * Prints nanoseconds per unit of work, best and median of the rounds. Wall time is noisy on a shared machine; compare within
 * one run. What must not grow unseen is counted instead: `bench/gate.ts`.
 */
import { commandLine } from "../scripts/command-line.ts";
import { spread } from "./lib/report.ts";
import { GROUPS } from "./machines/cases.ts";

const ROUNDS = 9;
const { ms, only } = commandLine(
  `Usage: npm run bench:machines -- [options]

What the protocol machines and whole sidecars cost by themselves, in memory, without sockets: nanoseconds per unit of work.

Options:
  --ms N        milliseconds for each case (default: 300)
  --only TEXT   only cases with this in their name
  -h, --help    shows this`,
  { ms: { type: "string", default: "300" }, only: { type: "string", default: "" } },
  ["ms"],
);

const cases = Object.entries(GROUPS).flatMap(([group, each]) =>
  each.map((one) => ({ ...one, name: `${group}: ${one.name}` })),
);
for (const { name, unit, make } of cases.filter((each) => each.name.includes(only))) {
  const run = make();
  const roundsNs: number[] = [];
  // The first round warms the machine up and does not count.
  for (let round = 0; round <= ROUNDS; round++) {
    const startedNs = process.hrtime.bigint();
    const stopNs = startedNs + BigInt(Math.round((Number(ms) * 1e6) / ROUNDS));
    let units = 0;
    let nowNs = startedNs;
    for (; nowNs < stopNs; nowNs = process.hrtime.bigint()) for (let i = 0; i < 20; i++) units += run();
    if (round > 0) roundsNs.push(Number(nowNs - startedNs) / units);
  }
  const { min, median } = spread(roundsNs);
  console.log(
    `${name.padEnd(64)} best ${min.toFixed(0).padStart(8)} ns  median ${median.toFixed(0).padStart(8)} ns  per ${unit}`,
  );
}
