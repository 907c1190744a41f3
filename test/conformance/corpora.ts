/**
 * Corpora are others' work and no part of this repository: they lie in `shared/corpora` beside the checkout, or nowhere.
 * Where there are none, the tests that need them are skipped, and the commands fail.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const CORPORA = new URL("../../../shared/corpora/", import.meta.url);

export function corpusFolder(name: string): string {
  return fileURLToPath(new URL(`${name}/`, CORPORA));
}

/** What a test that needs the corpus says in `skip`. */
export function isMissing(name: string): string | false {
  const folder = corpusFolder(name);
  return existsSync(folder) ? false : `optional: no ${folder}`;
}

/** What a command that needs the corpus does first. */
export function needCorpus(name: string): void {
  const folder = corpusFolder(name);
  if (existsSync(folder)) return;
  console.error(`There is no ${folder}, and others' test cases are no part of this repository.`);
  process.exit(1);
}
