/** `npm run conformance:h2`: every case of h2spec on every leg; the figure comes last. */
import { commandLine } from "../../../scripts/command-line.ts";
import { CASES, LEGS, runH2spec, summarize } from "./h2spec.ts";

commandLine(
  `Usage: npm run conformance:h2

Every case of h2spec on every leg; the figure comes last. Needs root.`,
  {},
);
const { passed, expected, problems } = summarize(await runH2spec());
for (const line of expected) console.log(`differs  ${line}`);
for (const line of problems) console.log(`FAILED   ${line}`);
console.log(
  `h2spec: ${passed} of ${CASES * LEGS.length} cases passed, ${expected.length} differ for a written reason, ${problems.length} failed`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
