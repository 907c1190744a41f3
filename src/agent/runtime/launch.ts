import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { isAlive, processRef, findByInnerPid, signal, type ProcessRef } from "../processes.ts";
import { TOOL_ENV, shellQuote } from "../run-command.ts";
import { seccompFilter } from "./seccomp.ts";
import type { Cgroup, ProcessGroups } from "./process-groups.ts";

/** How to start one sandboxed program. */
export interface LaunchSpec {
  readonly cgroup: Cgroup;
  /** null: the machine's own network. */
  readonly netns: string | null;
  /** Arguments of bubblewrap, without the command. */
  readonly sandbox: readonly string[];
  /** Read-only overlays to mount first, in a mount namespace of their own: mount point, upper and lower folder. */
  readonly overlays: readonly { readonly at: string; readonly upper: string; readonly lower: string }[];
  readonly argv: readonly string[];
  readonly logFile: string;
  /** bubblewrap writes the process id inside and, at the end, the exit code here: so they outlive the agent. */
  readonly statusFile: string;
  /** A path for standard input that stays open and says nothing, as a container with `stdin` has it. Default: /dev/null. */
  readonly stdinFile?: string | null;
  /** One of the mesh's own processes: it leaves no core dump, and its libuv makes no ring that goes past filters (`confine`). */
  readonly isOurs?: boolean;
  /** What the program reads from file descriptor `SECRET_FD` until its end, or null. Never on a file system by name. */
  readonly secret: string | null;
}

export const SECRET_FD = 6;
const ARGUMENTS_FD = 3;
const STATUS_FD = 4;
const FILTER_FD = 5;
const FILTER: Uint8Array | null = seccompFilter();
const OUR_FILTER: Uint8Array | null = seccompFilter({ hasRings: false });

export interface Exit {
  /** As a shell tells it: 128 + signal number when a signal ended it. */
  readonly code: number;
  readonly oomKilled: boolean;
  /** The sandbox could not be made, or the program not be started: the end of its log says why. */
  readonly neverRan: boolean;
}

/** What has to be known to take a sandboxed program over from an earlier agent. JSON-safe. */
export interface LaunchRecord {
  readonly monitor: ProcessRef;
  readonly oomKillsBefore: number;
  readonly startedAtMs: number;
}

/**
 * One sandboxed program: bubblewrap outside (the monitor, our child), bubblewrap as process 1 inside, the program as
 * process 2. It does not depend on the agent's life; `adopt` takes it over.
 */
export class SandboxedProcess {
  readonly record: LaunchRecord;
  /** Resolves once, when the program and everything it left behind is gone. */
  readonly exited: Promise<Exit>;
  readonly #cgroups: ProcessGroups;
  readonly #cgroup: Cgroup;
  readonly #statusFile: string;
  #main: ProcessRef | null = null;
  #gone = false;

  private constructor(
    cgroups: ProcessGroups,
    spec: Pick<LaunchSpec, "cgroup" | "statusFile" | "logFile">,
    record: LaunchRecord,
    monitorGone: Promise<void>,
  ) {
    this.#cgroups = cgroups;
    this.#cgroup = spec.cgroup;
    this.#statusFile = spec.statusFile;
    this.record = record;
    this.exited = monitorGone.then(async () => {
      // What the program forked and left running goes with it, as when process 1 of a container ends.
      for (let pass = 0; pass < 200 && cgroups.pids(spec.cgroup).length > 0; pass++) {
        cgroups.kill(spec.cgroup);
        await delay(pass < 10 ? 2 : 25);
      }
      this.#gone = true;
      return this.#exit(spec.logFile);
    });
  }

  static launch(cgroups: ProcessGroups, spec: LaunchSpec): SandboxedProcess {
    const log = openSync(spec.logFile, "a", 0o666);
    const status = openSync(spec.statusFile, "w", 0o600);
    const args = openUnnamed(`${spec.statusFile}.args`, spec.sandbox.map((arg) => `${arg}\0`).join(""));
    const filter =
      filterOf(spec) === null ? null : openUnnamed(`${spec.statusFile}.filter`, filterOf(spec) ?? "");
    const secret = spec.secret === null ? null : openUnnamed(`${spec.statusFile}.secret`, spec.secret);
    // An agent that died between starting a program and writing that down has left it here.
    if (cgroups.pids(spec.cgroup).length > 0) cgroups.kill(spec.cgroup);
    try {
      const oomKillsBefore = cgroups.oomKills(spec.cgroup);
      const child = spawn("/bin/sh", ["-c", startScript(spec), "pillion", ...spec.argv], {
        stdio: ["ignore", log, log, args, status, filter ?? "ignore", ...(secret === null ? [] : [secret])],
        // Its own session: a terminal's Ctrl-C is for the agent, which ends pods in order.
        detached: true,
        env: TOOL_ENV,
        cwd: "/",
      });
      const gone = new Promise<void>((resolve) => {
        child.on("exit", () => resolve());
        child.on("error", () => resolve());
      });
      const monitor = (child.pid === undefined ? null : processRef(child.pid)) ?? {
        pid: child.pid ?? 0,
        startTicks: 0,
      };
      cgroups.joined(spec.cgroup, [monitor]);
      return new SandboxedProcess(cgroups, spec, { monitor, oomKillsBefore, startedAtMs: Date.now() }, gone);
    } finally {
      closeSync(log);
      closeSync(status);
      closeSync(args);
      if (filter !== null) closeSync(filter);
      if (secret !== null) closeSync(secret);
    }
  }

