import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync, chownSync } from "node:fs";
import { dirname } from "node:path";

/** Replaces a file so that a reader sees the old content or the new one, never a part. */
export function writeAtomic(
  path: string,
  content: string | Uint8Array,
  mode: number = 0o600,
  uid?: number,
): void {
  const temporary = `${path}.${process.pid}.new`;
  writeFileSync(temporary, content, { mode });
  if (uid !== undefined) chownSync(temporary, uid, uid);
  renameSync(temporary, path);
}

export function ensureDir(path: string, mode: number = 0o700): void {
  mkdirSync(path, { recursive: true, mode });
}

/** The file's text, or null when it is not there. */
export function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** Gives a file to a user and group; where they are not mapped in our user namespace (EINVAL), it stays ours. */
export function giveTo(path: string, uid: number, gid: number): void {
  try {
    chownSync(path, uid, gid);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EINVAL") throw error;
  }
}

export function removeTree(path: string): void {
  rmSync(path, { recursive: true, force: true });
}

export function ensureParent(path: string): void {
  ensureDir(dirname(path));
}
