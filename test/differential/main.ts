/**
 * `npm run differential -- --seed N --cases N`: the same requests beside real servers and through two sidecars, then with faults
 * put into the sidecars. Prints the grid, what is not compared, and every difference; the figure comes last.
 */
import { commandLine } from "../../scripts/command-line.ts";
import { goTool } from "../tools/go-tool.ts";
import { cannotRun } from "../e2e/sidecar/rig/mesh.ts";
import { NOT_COMPARED } from "./compare.ts";
import { drawConversations } from "./draw.ts";
import { EXPECTED_DIFFERENCES } from "./expected-differences.ts";
import { CONTROL, FAULTS } from "./faults.ts";
import { CELLS, printGrid } from "./grid.ts";
import { describeDifference, judge } from "./judge.ts";
import { Lab } from "./lab.ts";
import { findFault } from "./seeded.ts";

const CASES_MIN = 10_000;
/** Of ten faults. */
const FOUND_MIN = 9;
/** A fault has to be found by so many conversations. */
const FAULT_CONVERSATIONS = 1_000;
/** Differences that are shown in full. */
const SHOWN_MAX = 50;

const values = commandLine(
  `Usage: npm run differential -- [options]

The same requests beside real servers and through two sidecars, and then with faults put into the sidecars. Needs root.

Options:
  --seed N     as an earlier run printed it
  --cases N    how many are drawn (default: 12500)
  -h, --help   shows this`,
  { seed: { type: "string" }, cases: { type: "string" } },
  ["cases"],
);
const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000));
const cases = Number(values.cases ?? 12_500);
const why = cannotRun();
if (why !== null) {
  console.error(`differential: ${why}`);
  process.exit(1);
}

console.log(`seed ${seed}`);
const lab = await Lab.start(await goTool("http-origin"));
let figure = "";
let isGood = false;
try {
  const conversations = drawConversations(seed, cases);
  const direct = await lab.hold("direct", conversations);
  const verdict = judge(conversations, direct, await lab.hold("meshed", conversations));

  const counts = new Map<string, number>();
  for (const { cell } of conversations.flatMap((each) => each.cases))
    if (cell !== "") counts.set(cell, (counts.get(cell) ?? 0) + 1);
  console.log(printGrid(counts));
  console.log("Not compared:");
  for (const [names, reason] of NOT_COMPARED) console.log(`  ${names.join(", ")}: ${reason}`);
  console.log("Expected differences:");
  const unused = [];
  for (const { name, why: reason } of EXPECTED_DIFFERENCES) {
    const count = verdict.explained.get(name) ?? 0;
    if (count === 0) unused.push(name);
    console.log(`  ${String(count).padStart(6)}  ${name}\n          ${reason}`);
  }
  for (const name of unused) console.log(`NO LONGER SEEN  ${name}`);
  for (const each of verdict.unexplained.slice(0, SHOWN_MAX)) console.log(describeDifference(each));

  console.log("Faults:");
  const few = conversations.slice(0, FAULT_CONVERSATIONS);
  const chance = await findFault(lab, CONTROL, few, direct);
  console.log(`  ${CONTROL.name}: ${chance === null ? "no difference" : describeDifference(chance)}`);
  let found = 0;
  for (const fault of FAULTS) {
    const sign = await findFault(lab, fault, few, direct);
    if (sign !== null) found++;
    const { one, difference } = sign ?? {};
    const by =
      sign === null ? "NOT FOUND" : `found by case ${one?.id} to ${one?.origin}: ${difference?.what}`;
    console.log(`  ${fault.name}: ${by}`);
  }

  isGood =
    verdict.cases >= CASES_MIN &&
    counts.size === CELLS.length &&
    verdict.unexplained.length === 0 &&
    unused.length === 0 &&
    chance === null &&
    found * 10 >= FAULTS.length * FOUND_MIN;
  figure =
    `differential: ${verdict.cases} cases, ${counts.size} of ${CELLS.length} cells, ` +
    `${verdict.unexplained.length} differences unexplained, ${unused.length} expected ones gone, ` +
    `${found} of ${FAULTS.length} faults found (seed ${seed})`;
} finally {
  await lab.close();
}
console.log(figure);
process.exitCode = isGood ? 0 : 1;
