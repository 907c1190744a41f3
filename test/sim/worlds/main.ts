/**
 * `npm run sim`: worlds by the thousand, each from its seed, each held against what must never happen; then the scenarios,
 * each with its bounds. The last line is the figure; the exit code is 1 where anything fell short.
 *
 *     npm run sim                            3,000 seeds and all scenarios
 *     npm run sim -- --seeds 20000 --from 1
 *     npm run sim -- --seed 17               one world, with everything that happened in it
 *     npm run sim -- --scenario retry-storm  one scenario
 */
import { commandLine } from "../../../scripts/command-line.ts";
import { randomWorld } from "./random-world.ts";
import { judge } from "./judge.ts";
import { SCENARIOS } from "./scenarios.ts";

/** Worlds with violations that are told of one by one. */
const SHOWN_MAX = 10;

const values = commandLine(
  `Usage: npm run sim -- [options]

Worlds by the thousand, each held against what must never happen; then the scenarios, each with its bounds.

Options:
  --seeds N         how many worlds (default: 3000)
  --from N          the first one's seed (default: 1)
  --seed N          this world alone, with everything that happens in it
  --scenario NAME   this scenario alone: ${Object.keys(SCENARIOS).join(", ")}
  -h, --help        shows this`,
  {
    seed: { type: "string" },
    seeds: { type: "string", default: "3000" },
    from: { type: "string", default: "1" },
    scenario: { type: "string" },
  },
);

if (values.seed !== undefined) process.exitCode = replay(wholeNumber("seed", values.seed));
else if (values.scenario !== undefined) process.exitCode = play([values.scenario]);
else {
  const seedsCode = playSeeds(wholeNumber("from", values.from), wholeNumber("seeds", values.seeds));
  process.exitCode = Math.max(seedsCode, play(Object.keys(SCENARIOS)));
}

/** Ends the program where it is none: no seed at all would break nothing. */
function wholeNumber(option: string, text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  console.error(`--${option} ${text}: it must be a whole number from 1`);
  process.exit(2);
}

function replay(seed: number): number {
  const { plan } = randomWorld(seed);
  console.log(JSON.stringify(plan, null, 1));
  const verdict = judge(seed, (line) => console.log(line));
  for (const violation of verdict.violations) console.log(`✗ ${violation}`);
  console.log(`seed ${seed}: ${verdict.requests} requests, ${verdict.violations.length} violations`);
  return verdict.violations.length === 0 ? 0 : 1;
}

function playSeeds(from: number, count: number): number {
  const startedMs = performance.now();
  let requests = 0;
  let attempts = 0;
  const bad: number[] = [];
  for (let seed = from; seed < from + count; seed++) {
    const verdict = judge(seed);
    requests += verdict.requests;
    attempts += verdict.attempts;
    const violations = [...verdict.violations];
    // Now and then twice: whatever depends on more than the seed is a bug of its own.
    if (seed % 50 === 0 && judge(seed).report !== verdict.report) violations.push("two runs differ");
    if (violations.length === 0) continue;
    bad.push(seed);
    if (bad.length <= SHOWN_MAX)
      console.log(`✗ seed ${seed}: ${violations.join("; ")}\n    npm run sim -- --seed ${seed}`);
  }
  const seconds = ((performance.now() - startedMs) / 1_000).toFixed(0);
  console.log(
    `${bad.length === 0 ? "✓" : "✗"} ${count} worlds, ${requests} requests, ${attempts} attempts, ${bad.length} worlds with violations (${seconds} s)`,
  );
  return bad.length === 0 ? 0 : 1;
}

function play(names: readonly string[]): number {
  let failed = 0;
  for (const name of names) {
    const scenario = SCENARIOS[name];
    if (scenario === undefined) {
      console.error(`no scenario is called ${name}; there are ${Object.keys(SCENARIOS).join(", ")}`);
      return 2;
    }
    const { isMet, lines } = scenario();
    if (!isMet) failed++;
    console.log(`${isMet ? "✓" : "✗"} ${name}`);
    for (const line of lines) console.log(`    ${line}`);
  }
  console.log(`${names.length - failed} of ${names.length} scenarios within their bounds`);
  return failed === 0 ? 0 : 1;
}
