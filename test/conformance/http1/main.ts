/** `npm run conformance:http1`: every difference from llhttp with its reason, the figure last. */
import { commandLine } from "../../../scripts/command-line.ts";
import { needCorpus } from "../corpora.ts";
import { judgeHttp1 } from "./http1.ts";

commandLine(
  `Usage: npm run conformance:http1

Every difference from llhttp with its reason; the figure comes last.`,
  {},
);
needCorpus("http1");
const { cases, equal, stricter, otherwise, problems } = judgeHttp1();
for (const line of stricter) console.log(`stricter  ${line}`);
for (const line of otherwise) console.log(`otherwise ${line}`);
for (const line of problems) console.log(`FAILED    ${line}`);
console.log(
  `http1: ${cases} cases: ${equal} as llhttp's strict mode, ${stricter.length} stricter and ${otherwise.length} otherwise for a written reason, ` +
    `${problems.length} failed`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
