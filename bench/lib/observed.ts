import { once } from "node:events";
import { createInterface, type Interface } from "node:readline";
import type { ChildProcess } from "node:child_process";

/** What `observe.ts` says of one burst. */
export interface Observed {
  readonly gc: {
    readonly pauses: number;
    readonly totalMs: number;
    readonly longestMs: number;
    /** Of the pauses: collections of the whole heap. */
    readonly majors: number;
  };
  /** How late the event loop came to a timer, beyond its time. */
  readonly stalls: { readonly p99Ms: number; readonly longestMs: number };
}

const MARK = "observed ";
const ANSWER_WITHIN_MS = 10_000;

/** Reads what a watched sidecar says of itself since it was last asked. */
export class Watched {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  constructor(child: ChildProcess) {
    if (child.stderr === null) throw new Error("a watched sidecar needs its stderr as a pipe");
    this.#child = child;
    this.#lines = createInterface(child.stderr);
  }

  async ask(): Promise<Observed> {
    const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
    this.#child.kill("SIGWINCH");
    for (;;) {
      const [line] = (await once(this.#lines, "line", { signal })) as [string];
      if (line.startsWith(MARK)) return JSON.parse(line.slice(MARK.length)) as Observed;
    }
  }
}
