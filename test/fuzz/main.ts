/**
 * Mutated and random bytes for every protocol machine, for as long as one likes: `npm run fuzz -- [--minutes N] [--seed N]
 * [--machine NAME]…`. No input may make a machine throw, hold more than its bound, or mean something else when it comes
 * in other pieces. A failure prints the seed and the smallest input that shows it, and ends the run with 1.
 */
import { commandLine } from "../../scripts/command-line.ts";
import { Fuzz, type FuzzFailure } from "./fuzz.ts";
import { MACHINES } from "./machines.ts";

/** How long a machine has before it is the next one's turn. */
const TURN_MS = 250;

const names = MACHINES.map(({ name }) => name);
const values = commandLine(
  `Usage: npm run fuzz -- [options]

Mutated and random bytes for every protocol machine.

Options:
  --minutes N      for how long (default: 5)
  --seed N         as a failure printed it
  --machine NAME   this one alone, again for more: ${names.join(", ")}
  -h, --help       shows this`,
  {
    minutes: { type: "string", default: "5" },
    seed: { type: "string" },
    machine: { type: "string", multiple: true },
  },
  ["minutes"],
);
const unknown = values.machine?.filter((name) => !names.includes(name)) ?? [];
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
const minutes = Number(values.minutes);
if (unknown.length > 0 || !Number.isInteger(seed) || !(minutes > 0)) {
  console.error(`fuzz: --minutes N --seed N --machine ${names.join("|")}`);
  process.exit(2);
}

const wanted = MACHINES.filter(({ name }) => values.machine?.includes(name) ?? true);
const fuzzes = wanted.map((machine) => new Fuzz(machine, seed));
const endAtMs = performance.now() + minutes * 60_000;
let failed: { readonly fuzz: Fuzz; readonly failure: FuzzFailure } | null = null;
while (failed === null && performance.now() < endAtMs) {
  for (const fuzz of fuzzes) {
    const turnEndMs = Math.min(endAtMs, performance.now() + TURN_MS);
    while (failed === null && performance.now() < turnEndMs) {
      const failure = fuzz.execute();
      if (failure !== null) failed = { fuzz, failure };
    }
  }
}
for (const fuzz of fuzzes)
  console.log(
    `${fuzz.machine.name.padEnd(18)} ${String(fuzz.executions).padStart(10)} executions, ${fuzz.poolSize} inputs kept`,
  );
if (failed !== null) {
  const { fuzz, failure } = failed;
  console.log(`\n${fuzz.machine.name}: execution ${failure.execution}: ${failure.problem}`);
  console.log(`smallest input, ${failure.input.length} bytes: ${Buffer.from(failure.input).toString("hex")}`);
  console.log(JSON.stringify(Buffer.from(failure.input).toString("latin1")));
}
const executions = fuzzes.reduce((sum, fuzz) => sum + fuzz.executions, 0);
console.log(
  `fuzz: ${executions} executions of ${fuzzes.length} machines, ${failed === null ? "no" : "1"} failure, seed ${seed}`,
);
process.exitCode = failed === null ? 0 : 1;
