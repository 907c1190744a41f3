import { existsSync } from "node:fs";
import { describeError } from "#/base/errors.ts";
import { ensureParent, readIfThere, writeAtomic } from "./files.ts";
import { SandboxedProcess, delay, tail, type LaunchRecord, type LaunchSpec } from "./runtime/launch.ts";
import type { ProcessGroups } from "./runtime/process-groups.ts";

export interface DaemonOptions {
  readonly name: string;
  readonly cgroups: ProcessGroups;
  /** How to start it; made anew for each start. */
  spec(): LaunchSpec;
  /** Where what runs is remembered for the next agent. */
  readonly recordFile: string;
  /** While this file exists, it is not started again after its end: a hook for tests. null: none. */
  readonly holdFile: string | null;
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
}

const RETRY_FIRST_MS = 100;
const RETRY_LAST_MS = 10_000;
/** Having run this long, the next start is at once. */
const STEADY_MS = 10_000;
const HOLD_POLL_MS = 100;

/** One of the mesh's own processes beside the pods (control plane, name server): kept running, and taken over. */
export class Daemon {
  readonly #options: DaemonOptions;
  #process: SandboxedProcess | null = null;
  #stopping = false;
  #finished: Promise<void> = Promise.resolve();

  constructor(options: DaemonOptions) {
    this.#options = options;
  }

  start(): void {
    this.#finished = this.#live();
  }

  /** 0 while it is not up. */
  get pid(): number {
    return this.#process?.main()?.pid ?? 0;
  }

  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    const process = this.#process;
    if (process !== null) {
      process.signal("SIGTERM");
      const timer = setTimeout(() => process.kill(), graceMs);
      await process.exited;
      clearTimeout(timer);
    }
    await this.#finished;
  }

  async #live(): Promise<void> {
    const { name, cgroups, recordFile, holdFile, log } = this.#options;
    ensureParent(recordFile);
    let record = readRecord(recordFile);
    let retryMs = 0;
    while (!this.#stopping) {
      if (record === null && holdFile !== null && existsSync(holdFile)) {
        await delay(HOLD_POLL_MS);
        continue;
      }
      let process: SandboxedProcess;
      const spec = this.#options.spec();
      try {
        process =
          record === null
            ? SandboxedProcess.launch(cgroups, spec)
            : SandboxedProcess.adopt(cgroups, spec, record);
      } catch (error) {
        log("error", `${name} cannot start: ${describeError(error)}`);
        await delay((retryMs = Math.min(RETRY_LAST_MS, Math.max(RETRY_FIRST_MS, retryMs * 2))));
        continue;
      }
      const adopted = record !== null;
      record = null;
      this.#process = process;
      writeAtomic(recordFile, JSON.stringify(process.record));
      const startedMs = Date.now();
      const exit = await process.exited;
      this.#process = null;
      if (this.#stopping) break;
      if (!adopted) {
        const words = lastWords(tail(spec.logFile, 4_000));
        log("warn", `${name} ended with exit code ${exit.code}${words === "" ? "" : `: ${words}`}`);
      }
      retryMs =
        adopted || Date.now() - startedMs > STEADY_MS
          ? 0
          : Math.min(RETRY_LAST_MS, Math.max(RETRY_FIRST_MS, retryMs * 2));
      if (retryMs > 0) await delay(retryMs);
    }
  }
}

/** Of a program that died by an exception the exception, which Node prints before its stack; else its last line. */
function lastWords(text: string): string {
  const lines = text.trim().split("\n");
  return (lines.findLast((line) => /^\w*Error\b.*: /.test(line)) ?? lines.at(-1) ?? "").slice(0, 300);
}

function readRecord(file: string): LaunchRecord | null {
  try {
    const text = readIfThere(file);
    return text === null ? null : (JSON.parse(text) as LaunchRecord);
  } catch {
    return null;
  }
}
