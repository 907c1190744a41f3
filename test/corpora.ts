import { existsSync } from "node:fs";
import { resolve } from "node:path";

/**
 * Folder of a corpus that others wrote, ending in a slash; null where there is none. Corpora are not part of this
 * repository: they lie in `shared/corpora` beside the checkout (or where PILLION_CORPORA says). Tests that need one
 * that is absent are left out, and the run says so.
 */
export function corpus(name: string): URL | null {
  const root = process.env["PILLION_CORPORA"] ?? resolve(import.meta.dirname, "../../shared/corpora");
  const folder = new URL(`file://${resolve(root, name)}/`);
  if (existsSync(folder)) return folder;
  console.log(`corpus "${name}" is not beside this checkout: its tests are left out (set PILLION_CORPORA to its parent folder)`);
  return null;
}
