import { copyFileSync, existsSync, readdirSync, renameSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";

/** A container's log and the one before it: at most twice this on disk, and what is written between two looks. */
const LOG_BYTES_MAX = 10 * 1024 * 1024;
const LOOK_INTERVAL_MS = 1_000;

/**
 * Keeps logs bounded. Programs hold their log file open (it outlives the agent), so it is copied and cut in place; they
 * append, and go on at its new end. Lines written during the copy are lost.
 */
export class LogRotation {
  readonly #timer: NodeJS.Timeout;

  /** `dirs` gives the folders whose `*.log` are looked after. */
  constructor(dirs: () => readonly string[]) {
    this.#timer = setInterval(() => {
      for (const dir of dirs()) rotateLogs(dir, LOG_BYTES_MAX);
    }, LOOK_INTERVAL_MS);
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

export function rotateLogs(dir: string, bytesMax: number): void {
  if (!existsSync(dir)) return;
  for (const name of readdirSync(dir)) {
    if (!name.endsWith(".log")) continue;
    const file = join(dir, name);
    try {
      if (statSync(file).size <= bytesMax) continue;
      copyFileSync(file, `${file}.1.new`);
      renameSync(`${file}.1.new`, `${file}.1`);
      truncateSync(file, 0);
    } catch {
      // The pod has just gone, or the disk is full: the next look tries again.
    }
  }
}
