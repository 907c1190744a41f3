import { setTimeout as sleep } from "node:timers/promises";
import type { IdentityStatus } from "#/model/identity-status.ts";
import type { ControlAnswer, ControlQuestion } from "#/model/node-protocol.ts";
import { CommandError } from "../exit.ts";
import type { InstancePaths } from "../instance-paths.ts";
import { ask } from "../operator.ts";
import { statusIfRunning } from "../up.ts";
import { identityText, rotationLine, rotationText } from "./identity-text.ts";

const POLL_MS = 300;

type Say = (line: string) => void;

/** Prints how certificates stand: 0 when all is well, 1 when something has expired or will soon. */
export async function identityStatus(paths: InstancePaths, json: boolean, print: Say): Promise<number> {
  const identity = await present(paths);
  print(json ? JSON.stringify(identity, null, 2) : identityText(identity, Date.now()));
  return identity.problems.length === 0 ? 0 : 1;
}

export interface RotateOptions {
  readonly what: "root" | "issuer";
  readonly isDryRun: boolean;
  readonly isForced: boolean;
  readonly timeoutSeconds: number;
  readonly json: boolean;
}

/** Begins or goes on with a rotation and waits until it is over. When time is up it says for whom it waits, and goes on without us. */
export async function identityRotate(
  paths: InstancePaths,
  options: RotateOptions,
  print: Say,
  printProgress: Say,
): Promise<void> {
  const { what, isDryRun, isForced } = options;
  const answer = await askControl(paths, { kind: "identity-rotate", what, isDryRun, isForced });
  if (answer.kind === "rotation-plan") {
    const { plan } = answer;
    print(options.json ? JSON.stringify(plan, null, 2) : rotationText(plan, Date.now()).join("\n"));
    return;
  }
  if (answer.kind === "ok") printProgress(answer.message);
  const deadline = Date.now() + options.timeoutSeconds * 1000;
  let last = "";
  for (;;) {
    const identity = await presentOrNull(paths);
    if (identity?.rotation === null) {
      if (options.json) print(JSON.stringify(identity, null, 2));
      else print(`the ${what} is rotated: every sidecar goes by what is new`);
      return;
    }
    const rotation = identity?.rotation ?? null;
    const line = rotation === null ? "the control plane is away" : rotationLine(rotation, Date.now());
    if (line.replace(/since \w+/, "") !== last) printProgress(line);
    last = line.replace(/since \w+/, "");
    if (Date.now() > deadline)
      throw new CommandError(
        [
          `the rotation was not over within ${options.timeoutSeconds} s; it goes on, see: pillion identity status`,
          ...(rotation === null ? [line] : rotationText(rotation, Date.now())),
          `to go on without them: pillion identity rotate --${what} --force; they then refuse, and are refused by, everybody with a new certificate until they are started again`,
        ].join("\n"),
      );
    await sleep(POLL_MS);
  }
}

/** Repairs, and waits until every pod is ready. */
export async function identityRepair(
  paths: InstancePaths,
  timeoutSeconds: number,
  print: Say,
  printProgress: Say,
): Promise<void> {
  const answer = await askControl(paths, { kind: "identity-repair" });
  if (answer.kind !== "ok") throw new CommandError("the control plane gave no answer; see its log");
  if (answer.done) {
    print(answer.message);
    return;
  }
  printProgress(answer.message);
  const deadline = Date.now() + timeoutSeconds * 1000;
  for (;;) {
    const status = await statusIfRunning(paths);
    const unwell = (status?.pods ?? []).filter((pod) => pod.sidecar !== null && !pod.sidecar.ready);
    const identity = await presentOrNull(paths);
    if (status !== null && unwell.length === 0 && identity?.problems.length === 0) {
      print("every sidecar is ready");
      return;
    }
    if (Date.now() > deadline)
      throw new CommandError(
        `not every sidecar was ready within ${timeoutSeconds} s: ${unwell
          .slice(0, 5)
          .map((pod) => `${pod.namespace}/${pod.name}: ${pod.message}`)
          .join("; ")}`,
      );
    await sleep(POLL_MS);
  }
}

export async function identityRevoke(
  paths: InstancePaths,
  name: string,
  isUndone: boolean,
  print: Say,
): Promise<void> {
  const answer = await askControl(paths, { kind: "identity-revoke", name, isUndone });
  if (answer.kind === "ok") print(answer.message);
}

async function present(paths: InstancePaths): Promise<IdentityStatus> {
  const answer = await askControl(paths, { kind: "identity-status" });
  if (answer.kind !== "identity") throw new CommandError("the control plane gave no answer; see its log");
  return answer.identity;
}

/** Null while the control plane is away: it may come back, and the rotation with it. */
async function presentOrNull(paths: InstancePaths): Promise<IdentityStatus | null> {
  const { answer } = await ask(paths, { kind: "ask", question: { kind: "identity-status" } }, "control");
  return answer.kind === "identity" ? answer.identity : null;
}

async function askControl(paths: InstancePaths, question: ControlQuestion): Promise<ControlAnswer> {
  const { answer } = await ask(paths, { kind: "ask", question }, "control");
  if (answer.kind === "error") throw new CommandError(answer.message);
  return answer;
}
