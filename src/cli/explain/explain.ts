import { explainRequest } from "#/control/explain/explain-request.ts";
import type { ExplainedBackend, Explanation, ExplainQuestion } from "#/model/explanation.ts";
import type { PickExplanation } from "#/stack/balance/explain-pick.ts";
import { describeProblem } from "#/kube/folder.ts";
import { readModel } from "../change/folder-model.ts";
import { CommandError } from "../exit.ts";
import type { InstancePaths } from "../instance-paths.ts";
import { ask } from "../operator.ts";
import { explanationText } from "./explanation-text.ts";

export interface ExplainOptions {
  readonly question: ExplainQuestion;
  /** Null: asks the running mesh. */
  readonly folder: string | null;
  readonly json: boolean;
}

/** Says what becomes of a request and why; `warn` hears what of a folder does not count. */
export async function explain(
  paths: InstancePaths,
  { question, folder, json }: ExplainOptions,
  print: (text: string) => void,
  warn: (text: string) => void,
): Promise<void> {
  const explanation =
    folder === null ? await explainedByMesh(paths, question) : explainedByFolder(folder, question, warn);
  print(json ? JSON.stringify(explanation, null, 2) : explanationText(explanation));
}

/** `NAME: VALUE`, as curl has it. Throws a `CommandError` for anything else. */
export function headerOf(text: string): [name: string, value: string] {
  const match = /^(:authority|[!#$%&'*+.^_`|~0-9A-Za-z-]+):\s*(.*)$/.exec(text);
  if (match === null) throw new CommandError(`"${text}" is no header; write it as 'name: value'`, 2);
  return [match[1]!, match[2]!.trimEnd()];
}

function explainedByFolder(
  folder: string,
  question: ExplainQuestion,
  warn: (text: string) => void,
): Explanation {
  const { mesh, problems, findings } = readModel(folder);
  for (const problem of [...problems, ...findings]) warn(`warning: ${describeProblem(problem)}`);
  const answer = explainRequest(mesh.view, question, "folder");
  if (answer.kind === "error") throw new CommandError(answer.message);
  return answer.explanation;
}

async function explainedByMesh(paths: InstancePaths, question: ExplainQuestion): Promise<Explanation> {
  const { answer } = await ask(paths, { kind: "ask", question: { kind: "explain", question } }, "control");
  if (answer.kind === "error") throw new CommandError(answer.message);
  if (answer.kind !== "explained")
    throw new CommandError("the control plane did not explain; see: pillion check");
  const { explanation } = answer;
  const backends = await Promise.all(
    explanation.backends.map(async (backend) => await seenBySidecar(paths, explanation, backend, question)),
  );
  return { ...explanation, backends };
}

/** With the endpoints as the client's own sidecar has them; as they were, where it has not used them of late. */
async function seenBySidecar(
  paths: InstancePaths,
  { client }: Explanation,
  backend: ExplainedBackend,
  { headers }: ExplainQuestion,
): Promise<ExplainedBackend> {
  if (backend.kind !== "balancer" || !client.isMeshed) return backend;
  const { text } = await ask(
    paths,
    { kind: "endpoints", podUid: client.podUid, backend: backend.name, headers },
    "endpoints",
  );
  if (text === "") return backend;
  const { endpoint, reason, candidates, omitted } = JSON.parse(text) as PickExplanation;
  const members = candidates.map(({ address, pod, state, why, pending, latencyMs }) => ({
    address,
    pod,
    state,
    why,
    pending,
    latencyMs,
  }));
  return { ...backend, endpoints: { seenBy: "sidecar", endpoint, reason, members, omitted } };
}
