import type { InstancePaths } from "../instance-paths.ts";
import { flowsText, isRefused } from "./flows-text.ts";
import { readFlowsFiles } from "./flows-file.ts";
import type { FlowsFile } from "./flows-file.ts";
import { gatherFlows } from "./gather.ts";
import { suggest } from "./suggest.ts";
import { suggestionsYaml, timeText } from "./suggest-yaml.ts";

type Say = (text: string) => void;

export interface FlowsOptions {
  /** Null: all. */
  readonly namespace: string | null;
  /** Only what was refused, or would be. */
  readonly refused: boolean;
  readonly json: boolean;
}

/** Prints what all sidecars have seen. */
export async function flows(
  paths: InstancePaths,
  { namespace, refused, json }: FlowsOptions,
  print: Say,
  warn: Say,
): Promise<void> {
  const all = await gatherFlows(paths, warn);
  const servers = all.servers
    .filter((server) => namespace === null || server.namespace === namespace)
    .map((server) => (refused ? { ...server, flows: server.flows.filter(isRefused) } : server));
  const file = { ...all, servers };
  print(json ? JSON.stringify(file, null, 2) : flowsText(file));
}

export interface SuggestOptions {
  readonly namespace: string | null;
  /** Files of flows; none: what the running mesh has seen. */
  readonly from: readonly string[];
  readonly level: "network" | "requests";
  readonly mode: "Audit" | "Enforce";
}

/** Prints the policies that allow what was seen, as YAML for the folder. */
export async function suggestPolicies(
  paths: InstancePaths,
  { namespace, from, level, mode }: SuggestOptions,
  print: Say,
  warn: Say,
): Promise<void> {
  const file = from.length === 0 ? await gatherFlows(paths, warn) : readFlowsFiles(from);
  const suggestions = suggest(file, { namespace, level });
  print(suggestionsYaml(suggestions, { mode, heading: headingOf(file, level, mode) }).trimEnd());
}

function headingOf(file: FlowsFile, level: string, mode: SuggestOptions["mode"]): string[] {
  const times = file.servers.flatMap(({ flows: seen }) =>
    seen.flatMap(({ firstSeenMs, lastSeenMs }) => [firstSeenMs, lastSeenMs]),
  );
  const span =
    times.length === 0
      ? "nothing"
      : `what was seen from ${timeText(times.reduce((a, b) => Math.min(a, b)))} to ${timeText(times.reduce((a, b) => Math.max(a, b)))}`;
  return [
    `Suggested by "pillion authz suggest --level ${level}" from ${span}. What comes once a week or`,
    "in an emergency was perhaps not among it: read what stands here before it is enforced.",
    "",
    ...(mode === "Audit"
      ? [
          "1. Save it in the folder. In mode Audit nothing is refused; what would be is counted.",
          "2. Look at that for as long as it takes:  pillion authz flows --refused",
          "3. Enforce it, once nothing is missing:    sed -i 's/^  mode: Audit$/  mode: Enforce/' FILE",
        ]
      : [
          "Before it is saved in the folder, where it counts at once:",
          "  pillion authz test -f COPY_OF_THE_FOLDER_WITH_IT",
        ]),
  ];
}
