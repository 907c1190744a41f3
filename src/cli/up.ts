import { spawn } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync, readdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isAlive, processRef } from "#/agent/processes.ts";
import { NOT_KEPT } from "#/agent/unprivileged.ts";
import type { PodStatus } from "#/model/pod-plan.ts";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";
import type { AnswerOf } from "./operator.ts";
import { DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR, overlap } from "./networks.ts";
import { notKeptLines } from "./not-kept.ts";
import { AgentAway, answers, ask } from "./operator.ts";
import { closeMachine, enterMachine, findMachine, isOrdinaryUser, openMachine } from "./own-machine.ts";

export interface UpOptions {
  readonly folder: string;
  readonly detach: boolean;
  readonly intercept: "auto" | "ebpf" | "nftables" | "explicit";
  readonly podCidr: string;
  readonly serviceCidr: string;
  /** Of an authority outside: `ca.crt`, `tls.crt`, `tls.key`. Absent: the mesh makes its own. */
  readonly issuerFolder?: string;
  readonly timeoutSeconds: number;
  /** See `NodeInfo.testWithoutTls`. */
  readonly testWithoutTls?: boolean;
  /** Ends the waiting: `up` throws as soon as there is an agent to be told to end. */
  readonly signal?: AbortSignal;
  /** Where progress goes, a line at a time. */
  readonly say: (line: string) => void;
}

/** What `runAgent` takes; kept in step by the type of its parameter. */
interface AgentStart {
  readonly instance: string;
  readonly folder: string;
  readonly intercept: UpOptions["intercept"];
  readonly podCidr: string;
  readonly serviceCidr: string;
  readonly issuerFolder: string | null;
  readonly stateRoot: string;
  readonly runRoot: string;
  readonly unprivileged: boolean;
  readonly endsNamespace: boolean;
  readonly testWithoutTls: boolean;
}

/** How often the agent is asked while waiting. Its answer costs it well below a millisecond. */
const POLL_MS = 100;
const AGENT_END_MS = 5_000;

/** Starts (or adopts) the mesh of a folder and waits until everything in it is ready. */
export async function up(paths: InstancePaths, options: UpOptions): Promise<AnswerOf<"status">> {
  const folder = resolve(options.folder);
  const complaint = folderComplaint(folder);
  if (complaint !== "")
    throw new CommandError(`-f ${options.folder}: ${complaint}; give a folder of Kubernetes YAML files`, 2);
  if (options.issuerFolder !== undefined && !existsSync(options.issuerFolder))
    throw new CommandError(`--issuer-folder ${options.issuerFolder}: it is not there`, 2);
  if (overlap(options.podCidr, options.serviceCidr))
    throw new CommandError(
      `--pod-cidr ${options.podCidr} and --service-cidr ${options.serviceCidr} overlap; choose two apart`,
      2,
    );
  const running = await statusIfRunning(paths);
  const isFresh = running === null && !hasPods(paths);
  if (running === null)
    await startAgent(paths, { ...options, ...(isFresh ? {} : settingsOfPods(paths, options)), folder });
  else {
    refuseOtherSettings(paths, running, folder, options);
    options.say("already running");
  }
  return await waitReady(paths, options, isFresh);
}

/** Pods that outlived their agent keep their networks and way of interception: what was not asked for is as it was. */
function settingsOfPods(
  paths: InstancePaths,
  { intercept, podCidr, serviceCidr }: UpOptions,
): Pick<UpOptions, "intercept" | "podCidr" | "serviceCidr"> {
  const asked = { intercept, podCidr, serviceCidr };
  try {
    const file = join(paths.runRoot, paths.name, "settings.json");
    const kept = JSON.parse(readFileSync(file, "utf8")) as typeof asked;
    return {
      intercept: intercept === "auto" ? kept.intercept : intercept,
      podCidr: podCidr === DEFAULT_POD_CIDR ? kept.podCidr : podCidr,
      serviceCidr: serviceCidr === DEFAULT_SERVICE_CIDR ? kept.serviceCidr : serviceCidr,
    };
  } catch {
    // Without it there is nothing to keep to; the agent decides.
    return asked;
  }
}

