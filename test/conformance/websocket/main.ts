/** `npm run conformance:websocket`: every case between every pair of libraries, the figure last. */
import { commandLine } from "../../../scripts/command-line.ts";
import { judgeWebSocket } from "./websocket.ts";

commandLine(
  `Usage: npm run conformance:websocket

Every case between every pair of libraries; the figure comes last. Needs root.`,
  {},
);
const { pairs, passed, lines, problems } = await judgeWebSocket({ isShort: false });
for (const line of lines) console.log(line);
for (const line of problems) console.log(`FAILED   ${line}`);
console.log(
  `websocket: ${passed} cases passed between ${pairs} pairs of libraries, ${problems.length} failed`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
