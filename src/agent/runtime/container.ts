import { spawn } from "node:child_process";
import type { ContainerPlan, ContainerStatus, HookPlan, PodPlan } from "#/model/pod-plan.ts";
import { TOOL_ENV, type CommandResult } from "../run-command.ts";
import type { Cgroup, ProcessGroups } from "./process-groups.ts";
import { SandboxedProcess, delay, tail, type Exit, type LaunchRecord, type LaunchSpec } from "./launch.ts";
import { ProbeLoop, runProbe, type ProbeTarget } from "./probes.ts";
import { FRESH_BACKOFF, nextRestart, type BackoffState } from "./restart-backoff.ts";

/** What is kept of a container over restarts of the agent. JSON-safe. */
export interface ContainerRecord {
  launch: LaunchRecord | null;
  restartCount: number;
  backoff: BackoffState;
  /** Wall clock; 0: at once. */
  restartAtMs: number;
  lastExit: {
    readonly code: number;
    readonly reason: string;
    readonly words: string;
    readonly atMs: number;
  } | null;
  /** Has ended and does not start again. */
  done: boolean;
  /** Startup probe passed (or there is none). */
  started: boolean;
  ready: boolean;
}

export const NEW_CONTAINER: Readonly<ContainerRecord> = {
  launch: null,
  restartCount: 0,
  backoff: FRESH_BACKOFF,
  restartAtMs: 0,
  lastExit: null,
  done: false,
  started: false,
  ready: false,
};

/** What a container needs from its pod. */
export interface ContainerHost {
  readonly cgroups: ProcessGroups;
  readonly podIp: string;
  readonly restartPolicy: PodPlan["restartPolicy"];
  readonly graceMs: number;
  readonly cgroup: Cgroup;
  readonly logFile: string;
  readonly statusFile: string;
  readonly execScript: string;
  /** Makes folders and files of the container's view anew and says how to start it. Throws with a reason. */
  prepare(): LaunchSpec;
  /** Writes the script through which commands enter the running container. */
  writeExecScript(process: SandboxedProcess): void;
  /** Something that is kept or shown has changed. */
  changed(): void;
}

export type ContainerRole = "app" | "init" | "native-sidecar";

/** A failed probe says so at most this long. */
const WORDS_MAX = 300;

/** The life of one container: start, probes, restarts with back-off, end. */
export class Container {
  readonly plan: ContainerPlan;
  readonly role: ContainerRole;
  readonly record: ContainerRecord;
  readonly #host: ContainerHost;
  #process: SandboxedProcess | null = null;
  #began = false;
  #up = false;
  #probes: ProbeLoop[] = [];
  #stopping = false;
  #wake: () => void = () => {};
  #complaint = "";
  /** Resolves when the container has ended for good: it is done, or it was stopped. */
  finished: Promise<void> = Promise.resolve();

  constructor(host: ContainerHost, plan: ContainerPlan, role: ContainerRole, record: ContainerRecord) {
    this.#host = host;
    this.plan = plan;
    this.role = role;
    this.record = record;
  }

