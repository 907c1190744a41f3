import { spawn, type ChildProcess } from "node:child_process";
import { lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isAlive, processRef, signal, type ProcessRef } from "#/agent/processes.ts";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";

/** Whether we are an ordinary user: then a mesh runs in a user namespace, with a network and processes of its own. */
export function isOrdinaryUser(): boolean {
  return process.getuid?.() !== 0;
}

/**
 * Process 1 of that namespace: it collects orphans and otherwise waits. The agent may die and be started again while it
 * stays, and with its end the kernel ends everything that was started inside, and all networks and mounts go.
 */
const FIRST_PROCESS =
  "trap 'exit 0' TERM; echo ready; exec >/dev/null; while :; do sleep 1000000 & wait; done";

const OPEN_TIMEOUT_MS = 5_000;
const CLOSE_TIMEOUT_MS = 3_000;

/** The instance's namespace, made when it is not there. */
export async function openMachine(paths: InstancePaths): Promise<ProcessRef> {
  const there = findMachine(paths);
  if (there !== null) return there;
  makePrivate(paths.runRoot);
  const namespaces = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"];
  const child = spawn("unshare", [...namespaces, "--", "/bin/sh", "-c", FIRST_PROCESS, "pillion-machine"], {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    cwd: "/",
  });
  await firstLine(child);
  const first = childOf(child.pid ?? 0);
  if (first === null) throw new CommandError("the user namespace ended as soon as it was made");
  child.unref();
  mkdirSync(dirname(recordFile(paths)), { recursive: true, mode: 0o700 });
  writeFileSync(recordFile(paths), JSON.stringify(first), { mode: 0o600 });
  return first;
}

/** Its first process, or null when there is no such namespace. */
export function findMachine(paths: InstancePaths): ProcessRef | null {
  try {
    const first = JSON.parse(readFileSync(recordFile(paths), "utf8")) as ProcessRef;
    return isAlive(first) ? first : null;
  } catch {
    return null;
  }
}

/** What to put before a command so that it runs inside. */
export function enterMachine(first: ProcessRef): string[] {
  const which = ["--user", "--preserve-credentials", "--net", "--mount", "--pid"];
  return ["nsenter", `--target=${first.pid}`, ...which, "--"];
}

/** Ends the namespace with all that is in it, and removes what it had in the run folder. */
export async function closeMachine(paths: InstancePaths, first: ProcessRef | null): Promise<void> {
  if (first !== null) {
    const end = Date.now() + CLOSE_TIMEOUT_MS;
    signal(first, "SIGTERM");
    while (isAlive(first)) {
      if (Date.now() > end) signal(first, "SIGKILL");
      await sleep(10);
    }
  }
  rmSync(join(paths.runRoot, paths.name), { recursive: true, force: true });
}

/**
 * Runs one of our own commands inside, from its start to its end, and gives its exit code; for what has to see the pods'
 * network. It is out of reach of the terminal's Ctrl-C, which we pass on: the program between us would die of it.
 */
export async function runInside(paths: InstancePaths, words: readonly string[]): Promise<number> {
  const first = await openMachine(paths);
  const main = fileURLToPath(new URL("../main.ts", import.meta.url));
  const [program, ...args] = [...enterMachine(first), process.execPath, ...process.execArgv, main, ...words];
  const child = spawn(program as string, args, {
    stdio: "inherit",
    detached: true,
    env: {
      ...process.env,
      PILLION_UNPRIVILEGED: "1",
      PILLION_STATE_DIR: paths.stateRoot,
      PILLION_RUN_DIR: paths.runRoot,
    },
  });
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      const inner = childOf(child.pid ?? 0);
      if (inner !== null) signal(inner, name);
    });
  }
  const code = await new Promise<number>((resolve, reject) => {
    child.on("error", (error) => reject(new CommandError(`cannot run nsenter: ${error.message}`)));
    child.on("exit", (status, by) => resolve(status ?? 128 + (by === null ? 0 : constants.signals[by])));
  });
  await closeMachine(paths, first);
  return code;
}

function recordFile(paths: InstancePaths): string {
  return join(paths.runRoot, paths.name, "machine.json");
}

/** In /tmp somebody else may have been there first. */
function makePrivate(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const stat = lstatSync(folder);
  if (!stat.isDirectory() || stat.uid !== process.getuid?.() || (stat.mode & 0o022) !== 0)
    throw new CommandError(
      `${folder} belongs to somebody else or can be written by others: remove it, or set PILLION_RUN_DIR`,
    );
}

async function firstLine(child: ChildProcess): Promise<void> {
  let said = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (said += text));
  const ready = new Promise<boolean>((resolve) => {
    child.stdout?.once("data", () => resolve(true));
    child.once("error", (error) => {
      said ||= error.message;
      resolve(false);
    });
    child.once("close", () => resolve(false));
  });
  const isReady = await Promise.race([ready, sleep(OPEN_TIMEOUT_MS, false, { ref: false })]);
  child.stdout?.destroy();
  child.stderr?.destroy();
  if (isReady) return;
  child.kill("SIGKILL");
  throw new CommandError(
    `without root the mesh needs a user namespace, which this machine refuses (${said.trim() || "no answer"}): use sudo, ` +
      "or allow it (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)",
  );
}

function childOf(parent: number): ProcessRef | null {
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "latin1");
      if (Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === parent)
        return processRef(Number(name));
    } catch {
      // It ended meanwhile.
    }
  }
  return null;
}
