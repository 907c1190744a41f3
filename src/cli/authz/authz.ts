import { accessMatrix } from "#/control/explain/access-matrix.ts";
import { explainAccess } from "#/control/explain/explain-access.ts";
import type { MeshView } from "#/control/services/mesh-view.ts";
import { describeProblem } from "#/kube/folder.ts";
import type { AccessQuestion } from "#/model/access-explanation.ts";
import { readModel } from "../change/folder-model.ts";
import { CommandError } from "../exit.ts";
import type { InstancePaths } from "../instance-paths.ts";
import { ask } from "../operator.ts";
import { countOf } from "../up.ts";
import { accessText } from "./access-text.ts";
import { flowsText, isRefused } from "./flows-text.ts";
import { readFlowsFiles } from "./flows-file.ts";
import type { FlowsFile } from "./flows-file.ts";
import { gatherFlows } from "./gather.ts";
import { matrixSvg } from "./matrix-svg.ts";
import { matrixText, withSeen } from "./matrix-text.ts";
import type { SeenMatrix } from "./matrix-text.ts";
import { replay } from "./replay.ts";
import { replayText } from "./replay-text.ts";
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

export interface TestOptions {
  readonly folder: string;
  /** Files of flows; none: what the running mesh has seen. */
  readonly flows: readonly string[];
  /** As if no policy of the folder were in mode Audit. */
  readonly enforced: boolean;
  readonly json: boolean;
}

/** Says what a folder would change for recorded flows. The exit code: 1 where something that works today would be denied. */
export async function testFolder(
  paths: InstancePaths,
  { folder, flows: files, enforced, json }: TestOptions,
  print: Say,
  warn: Say,
): Promise<number> {
  const file = files.length === 0 ? await gatherFlows(paths, warn) : readFlowsFiles(files);
  const model = readModel(folder, file.mesh);
  if (model.problems.length > 0)
    throw new CommandError(
      `${folder} has ${countOf(model.problems.length, "problem")}:\n${model.problems.map((each) => `  ${describeProblem(each)}`).join("\n")}`,
      2,
    );
  for (const finding of model.findings) warn(`warning: ${describeProblem(finding)}`);
  const now = replay(file, model, enforced);
  const later = enforced ? null : replay(file, model, true);
  print(json ? JSON.stringify({ now, enforced: later ?? now }, null, 2) : replayText(now, later));
  return now.changes.some(({ becomes }) => becomes === "denied") ? 1 : 0;
}

export interface ExplainOptions {
  readonly question: AccessQuestion;
  /** Null: asks the running mesh. */
  readonly folder: string | null;
  readonly json: boolean;
}

export async function explainWho(
  paths: InstancePaths,
  { question, folder, json }: ExplainOptions,
  print: Say,
  warn: Say,
): Promise<void> {
  const answer =
    folder === null
      ? (await ask(paths, { kind: "ask", question: { kind: "explain-access", question } }, "control")).answer
      : explainAccess(viewOf(folder, warn), question);
  if (answer.kind === "error") throw new CommandError(answer.message);
  if (answer.kind !== "access-explained")
    throw new CommandError("the control plane did not explain; see: pillion check");
  print(json ? JSON.stringify(answer.explanation, null, 2) : accessText(answer.explanation));
}

export interface MatrixOptions {
  /** Of servers; null: all. */
  readonly namespace: string | null;
  readonly folder: string | null;
  readonly output: "text" | "json" | "svg";
}

export async function printMatrix(
  paths: InstancePaths,
  { namespace, folder, output }: MatrixOptions,
  print: Say,
  warn: Say,
): Promise<void> {
  let matrix: SeenMatrix;
  if (folder === null) {
    const question = { kind: "access-matrix", namespace } as const;
    const { answer } = await ask(paths, { kind: "ask", question }, "control");
    if (answer.kind === "error") throw new CommandError(answer.message);
    if (answer.kind !== "access-matrix")
      throw new CommandError("the control plane did not say who may; see: pillion check");
    matrix = withSeen(answer.matrix, await gatherFlows(paths, warn));
  } else matrix = withSeen(accessMatrix(viewOf(folder, warn), namespace), null);
  if (output === "json") print(JSON.stringify(matrix, null, 2));
  else print(output === "svg" ? matrixSvg(matrix).trimEnd() : matrixText(matrix));
}

function viewOf(folder: string, warn: Say): MeshView {
  const { mesh, problems, findings } = readModel(folder);
  for (const problem of [...problems, ...findings]) warn(`warning: ${describeProblem(problem)}`);
  return mesh.view;
}