  /** Begins, or goes on where an earlier agent was. Repeating it does nothing. */
  start(): void {
    if (this.#began) return;
    this.#began = true;
    this.finished = this.#live();
  }

  get running(): boolean {
    return this.#up;
  }

  /** An init container that has done its work counts as ready, as in Kubernetes. */
  get ready(): boolean {
    if (this.role === "init") return this.record.done && this.record.lastExit?.code === 0;
    return this.#up && this.record.started && this.record.ready;
  }

  /** Process 1 inside, for joining its namespaces. */
  get process(): SandboxedProcess | null {
    return this.#process;
  }

  /** The preStop hook, bounded. Repeating it does nothing. */
  async preStop(timeoutMs: number): Promise<void> {
    this.#stopping = true;
    this.#wake();
    this.#stopProbes();
    if (this.plan.preStop !== null && this.#up) await this.#hook(this.plan.preStop, timeoutMs);
  }

  /** SIGTERM, then after `graceMs` SIGKILL. Resolves when the container is gone. */
  async terminate(graceMs: number): Promise<void> {
    this.#stopping = true;
    this.#wake();
    this.#stopProbes();
    await this.#end(graceMs);
    await this.finished;
  }

  /** Runs a command inside, as the container's user, in its cgroup; killed with its children after the timeout. */
  exec(argv: readonly string[], timeoutMs: number): Promise<CommandResult> {
    return execInside(this.#host.execScript, argv, timeoutMs);
  }

  status(): ContainerStatus {
    const { record } = this;
    const common = {
      name: this.plan.name,
      ready: this.ready,
      started: this.#up && record.started,
      restartCount: record.restartCount,
    };
    const startedAtMs = record.launch?.startedAtMs ?? 0;
    if (this.#up) return { ...common, state: "running", reason: "", exitCode: null, startedAtMs };
    const exitCode = record.lastExit?.code ?? null;
    if (record.done || this.#stopping)
      return {
        ...common,
        state: "terminated",
        reason: record.lastExit?.reason ?? "Completed",
        exitCode,
        startedAtMs,
      };
    const reason =
      record.lastExit === null
        ? "ContainerCreating"
        : record.lastExit.reason === "Error"
          ? "CrashLoopBackOff"
          : record.lastExit.reason;
    return { ...common, state: "waiting", reason, exitCode, startedAtMs };
  }

  /** Why it is not well, as a sentence, or "". */
  complaint(): string {
    const { lastExit } = this.record;
    const name = `container ${this.plan.name}`;
    const recent = lastExit !== null && lastExit.atMs > Date.now() - 10 * 60_000;
    if (lastExit !== null && lastExit.reason === "OOMKilled" && recent) {
      return `${name} was killed for want of memory: raise resources.limits.memory or make it use less`;
    }
    if (!this.#up && lastExit !== null && lastExit.code !== 0) {
      const words = lastExit.words === "" ? "" : `; its last words: ${lastExit.words}`;
      return `${name} ${lastExit.reason === "ContainerCannotRun" ? "cannot run" : `ended with exit code ${lastExit.code}`}${words}`;
    }
    return this.#complaint === "" ? "" : `${name}: ${this.#complaint}`;
  }

  async #live(): Promise<void> {
    const { record } = this;
    if (record.done) return;
    if (record.launch !== null) {
      await this.#attend(
        SandboxedProcess.adopt(
          this.#host.cgroups,
          { cgroup: this.#host.cgroup, statusFile: this.#host.statusFile, logFile: this.#host.logFile },
          record.launch,
        ),
        true,
      );
    }
    while (!this.#stopping && !record.done) {
      await this.#pause(record.restartAtMs - Date.now());
      if (this.#stopping) return;
      let process: SandboxedProcess;
      try {
        process = SandboxedProcess.launch(this.#host.cgroups, this.#host.prepare());
      } catch (error) {
        this.#ended(
          { code: 128, oomKilled: false, neverRan: true },
          error instanceof Error ? error.message : String(error),
        );
        continue;
      }
      record.launch = process.record;
      record.started = false;
      record.ready = false;
      this.#host.changed();
      await this.#attend(process, false);
    }
  }

  /** From the program's start to its end. */
  async #attend(process: SandboxedProcess, adopted: boolean): Promise<void> {
    this.#process = process;
    if (await process.up()) {
      this.#up = true;
      this.#host.writeExecScript(process);
      this.#host.changed();
      void this.#begin(adopted);
    }
    const exit = await process.exited;
    this.#up = false;
    this.#process = null;
    this.#stopProbes();
    this.#ended(exit, lastWords(this.#host.logFile));
  }

  /** The postStart hook, then probes: startup first, the others when it has passed. */
  async #begin(adopted: boolean): Promise<void> {
    const process = this.#process;
    if (!adopted && this.plan.postStart !== null) {
      const problem = await this.#hook(this.plan.postStart, this.#host.graceMs);
      if (problem !== "" && this.#process === process) {
        this.#complaint = `postStart: ${problem}`;
        await this.#end(this.#host.graceMs);
        return;
      }
    }
    if (this.#process !== process || this.#stopping) return;
    if (this.plan.startupProbe === null || (adopted && this.record.started)) this.#hasStarted(adopted);
    else
      this.#probe(
        this.plan.startupProbe,
        false,
        true,
        (ok, message) => (ok ? this.#hasStarted(false) : this.#restartBecause("startup", message)),
        adopted,
      );
  }

  #hasStarted(adopted: boolean): void {
    this.#stopProbes();
    const { readinessProbe, livenessProbe } = this.plan;
    this.record.started = true;
    if (readinessProbe === null) this.record.ready = true;
    this.#complaint = "";
    this.#host.changed();
    if (readinessProbe !== null) {
      this.#probe(
        readinessProbe,
        adopted && this.record.ready,
        false,
        (ok, message) => {
          this.#complaint = ok ? "" : `not ready: ${message}`;
          this.record.ready = ok;
          this.#host.changed();
        },
        adopted,
      );
    }
    if (livenessProbe !== null) {
      this.#probe(
        livenessProbe,
        true,
        true,
        (ok, message) => {
          if (!ok) this.#restartBecause("liveness", message);
        },
        adopted,
      );
    }
  }

  #probe(
    plan: NonNullable<ContainerPlan["startupProbe"]>,
    initially: boolean,
    fatal: boolean,
    turned: (ok: boolean, message: string) => void,
    adopted: boolean,
  ): void {
    const target: ProbeTarget = {
      podIp: this.#host.podIp,
      exec: (argv, timeoutMs) => this.exec(argv, timeoutMs),
    };
    // A startup probe's verdict "failed" comes from its threshold, so it starts as good and must succeed once.
    const loop: ProbeLoop =
      fatal && !initially
        ? startupLoop(plan, target, turned)
        : new ProbeLoop(plan, target, initially, turned);
    this.#probes.push(loop);
    loop.start(adopted ? plan.periodSeconds * 1000 : undefined);
  }

