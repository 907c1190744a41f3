import { setTimeout as sleep } from "node:timers/promises";
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
  const target = { namespace: options.namespace ?? "", target: options.target };
  const { answer } = await ask(
    paths,
    { kind: "ask", question: { kind: "rollout-restart", ...target } },
    "control",
  );
  if (answer.kind === "error") throw new CommandError(answer.message);
  if (answer.kind === "ok") say(answer.message);
  await rolloutStatus(paths, options, say);
}

/** Waits until a rollout is over. */
export async function rolloutStatus(
  paths: InstancePaths,
  options: RolloutOptions,
  say: (line: string) => void,
): Promise<void> {
  const question = {
    kind: "rollout-status",
    namespace: options.namespace ?? "",
    target: options.target,
  } as const;
  const deadline = Date.now() + options.timeoutSeconds * 1000;
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
      throw new CommandError(`the rollout was not over within ${options.timeoutSeconds} s: ${last}`);
    await sleep(POLL_MS);
  }
}
