/** `npm run conformance:hpack`: all stories both ways, the figure last. */
import { commandLine } from "../../../scripts/command-line.ts";
import { needCorpus } from "../corpora.ts";
import { judgeHpack } from "./hpack.ts";

commandLine(
  `Usage: npm run conformance:hpack

All stories both ways; the figure comes last.`,
  {},
);
needCorpus("hpack");
const { storiesDecoded, blocksEncoded, ratios, lines, problems } = await judgeHpack();
for (const line of lines) console.log(line);
for (const line of problems) console.log(`FAILED   ${line}`);
const worst = Math.max(...ratios.map(({ ours, theirs }) => ours / theirs));
console.log(
  `hpack: ${storiesDecoded} stories decoded, ${blocksEncoded} blocks encoded and read back by nghttp2 and Go, ` +
    `at most ${worst.toFixed(3)} of nghttp2's size, ${problems.length} failed`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