  #restartBecause(probe: string, message: string): void {
    this.#complaint = `${probe} probe failed: ${message.slice(0, WORDS_MAX)}`;
    this.#stopProbes();
    this.record.ready = false;
    this.#host.changed();
    const plan = probe === "startup" ? this.plan.startupProbe : this.plan.livenessProbe;
    const graceMs =
      plan?.terminationGracePeriodSeconds === null || plan === null
        ? this.#host.graceMs
        : plan.terminationGracePeriodSeconds * 1000;
    void (async () => {
      if (this.plan.preStop !== null) await this.#hook(this.plan.preStop, graceMs);
      await this.#end(graceMs);
    })();
  }

  #stopProbes(): void {
    for (const probe of this.#probes) probe.stop();
    this.#probes = [];
  }

  /** SIGTERM and, in time, SIGKILL to the process that runs now. */
  async #end(graceMs: number): Promise<void> {
    const process = this.#process;
    if (process === null) return;
    process.signal("SIGTERM");
    const timer = setTimeout(() => process.kill(), graceMs);
    await process.exited;
    clearTimeout(timer);
  }

  #ended(exit: Exit, words: string): void {
    const { record } = this;
    const reason = exit.oomKilled
      ? "OOMKilled"
      : exit.neverRan
        ? "ContainerCannotRun"
        : exit.code === 0
          ? "Completed"
          : "Error";
    const ranMs = record.launch === null ? 0 : Date.now() - record.launch.startedAtMs;
    record.launch = null;
    record.started = false;
    record.ready = false;
    record.lastExit = { code: exit.code, reason, words: exit.code === 0 ? "" : words, atMs: Date.now() };
    if (this.#stopping) {
      record.done = true;
    } else if (this.#restarts(exit.code)) {
      const next = nextRestart(record.backoff, ranMs);
      record.backoff = next.state;
      record.restartAtMs = Date.now() + next.waitMs;
      record.restartCount++;
    } else {
      record.done = true;
    }
    this.#host.changed();
  }

  #restarts(code: number): boolean {
    if (this.role === "native-sidecar") return true;
    if (this.role === "init") return code !== 0 && this.#host.restartPolicy !== "Never";
    return this.#host.restartPolicy === "Always" || (this.#host.restartPolicy === "OnFailure" && code !== 0);
  }

  async #pause(ms: number): Promise<void> {
    if (ms <= 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Runs a hook. "" when it went well, else what went wrong. */
  async #hook(hook: HookPlan, timeoutMs: number): Promise<string> {
    if (hook.kind === "sleep") {
      await delay(Math.min(hook.seconds * 1000, timeoutMs));
      return "";
    }
    const target: ProbeTarget = { podIp: this.#host.podIp, exec: (argv, ms) => this.exec(argv, ms) };
    return (await runProbe(hook, timeoutMs, target)).message;
  }
}

/** A startup probe succeeds once, or fails for good at its threshold. */
function startupLoop(
  plan: NonNullable<ContainerPlan["startupProbe"]>,
  target: ProbeTarget,
  turned: (ok: boolean, message: string) => void,
): ProbeLoop {
  let failures = 0;
  return new ProbeLoop({ ...plan, failureThreshold: 1 }, target, false, (ok, message) => {
    failures++;
    if (ok || failures >= plan.failureThreshold) turned(ok, message);
  });
}

/** Enters a container by its script; the command and its children die together at the timeout. */
export function execInside(
  script: string,
  argv: readonly string[],
  timeoutMs: number,
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const child = spawn("/bin/sh", [script, ...argv], {
      stdio: ["ignore", "pipe", "pipe"],
      env: TOOL_ENV,
      cwd: "/",
      detached: true,
    });
    const out = ["", ""];
    const collect = (which: 0 | 1) => (chunk: Buffer) => {
      if ((out[which] as string).length < 8192) out[which] += chunk.toString("utf8");
    };
    child.stdout.on("data", collect(0));
    child.stderr.on("data", collect(1));
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      } catch {
        // It ended at the same moment.
      }
    }, timeoutMs);
    child.on("error", (error) => {
      clearTimeout(timer);
      resolve({ code: -1, stdout: "", stderr: error.message });
    });
    child.on("exit", (code) => {
      clearTimeout(timer);
      resolve({
        code: code ?? -1,
        stdout: out[0] as string,
        stderr: timedOut ? `no end within ${timeoutMs} ms` : (out[1] as string),
      });
    });
  });
}

function lastWords(logFile: string): string {
  const lines = tail(logFile, WORDS_MAX).trim().split("\n");
  return (lines.at(-1) ?? "").slice(0, WORDS_MAX);
}
