import { closeSync, openSync, readFileSync, readdirSync, statSync, watch, type FSWatcher } from "node:fs";
import { join, relative } from "node:path";
import { whileNotWritten } from "#/kernel/libc.ts";
import type { FolderFile } from "#/model/node-protocol.ts";

/** The manifests' folder: what is beyond these bounds is left out and named among the problems. */
const FILES_MAX = 2_000;
const BYTES_MAX = 32 * 1024 * 1024;
const DEPTH_MAX = 16;
const DEBOUNCE_MS = 30;
/** Watching misses changes on some file systems; looking at sizes and times does not. */
const RESCAN_MS = 2_000;
/** How often a file that is being written is looked at. */
const REREAD_MS = 50;

export interface FolderContent {
  readonly files: readonly FolderFile[];
  readonly problems: readonly string[];
  /** Some file is being written, and was left out: what it says will be known once it is closed. */
  readonly isBeingWritten: boolean;
}

/** Reads the manifests' folder and says when it changed. It does not parse: only root may read, and root should not parse. */
export class ManifestFolder {
  readonly path: string;
  readonly #changed: () => void;
  #content: FolderContent = { files: [], problems: [], isBeingWritten: false };
  #signature = "";
  #watcher: FSWatcher | null = null;
  #debounce: NodeJS.Timeout | null = null;
  readonly #rescan: NodeJS.Timeout;

  constructor(path: string, changed: () => void) {
    this.path = path;
    this.#changed = changed;
    this.#read();
    this.#watch();
    this.#rescan = setInterval(() => this.#look(), RESCAN_MS);
  }

  get content(): FolderContent {
    return this.#content;
  }

  close(): void {
    clearInterval(this.#rescan);
    if (this.#debounce !== null) clearTimeout(this.#debounce);
    this.#watcher?.close();
  }

  #watch(): void {
    try {
      this.#watcher = watch(this.path, { recursive: true }, () => {
        this.#lookIn(DEBOUNCE_MS);
      });
      this.#watcher.on("error", () => {
        this.#watcher?.close();
        this.#watcher = null;
      });
    } catch {
      // Not there (yet): the re-scan finds it.
    }
  }

  #lookIn(ms: number): void {
    this.#debounce ??= setTimeout(() => {
      this.#debounce = null;
      this.#look();
    }, ms);
  }

  #look(): void {
    if (this.#watcher === null) this.#watch();
    if (signatureOf(this.path) === this.#signature && !this.#content.isBeingWritten) return;
    const before = JSON.stringify(this.#content);
    this.#read();
    if (JSON.stringify(this.#content) !== before) this.#changed();
  }

  #read(): void {
    this.#signature = signatureOf(this.path);
    this.#content = readFolder(this.path);
    if (this.#content.isBeingWritten) this.#lookIn(REREAD_MS);
  }
}

/** All manifests of a folder, or of one file. */
export function readFolder(path: string): FolderContent {
  const problems: string[] = [];
  const files: FolderFile[] = [];
  let bytes = 0;
  let isBeingWritten = false;
  for (const each of list(path, problems)) {
    if (files.length === FILES_MAX) {
      problems.push(`${path} holds more than ${FILES_MAX} manifests: the rest is not read`);
      break;
    }
    try {
      const text = readWhole(each);
      if (text === null) {
        isBeingWritten = true;
        problems.push(`${relative(path, each) || each} is being written: it is read once it is closed`);
        continue;
      }
      bytes += text.length;
      if (bytes > BYTES_MAX) {
        problems.push(
          `the manifests in ${path} are larger than ${BYTES_MAX / 1024 / 1024} MiB together: ${relative(path, each)} and the rest are not read`,
        );
        break;
      }
      files.push({ path: relative(path, each) || each, text });
    } catch (error) {
      problems.push(
        `${relative(path, each) || each} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }
  return { files, problems, isBeingWritten };
}

/**
 * Null while somebody writes it: many programs empty a file before they fill it, and to read it in between would be to
 * delete what it defines.
 */
function readWhole(path: string): string | null {
  const fd = openSync(path, "r");
  try {
    return whileNotWritten(fd, () => readFileSync(fd, "utf8"));
  } finally {
    closeSync(fd);
  }
}

/** Manifests below `path`, sorted, so that the order of reading never depends on the file system. */
function list(path: string, problems: string[], depth: number = 0): string[] {
  try {
    if (statSync(path).isFile()) return [path];
    if (depth > DEPTH_MAX) return [];
    return readdirSync(path, { withFileTypes: true })
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap((entry) => {
        if (entry.name.startsWith(".")) return [];
        const at = join(path, entry.name);
        if (entry.isDirectory()) return list(at, problems, depth + 1);
        return /\.(ya?ml|json)$/.test(entry.name) ? [at] : [];
      });
  } catch (error) {
    problems.push(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
    return [];
  }
}

/** Changes whenever a file is added, removed, replaced or written. */
function signatureOf(path: string): string {
  return list(path, [])
    .map((file) => {
      try {
        const stat = statSync(file);
        return `${file}:${stat.ino}:${stat.size}:${stat.mtimeMs}`;
      } catch {
        return file;
      }
    })
    .join("\n");
}
