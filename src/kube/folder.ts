import type { FolderFile, FolderProblem } from "#/model/node-protocol.ts";
import { namespaceOf, objectKey } from "./objects.ts";
import type { KubeObject } from "./objects.ts";
import { checkSemantics } from "./semantics.ts";
import { readDocuments } from "./source.ts";
import { validateObject } from "./validate.ts";

/** An object, and where it was written. */
export interface LoadedObject {
  readonly object: KubeObject;
  readonly file: string;
  readonly lineOf: (path: readonly (string | number)[]) => number;
}

export interface LoadedFolder {
  /** By `objectKey`. */
  readonly objects: ReadonlyMap<string, LoadedObject>;
  readonly problems: readonly FolderProblem[];
  /** Text of each file whose objects are in `objects`: what to keep as the last good state. */
  readonly good: ReadonlyMap<string, string>;
}

/**
 * Reads a whole folder. A file with anything wrong in it gives its problems and its last good text instead (`lastGood`
 * by path); a file that was never good gives only problems. A file that is gone is gone, unless it is in `unreadable`.
 * `cache` saves reading files again that did not change; it holds what the folder holds.
 */
export function loadFolder(
  files: readonly FolderFile[],
  lastGood: ReadonlyMap<string, string>,
  unreadable: ReadonlySet<string> = new Set(),
  cache: FileCache = new Map(),
): LoadedFolder {
  const objects = new Map<string, LoadedObject>();
  const problems: FolderProblem[] = [];
  const good = new Map<string, string>();
  const used: FileCache = new Map();
  const take = (file: FolderFile): FolderProblem[] => {
    const key = `${file.path}\0${file.text}`;
    const loaded = cache.get(key) ?? loadFile(file);
    used.set(key, loaded);
    const found = [...loaded.problems];
    for (const one of loaded.objects) {
      const other = objects.get(objectKey(one.object));
      if (other !== undefined)
        found.push(
          problemOf(
            one,
            ["metadata", "name"],
            `is also defined in ${other.file}:${other.lineOf([])}; remove one of the two`,
          ),
        );
    }
    if (found.length > 0) return found;
    for (const one of loaded.objects) objects.set(objectKey(one.object), one);
    good.set(file.path, file.text);
    return [];
  };
  const bad: string[] = [];
  // Sorted, so that of two files with the same object the same one wins always.
  for (const file of files.toSorted((a, b) => (a.path < b.path ? -1 : 1))) {
    if (!/\.(ya?ml|json)$/.test(file.path)) continue;
    const found = take(file);
    problems.push(...found);
    if (found.length > 0) bad.push(file.path);
  }
  for (const path of [...bad, ...unreadable]) {
    const text = lastGood.get(path);
    if (text !== undefined && !good.has(path)) take({ path, text });
  }
  cache.clear();
  for (const [key, loaded] of used) cache.set(key, loaded);
  return { objects, problems, good };
}

/** Files as they were read, by path and text. */
export type FileCache = Map<string, { objects: LoadedObject[]; problems: FolderProblem[] }>;

/** One file. Objects are given even when there are problems with others. */
export function loadFile(file: FolderFile): { objects: LoadedObject[]; problems: FolderProblem[] } {
  const { documents, errors } = readDocuments(file.text);
  const problems: FolderProblem[] = errors.map((error) => ({
    file: file.path,
    line: error.line,
    object: "",
    field: "",
    reason: `is no valid YAML: ${error.reason}`,
  }));
  const objects: LoadedObject[] = [];
  const seen = new Map<string, number>();
  for (const document of documents) {
    const violations = validateObject(document.value);
    const object = document.value as KubeObject;
    const loaded: LoadedObject = { object, file: file.path, lineOf: document.lineOf };
    if (violations.length === 0) violations.push(...checkSemantics(object));
    for (const violation of violations) problems.push(problemOf(loaded, violation.path, violation.reason));
    if (violations.length > 0) continue;
    const key = objectKey(object);
    const before = seen.get(key);
    if (before !== undefined)
      problems.push(
        problemOf(
          loaded,
          ["metadata", "name"],
          `is also defined in ${file.path}:${before}; remove one of the two`,
        ),
      );
    else objects.push(loaded);
    seen.set(key, document.lineOf([]));
  }
  return { objects, problems };
}

export function problemOf(
  loaded: LoadedObject,
  path: readonly (string | number)[],
  reason: string,
): FolderProblem {
  return {
    file: loaded.file,
    line: loaded.lineOf(path),
    object: nameOf(loaded.object),
    field: fieldPath(path),
    reason,
  };
}

/** `spec.containers[0].ports`, as people write it. */
export function fieldPath(path: readonly (string | number)[]): string {
  let out = "";
  for (const step of path)
    out +=
      typeof step === "number"
        ? `[${step}]`
        : /^[A-Za-z0-9_-]+$/.test(step)
          ? `${out === "" ? "" : "."}${step}`
          : `["${step}"]`;
  return out;
}

/** `FILE:LINE: OBJECT: FIELD REASON`, the one form of a problem in text. */
export function describeProblem(problem: FolderProblem): string {
  const subject = [problem.object, problem.field].filter((part) => part !== "").join(": ");
  return `${problem.file}:${problem.line}: ${subject === "" ? "" : `${subject} `}${problem.reason}`;
}

function nameOf(value: unknown): string {
  const object = value as Partial<KubeObject> | null;
  const name: unknown = object?.metadata?.name;
  if (typeof object !== "object" || typeof object?.kind !== "string" || typeof name !== "string") return "";
  const namespace = namespaceOf(object as KubeObject);
  return namespace === "" ? `${object.kind} ${name}` : `${object.kind} ${namespace}/${name}`;
}
