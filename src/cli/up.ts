import { spawn } from "node:child_process";
import { mkdirSync, openSync, readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isAlive, processRef } from "#/agent/processes.ts";
import { NOT_KEPT } from "#/agent/unprivileged.ts";
import type { PodStatus } from "#/model/pod-plan.ts";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";
import type { AnswerOf } from "./operator.ts";
import { notKeptLines } from "./not-kept.ts";
import { AgentAway, answers, ask } from "./operator.ts";
import { closeMachine, enterMachine, findMachine, isOrdinaryUser, openMachine } from "./own-machine.ts";

export interface UpOptions {
  readonly folder: string;
  readonly detach: boolean;
  readonly intercept: "auto" | "ebpf" | "nftables" | "explicit";
  readonly podCidr: string;
  readonly serviceCidr: string;
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
  readonly stateRoot: string;
  readonly runRoot: string;
  readonly unprivileged: boolean;
  readonly testWithoutTls: boolean;
}

/** How often the agent is asked while waiting. Its answer costs it well below a millisecond. */
const POLL_MS = 100;
const AGENT_END_MS = 5_000;

/** Starts (or adopts) the mesh of a folder and waits until everything in it is ready. */
export async function up(paths: InstancePaths, options: UpOptions): Promise<AnswerOf<"status">> {
  const folder = resolve(options.folder);
  if (!isFolder(folder))
    throw new CommandError(
      `-f ${options.folder}: there is no such folder; it should hold Kubernetes YAML files`,
    );
  const running = await statusIfRunning(paths);
  if (running === null) await startAgent(paths, { ...options, folder });
  else if (running.folder !== folder) {
    options.say(`already running with ${running.folder}; reading ${folder} from now on`);
    await ask(paths, { kind: "folder", folder }, "done");
  } else options.say("already running");
  return await waitReady(paths, options);
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
    stateRoot: paths.stateRoot,
    runRoot: paths.runRoot,
    unprivileged,
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

async function waitReady(paths: InstancePaths, options: UpOptions): Promise<AnswerOf<"status">> {
  const deadline = Date.now() + options.timeoutSeconds * 1000;
  const told = new Set<string>();
  for (;;) {
    if (options.signal?.aborted) throw new CommandError("interrupted", 130);
    const status = await ask(paths, { kind: "status" }, "status");
    if (status.controlConnected) {
      await refuseBadFolder(paths, status);
      for (const pod of status.pods) {
        const name = `${pod.namespace}/${pod.name}`;
        if (isSettled(pod) && !told.has(pod.uid)) {
          told.add(pod.uid);
          options.say(
            `${name} ${pod.phase === "Succeeded" ? "completed" : "ready"} (${told.size}/${status.pods.length})`,
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
      throw new CommandError(
        `not everything was ready within ${options.timeoutSeconds} s (see: pillion status):\n${lines.join("\n")}${status.controlConnected ? "" : "\n  the control plane is not connected"}`,
      );
    }
    await sleep(POLL_MS);
  }
}

/** A folder with a mistake is refused whole at the first `up`: nothing half-started is what was asked for. */
async function refuseBadFolder(paths: InstancePaths, status: AnswerOf<"status">): Promise<void> {
  if (status.pods.length > 0) return;
  const { answer } = await ask(paths, { kind: "ask", question: { kind: "status" } }, "control");
  if (answer.kind !== "status" || answer.problems.length === 0) return;
  const lines = answer.problems.map((problem) => `  ${describeProblem(problem)}`);
  await down(paths, () => {});
  throw new CommandError(
    `the folder has ${lines.length} problem${lines.length === 1 ? "" : "s"}; nothing was started:\n${lines.join("\n")}`,
  );
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

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}
