import { setTimeout as sleep } from "node:timers/promises";
import type { ObjectStatus } from "#/model/node-protocol.ts";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";
import { ask } from "./operator.ts";

export interface RolloutOptions {
  readonly namespace: string | null;
  /** "deployment/front", "front", or "" for all. */
  readonly target: string;
  readonly timeoutSeconds: number;
}

const POLL_MS = 200;

/** Replaces a workload's pods one after another, as its own update rules say, and waits until all are new and ready. */
export async function rolloutRestart(
  paths: InstancePaths,
  options: RolloutOptions,
  say: (line: string) => void,
): Promise<void> {
  const workload = await resolve(paths, options);
  const { answer } = await ask(
    paths,
    { kind: "ask", question: { kind: "rollout-restart", ...workload } },
    "control",
  );
  if (answer.kind === "error") throw new CommandError(answer.message);
  if (answer.kind === "ok") say(answer.message);
  await waitOver(paths, workload, options.timeoutSeconds, say);
}

/** Waits until a rollout is over. */
export async function rolloutStatus(
  paths: InstancePaths,
  options: RolloutOptions,
  say: (line: string) => void,
): Promise<void> {
  await waitOver(paths, await resolve(paths, options), options.timeoutSeconds, say);
}

/** As the control plane wants it; both "" for all workloads. */
export interface WorkloadReference {
  readonly namespace: string;
  /** "deployment/front" */
  readonly target: string;
}

async function resolve(paths: InstancePaths, options: RolloutOptions): Promise<WorkloadReference> {
  const { answer } = await ask(paths, { kind: "ask", question: { kind: "status" } }, "control");
  if (answer.kind !== "status")
    throw new CommandError("the control plane gave no status; see: pillion check");
  return findWorkload(answer.objects, options.target, options.namespace);
}

const ROLLABLE = ["deployment", "statefulset", "daemonset", "pod"];
/** kubectl's short names. */
const SHORT_NAMES: Readonly<Record<string, string>> = {
  deploy: "deployment",
  sts: "statefulset",
  ds: "daemonset",
  po: "pod",
};

/** Finds the workload that an operator means by "front", "deployment/front" or "deploy/front". */
export function findWorkload(
  objects: readonly Pick<ObjectStatus, "kind" | "namespace" | "name">[],
  target: string,
  namespace: string | null,
): WorkloadReference {
  if (target === "" && namespace !== null)
    throw new CommandError(
      "say which workload with -n, for example deployment/front; without -n all are meant",
      2,
    );
  if (target === "") return { namespace: "", target: "" };
  const slash = target.indexOf("/");
  const word = target.slice(0, Math.max(0, slash)).toLowerCase().replace(/s$/, "");
  const kind = SHORT_NAMES[target.slice(0, Math.max(0, slash)).toLowerCase()] ?? word;
  const name = target.slice(slash + 1);
  const workloads = objects.filter((object) => ROLLABLE.includes(object.kind.toLowerCase()));
  const found = workloads.filter(
    (object) =>
      object.name === name &&
      (kind === "" || object.kind.toLowerCase() === kind) &&
      (namespace === null || object.namespace === namespace),
  );
  const [only] = found;
  if (only !== undefined && found.length === 1)
    return { namespace: only.namespace, target: `${only.kind.toLowerCase()}/${only.name}` };
  const full = (object: (typeof found)[number]): string =>
    `${object.kind.toLowerCase()}/${object.name} in ${object.namespace}`;
  if (found.length > 1)
    throw new CommandError(`"${target}" is several: ${found.map(full).join(", ")}; say which, and -n`);
  const known = workloads.slice(0, 8).map(full);
  throw new CommandError(
    `there is no workload "${target}"${namespace === null ? "" : ` in namespace ${namespace}`} that can be rolled; there ${known.length === 0 ? "are none" : `is: ${known.join(", ")}${workloads.length > 8 ? ", …" : ""}`}`,
  );
}

async function waitOver(
  paths: InstancePaths,
  workload: WorkloadReference,
  timeoutSeconds: number,
  say: (line: string) => void,
): Promise<void> {
  const question = { kind: "rollout-status", ...workload } as const;
  const deadline = Date.now() + timeoutSeconds * 1000;
  let last = "";
  for (;;) {
    const { answer } = await ask(paths, { kind: "ask", question }, "control");
    if (answer.kind === "error") throw new CommandError(answer.message);
    if (answer.kind === "ok") {
      if (answer.message !== last) say(answer.message);
      last = answer.message;
      if (answer.done) return;
    }
    if (Date.now() > deadline)
      throw new CommandError(`the rollout was not over within ${timeoutSeconds} s: ${last}`);
    await sleep(POLL_MS);
  }
}
