import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsInPath } from "./programs.ts";

const EVENT = "instructions";
const STARTS_WITHIN_MS = 5_000;

/** Whether this machine counts instructions: hypervisors often give no counters to their guests. */
export function countsInstructions(event: string = EVENT): boolean {
  if (!existsInPath("perf")) return false;
  const { stderr } = spawnSync("perf", ["stat", "-x", ",", "-e", event, "--", "true"], { encoding: "utf8" });
  return countIn(stderr) !== null;
}

/** What `perf stat -x ,` printed for its one event; null where it was not counted. */
export function countIn(printed: string): number | null {
  const count = /^([\d.]+),[^,]*,[^,]+,/m.exec(printed)?.[1];
  return count === undefined ? null : Number(count);
}

/** Instructions of one process, its threads among them, from `start` to `stop`. */
export class PerfCounter {
  readonly #child: ChildProcess;
  #printed = "";

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.on("data", (bytes: Buffer) => (this.#printed += bytes.toString()));
  }

  /** Resolves when it counts. */
  static async start(pid: number, event: string = EVENT): Promise<PerfCounter> {
    const command = ["stat", "-x", ",", "-e", event, "-p", String(pid), "-D", "-1", "--control", "fd:3,4"];
    const child = spawn("perf", command, { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
    const counter = new PerfCounter(child);
    const [control, answers] = [child.stdio[3], child.stdio[4]];
    if (control === null || control === undefined || !("write" in control) || !answers)
      throw new Error("perf stat got no pipes to be told by");
    control.write("enable\n");
    await once(answers, "data", { signal: AbortSignal.timeout(STARTS_WITHIN_MS) });
    return counter;
  }

  /** Null where nothing was counted. */
  async stop(): Promise<number | null> {
    const closed = once(this.#child, "close");
    this.#child.kill("SIGINT");
    await closed;
    return countIn(this.#printed);
  }
}