  /** Takes over what an earlier agent launched; when it has ended meanwhile, `exited` says how. */
  static adopt(
    cgroups: ProcessGroups,
    spec: Pick<LaunchSpec, "cgroup" | "statusFile" | "logFile">,
    record: LaunchRecord,
  ): SandboxedProcess {
    return new SandboxedProcess(cgroups, spec, record, watchUntilGone(record.monitor));
  }

  /** Process 1 inside: whose namespaces `exec` joins. null until it is up. */
  init(): ProcessRef | null {
    const pid = Number(/"child-pid": (\d+)/.exec(readStatus(this.#statusFile))?.[1] ?? 0);
    return pid === 0 ? null : processRef(pid);
  }

  /** The program itself. null until it is up, or when it has ended. */
  main(): ProcessRef | null {
    if (this.#main === null || !isAlive(this.#main)) {
      this.#main = findByInnerPid(this.#cgroups.pids(this.#cgroup), 2);
      const init = this.#main === null ? null : this.init();
      // So that it is found when the monitor is gone.
      if (init !== null) this.#cgroups.joined(this.#cgroup, [this.record.monitor, init]);
    }
    return this.#main;
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Resolves true when the program's process is there, false when it ended first. */
  async up(): Promise<boolean> {
    let over = false;
    void this.exited.then(() => (over = true));
    for (let waitMs = 3; !over; waitMs = Math.min(waitMs * 1.5, 100)) {
      if (this.main() !== null) return true;
      await delay(waitMs);
    }
    return false;
  }

  /** Asks the program to end; when it is not there to be asked (still starting), ends it at once. */
  signal(name: NodeJS.Signals): void {
    const main = this.main();
    if (main === null || !signal(main, name)) this.kill();
  }

  kill(): void {
    this.#cgroups.kill(this.#cgroup);
    signal(this.record.monitor, "SIGKILL");
  }

  #exit(logFile: string): Exit {
    const told = /"exit-code": (\d+)/.exec(readStatus(this.#statusFile))?.[1];
    const oomKilled = this.#cgroups.oomKills(this.#cgroup) > this.record.oomKillsBefore;
    if (told === undefined) {
      // No code: the sandbox was never whole, or its monitor was killed with everything in it.
      const neverRan =
        !/"child-pid"/.test(readStatus(this.#statusFile)) || /^bwrap: /m.test(tail(logFile, 400));
      return { code: neverRan ? 128 : 137, oomKilled, neverRan };
    }
    const code = Number(told);
    const neverRan = (code === 126 || code === 127) && /^setpriv: /m.test(tail(logFile, 400));
    return { code, oomKilled: oomKilled && code !== 0, neverRan };
  }
}

/** The last `bytes` of a log, for the sentence that says why something never ran. */
export function tail(file: string, bytes: number): string {
  try {
    const text = readFileSync(file);
    return text.subarray(Math.max(0, text.length - bytes)).toString("utf8");
  } catch {
    return "";
  }
}

/**
 * Enters the cgroups before anything is made in them (a socket belongs to the cgroup it was made in), then the network
 * namespace, then becomes bubblewrap. No process stays behind but bubblewrap's own two.
 */
function startScript(spec: LaunchSpec): string {
  const enter = spec.cgroup.dirs.map((dir) => `echo 0 > ${shellQuote(`${dir}/cgroup.procs`)} || exit 128`);
  const net = spec.netns === null ? "" : `nsenter --net=${shellQuote(spec.netns)} -- `;
  if (spec.isOurs === true) enter.push("ulimit -c 0 || exit 128");
  const filter = filterOf(spec) === null ? "" : ` --seccomp ${FILTER_FD}`;
  const sandbox = `bwrap${filter} --args ${ARGUMENTS_FD} --json-status-fd ${STATUS_FD} -- "$@"`;
  if (typeof spec.stdinFile === "string") {
    // Open at both ends, so that it never comes to an end.
    const path = shellQuote(spec.stdinFile);
    enter.push(`rm -f ${path}; mkfifo -m 600 ${path} && exec 0<>${path} || exit 128`);
  }
  if (spec.overlays.length === 0) return [...enter, `exec ${net}${sandbox}`].join("\n");
  const mounts = spec.overlays.map(
    ({ at, upper, lower }) =>
      `mount -t overlay -o ${shellQuote(`ro,lowerdir=${upper}:${lower}`)} overlay ${shellQuote(at)} || exit 128`,
  );
  const inner = [...mounts, `exec ${sandbox}`].join("\n");
  return [
    ...enter,
    `exec ${net}unshare --mount --propagation private sh -c ${shellQuote(inner)} pillion "$@"`,
  ].join("\n");
}

function filterOf(spec: LaunchSpec): Uint8Array | null {
  return spec.isOurs === true ? OUR_FILTER : FILTER;
}

/** A file that has no name any more, to be read from its start. */
function openUnnamed(path: string, content: string | Uint8Array): number {
  writeFileSync(path, content, { mode: 0o600 });
  const fd = openSync(path, "r");
  unlinkSync(path);
  return fd;
}

function readStatus(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

/** How often processes that are not our children are looked at. */
const WATCH_INTERVAL_MS = 200;
const watched = new Map<ProcessRef, () => void>();
let watcher: NodeJS.Timeout | null = null;

/** Resolves when the process is gone: for those that an earlier agent started. One timer for all. */
export function watchUntilGone(ref: ProcessRef): Promise<void> {
  if (!isAlive(ref)) return Promise.resolve();
  return new Promise((resolve) => {
    watched.set(ref, resolve);
    watcher ??= setInterval(() => {
      for (const [each, done] of watched) {
        if (isAlive(each)) continue;
        watched.delete(each);
        done();
      }
      if (watched.size === 0 && watcher !== null) {
        clearInterval(watcher);
        watcher = null;
      }
    }, WATCH_INTERVAL_MS);
  });
}

export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
