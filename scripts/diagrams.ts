/**
 * `npm run diagrams` draws the diagrams in docs/protocol from the tables that the code goes by. With `--check` it
 * writes nothing and fails where a page is behind.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TRANSITIONS } from "#/wire/http2/stream-state.ts";
import { commandLine } from "./command-line.ts";

export const PAGE = join(import.meta.dirname, "../docs/protocol/http2.md");
const BEGIN = "<!-- drawn by `npm run diagrams` from src/wire/http2/stream-state.ts -->";
const END = "<!-- end of the drawing -->";

if (import.meta.main) {
  const { check } = commandLine(
    `Usage: npm run diagrams -- [options]

Draws the diagrams in docs/protocol from the tables that the code goes by.

Options:
  --check       writes nothing, and fails where a page is behind
  -h, --help    shows this`,
    { check: { type: "boolean", default: false } },
  );
  const text = readFileSync(PAGE, "utf8");
  const drawn = withDiagram(text);
  if (check) {
    if (drawn !== text) {
      console.error(
        "docs/protocol/http2.md is behind its table: run `npm run diagrams` and commit the result",
      );
      process.exitCode = 1;
    }
  } else writeFileSync(PAGE, drawn);
}

/** The page with its drawing made anew. */
export function withDiagram(page: string): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin === -1 || end < begin) throw new Error(`the page lacks "${BEGIN}" … "${END}"`);
  return `${page.slice(0, begin)}${BEGIN}\n\n${streamStates()}\n\n${page.slice(end)}`;
}

/** One arrow for each pair of states, with everything that moves a stream along it. */
function streamStates(): string {
  const arrows = Map.groupBy(TRANSITIONS, ([from, , to]) => `${from} --> ${to}`);
  const lines = [...arrows].map(
    ([arrow, rows]) => `    ${arrow} : ${rows.map(([, input]) => input).join(", ")}`,
  );
  return ["```mermaid", "stateDiagram-v2", "    [*] --> IDLE", ...lines, "    CLOSED --> [*]", "```"].join(
    "\n",
  );
}