/** A slip of the folder or a flag must not end or change what runs. */
function refuseOtherSettings(
  paths: InstancePaths,
  running: AnswerOf<"status">,
  folder: string,
  { intercept, podCidr, serviceCidr }: UpOptions,
): void {
  const { node } = running;
  const other = [
    running.folder === folder ? "" : `the folder ${running.folder}`,
    intercept === "auto" || intercept === node.intercept ? "" : `--intercept ${node.intercept}`,
    podCidr === node.podCidr || podCidr === DEFAULT_POD_CIDR ? "" : `--pod-cidr ${node.podCidr}`,
    serviceCidr === node.serviceCidr || serviceCidr === DEFAULT_SERVICE_CIDR
      ? ""
      : `--service-cidr ${node.serviceCidr}`,
  ].filter((part) => part !== "");
  if (other.length === 0) return;
  throw new CommandError(
    `instance "${paths.name}" is running with ${other.join(", ")}; give the same, or end it first (pillion down), or start another beside it (--instance NAME)`,
  );
}

/** Ends an instance, telling what is being done. It is over when the agent itself is gone. */
export async function down(paths: InstancePaths, say: (line: string) => void): Promise<void> {
  const machine = isOrdinaryUser() ? findMachine(paths) : null;
  const { agentPid } = await ask(paths, { kind: "status" }, "status");
  const agent = machine === null ? processRef(agentPid) : null;
  for await (const answer of answers(paths, { kind: "down" })) {
    if (answer.kind === "progress") say(answer.message);
  }
  const deadline = Date.now() + AGENT_END_MS;
  while (agent !== null && isAlive(agent) && Date.now() < deadline) await sleep(10);
  if (machine !== null) await closeMachine(paths, machine);
}

export async function statusIfRunning(paths: InstancePaths): Promise<AnswerOf<"status"> | null> {
  try {
    return await ask(paths, { kind: "status" }, "status");
  } catch (error) {
    if (error instanceof AgentAway) return null;
    throw error;
  }
}

async function startAgent(paths: InstancePaths, options: UpOptions): Promise<void> {
  const unprivileged = isOrdinaryUser() || process.env["PILLION_UNPRIVILEGED"] === "1";
  const machine = isOrdinaryUser() ? await openMachine(paths) : null;
  if (unprivileged) for (const line of notKeptLines(NOT_KEPT)) options.say(line);
  // Other users' processes (the control plane) must get through to their own folders; the agent's is nobody else's.
  mkdirSync(dirname(dirname(paths.agentLog)), { recursive: true, mode: 0o755 });
  mkdirSync(dirname(paths.agentLog), { recursive: true, mode: 0o700 });
  const log = openSync(paths.agentLog, "a", 0o600);
  const logStart = statSync(paths.agentLog).size;
  const start: AgentStart = {
    instance: paths.name,
    folder: options.folder,
    intercept: options.intercept,
    podCidr: options.podCidr,
    serviceCidr: options.serviceCidr,
    issuerFolder: options.issuerFolder === undefined ? null : resolve(options.issuerFolder),
    stateRoot: paths.stateRoot,
    runRoot: paths.runRoot,
    unprivileged,
    // Not when this command itself runs inside: it has more to say afterwards.
    endsNamespace: machine !== null,
    testWithoutTls: options.testWithoutTls ?? false,
  };
  const main = fileURLToPath(new URL("../main.ts", import.meta.url));
  const argv = [process.execPath, ...process.execArgv, main, "agent", JSON.stringify(start)];
  const [program, ...args] = machine === null ? argv : [...enterMachine(machine), ...argv];
  const child = spawn(program as string, args, {
    detached: true,
    stdio: ["ignore", log, log],
    cwd: "/",
  });
  const fate = { ended: "" };
  child.on("exit", (code, signal) => (fate.ended = `ended with ${signal ?? `status ${code}`}`));
  child.on("error", (error) => (fate.ended = error.message));
  child.unref();
  const deadline = Date.now() + 15_000;
  while ((await statusIfRunning(paths)) === null) {
    if (fate.ended !== "")
      throw new CommandError(
        `the agent ${fate.ended}:\n${readFileSync(paths.agentLog).subarray(logStart).toString("utf8").trim().split("\n").slice(-12).join("\n")}`,
      );
    if (Date.now() > deadline)
      throw new CommandError(`the agent did not answer within 15 s; see its log at ${paths.agentLog}`);
    await sleep(POLL_MS);
  }
}

