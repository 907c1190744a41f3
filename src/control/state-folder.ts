import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

/**
 * What outlives the control plane: keys, address allocations, pods, last good files. One flat folder, 0700, files 0600.
 * Writes are whole files, replaced atomically, so that a crash leaves the old or the new, never half.
 */
export class StateFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
    mkdirSync(path, { recursive: true, mode: 0o700 });
    chmodSync(path, 0o700);
    this.#finishTogether();
  }

  /** Null when it does not exist. */
  readText(name: string): string | null {
    try {
      return readFileSync(join(this.path, name), "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
      throw error;
    }
  }

  /**
   * Replaces a file. It survives this process at once, and a power failure only some seconds later: what is kept so can be
   * made anew after one, because no pod survives it either.
   */
  writeText(name: string, text: string): void {
    this.#replace(name, text, false);
  }

  /**
   * Several files that only make sense together: all of them or none, also over a crash or a power failure. For keys. Null: the file
   * is removed.
   */
  writeTogether(files: readonly (readonly [name: string, text: string | null])[]): void {
    this.#replace(JOURNAL, JSON.stringify(files), true);
    this.#finishTogether();
  }

  /** Null when it is missing or no JSON. What is kept as JSON can be made anew; keys are not. */
  readJson(name: string): unknown {
    const text = this.readText(name);
    if (text === null) return null;
    try {
      return JSON.parse(text) as unknown;
    } catch {
      return null;
    }
  }

  writeJson(name: string, value: unknown): void {
    this.writeText(name, JSON.stringify(value));
  }

  #finishTogether(): void {
    const journal = join(this.path, JOURNAL);
    if (!existsSync(journal)) return;
    for (const [name, text] of JSON.parse(readFileSync(journal, "utf8")) as [string, string | null][]) {
      if (text === null) rmSync(join(this.path, name), { force: true });
      else this.#replace(name, text, true);
    }
    unlinkSync(journal);
  }

  #replace(name: string, text: string, isDurable: boolean): void {
    const temporary = join(this.path, `.${name}.new`);
    const fd = openSync(temporary, "w", 0o600);
    try {
      writeFileSync(fd, text);
      if (isDurable) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, join(this.path, name));
    if (isDurable) {
      const folder = openSync(this.path, "r");
      try {
        fsyncSync(folder);
      } finally {
        closeSync(folder);
      }
    }
  }
}

const JOURNAL = "journal.json";
