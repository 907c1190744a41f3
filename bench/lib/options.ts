import type { Options } from "../../scripts/command-line.ts";
import { SHAPES } from "./shapes.ts";

/** What a run is asked for. */
export const OPTIONS = {
  routes: { type: "boolean", default: false },
  access: { type: "boolean", default: false },
  quick: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  report: { type: "string" },
  rounds: { type: "string" },
  seconds: { type: "string" },
  only: { type: "string" },
  shape: { type: "string" },
  part: { type: "string" },
  variant: { type: "string", multiple: true, default: [] },
  profile: { type: "string" },
  envoy: { type: "string" },
  "linkerd2-proxy": { type: "string" },
} satisfies Options;

export const USAGE = `Usage: pillion bench [options]      (or npm run bench -- [options])

Measures sidecars and their peers side by side: every subject is up all the time, and each round gives each of them one short burst of
each shape of load, in turn. Needs root, since it makes network namespaces; all of it takes 20 minutes.

Options:
  --quick                   fewer subjects and shapes, and those alone: a minute or two
  --only NAME[,NAME]        some subjects: direct, nginx, haproxy, prototype, envoy, linkerd2-proxy, pillion
  --shape NAME[,NAME]       some shapes, and those alone
  --part NAME[,NAME]        some parts: crowd, mesh-size, shapes, watched, let-through, policy
  --rounds N, --seconds N   how often, and how long a burst is (default: 5 of 1 s)
  --envoy PATH              Envoy's binary; without it Envoy is not measured
  --linkerd2-proxy PATH     linkerd2-proxy's binary; likewise
  --variant NAME=COMMAND    one more Pillion pair under another command, as small=node --max-semi-space-size=2
  --profile FOLDER          where the time goes, function by function, and a flame graph of each sidecar
  --report FOLDER           writes performance.md, .json and pictures there
  --json                    prints JSON alone
  --routes, --access        only what 200 routes, or 100 policies, cost a request, within one process; needs no root
  -h, --help                shows this

Shapes: ${wrapped(SHAPES.map(({ name }) => name))}`;

function wrapped(words: readonly string[]): string {
  let line = "Shapes:".length;
  return words
    .map((word, i) => {
      const text = i === words.length - 1 ? word : `${word}, `;
      const isOver = line + text.length > 100;
      line = isOver ? 8 + text.length : line + text.length;
      return isOver ? `\n        ${text}` : text;
    })
    .join("")
    .replaceAll(/ +$/gm, "");
}