async function waitReady(
  paths: InstancePaths,
  options: UpOptions,
  isFresh: boolean,
): Promise<AnswerOf<"status">> {
  const deadline = Date.now() + options.timeoutSeconds * 1000;
  const told = new Set<string>();
  let isJudged = false;
  for (;;) {
    if (options.signal?.aborted) throw new CommandError("interrupted", 130);
    const status = await ask(paths, { kind: "status" }, "status");
    if (status.controlConnected) {
      if (!isJudged && (status.planned || status.pods.length > 0)) {
        isJudged = true;
        await refuseBadFolder(paths, isFresh, options.say);
      }
      const settled = status.pods.filter((pod) => isSettled(pod)).length;
      for (const pod of status.pods) {
        const name = `${pod.namespace}/${pod.name}`;
        if (isSettled(pod) && !told.has(pod.uid)) {
          told.add(pod.uid);
          options.say(
            `${name} ${pod.phase === "Succeeded" ? "completed" : "ready"} (${settled}/${status.pods.length})`,
          );
        }
      }
      if (status.planned && status.pods.every((pod) => isSettled(pod))) return status;
    }
    if (Date.now() > deadline) {
      const waiting = status.pods.filter((pod) => !isSettled(pod));
      const lines = waiting
        .slice(0, 10)
        .map((pod) => `  ${pod.namespace}/${pod.name}: ${pod.message === "" ? pod.phase : pod.message}`);
      lines.push(...(await certificateProblems(paths)).map((problem) => `  ${problem}`));
      throw new CommandError(
        `not everything was ready within ${options.timeoutSeconds} s (see: pillion status):\n${lines.join("\n")}${status.controlConnected ? "" : `\n  the control plane is not connected; the agent's log ends with:\n${logEnd(paths)}`}`,
      );
    }
    // Each answer tells of all pods.
    await sleep(POLL_MS + status.pods.length);
  }
}

async function certificateProblems(paths: InstancePaths): Promise<readonly string[]> {
  const question = { kind: "identity-status" } as const;
  const { answer } = await ask(paths, { kind: "ask", question }, "control");
  return answer.kind === "identity" ? answer.identity.problems : [];
}

/** A folder with a mistake is refused whole at the first `up`: nothing half-started is what was asked for. */
async function refuseBadFolder(
  paths: InstancePaths,
  isFresh: boolean,
  say: (line: string) => void,
): Promise<void> {
  const { answer } = await ask(paths, { kind: "ask", question: { kind: "status" } }, "control");
  if (answer.kind !== "status") return;
  for (const object of answer.objects) for (const each of object.findings) say(`! ${describeProblem(each)}`);
  if (answer.problems.length === 0) return;
  const lines = answer.problems.map((problem) => `  ${describeProblem(problem)}`);
  if (isFresh) await down(paths, () => {});
  throw new CommandError(
    `the folder has ${countOf(lines.length, "problem")}; ${isFresh ? "nothing was started" : "what was good before keeps running"}:\n${lines.join("\n")}`,
  );
}

/** "1 pod", "2 pods". */
export function countOf(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/** `file:line: object: field: reason`, less what is not known. */
export function describeProblem(problem: {
  file: string;
  line: number;
  object: string;
  field: string;
  reason: string;
}): string {
  const where = problem.line > 0 ? `${problem.file}:${problem.line}` : problem.file;
  return [where, problem.object, problem.field, problem.reason].filter((part) => part !== "").join(": ");
}

function isSettled(pod: PodStatus): boolean {
  return (pod.ready && !pod.terminating) || pod.phase === "Succeeded";
}

function folderComplaint(path: string): string {
  try {
    return statSync(path).isDirectory() ? "" : "that is a file";
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "ENOENT" ? "there is no such folder" : `it cannot be read (${code})`;
  }
}

/** Whether an agent that is gone left pods for the next one to take over. */
function hasPods(paths: InstancePaths): boolean {
  try {
    return readdirSync(join(paths.runRoot, paths.name, "pods")).length > 0;
  } catch {
    return false;
  }
}

/** The last lines of the agent's log: it says why a process of the mesh does not stay. */
function logEnd(paths: InstancePaths): string {
  try {
    const lines = readFileSync(paths.agentLog, "utf8").trimEnd().split("\n").slice(-3);
    return lines.map((line) => `    ${line}`).join("\n");
  } catch {
    return `    (no log at ${paths.agentLog})`;
  }
}
