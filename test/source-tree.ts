/** Reads the repository as the tidy test sees it: files, what they import, and their code without comments. */
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

export interface SourceFile {
  /** From the repository's root, with `/`. */
  readonly path: string;
  readonly text: string;
  /** The text with comments blanked out; line numbers stay. */
  readonly code: string;
  readonly imports: readonly Import[];
}

export type Import =
  | { readonly kind: "file"; readonly path: string }
  /** Not imported, but started as a process of its own, or looked up beside the file. */
  | { readonly kind: "program"; readonly path: string }
  | { readonly kind: "node"; readonly name: string }
  | { readonly kind: "npm"; readonly name: string };

export const ROOT = join(import.meta.dirname, "..");

/** Every TypeScript or JavaScript file that is ours, generated ones included. */
export function sourceFiles(): SourceFile[] {
  const patterns = ["src", "test", "bench", "scripts", "bpf", "demo", "examples"].map(
    (folder) => `${folder}/**/*.{ts,js}`,
  );
  return globSync(patterns, { cwd: ROOT }).toSorted().map(readSource);
}

/** Every text file that a reader of the repository may open. */
export function textFiles(): { path: string; text: string }[] {
  const folders = ["src", "test", "bench", "scripts", "bpf", "demo", "examples", "proto", "docs", ".ci"];
  const patterns = [
    ...folders.map((folder) => `${folder}/**/*.*`),
    "scripts/*",
    ".ci/*",
    "*.*",
    ".*rc.json",
    "pillion",
  ];
  const isText = (path: string): boolean => !/\.(o|der|pem|bin|png)$|^LICENSE$/.test(path);
  const paths = new Set(
    globSync(patterns, { cwd: ROOT, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length + 1)),
  );
  return [...paths]
    .filter(isText)
    .toSorted()
    .map((path) => ({ path, text: read(path) }));
}

/** The top folder below src, or null for src/main.ts and everything outside src. */
export function layerOf(path: string): string | null {
  return /^src\/([^/]+)\//.exec(path)?.[1] ?? null;
}

export function isTest(path: string): boolean {
  return path.endsWith(".test.ts") || path.startsWith("test/");
}

/** `paths` and all that they import, or also start, directly or not. */
export function reachableFrom(
  paths: readonly string[],
  files: ReadonlyMap<string, SourceFile>,
  kinds: readonly Import["kind"][],
): Set<string> {
  const reached = new Set<string>();
  const waiting = [...paths];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (reached.has(path)) continue;
    reached.add(path);
    for (const each of files.get(path)?.imports ?? [])
      if ("path" in each && kinds.includes(each.kind)) waiting.push(each.path);
  }
  return reached;
}

export function read(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

export function lineOf(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}

function readSource(path: string): SourceFile {
  const text = read(path);
  const code = withoutComments(text);
  return { path, text, code, imports: importsOf(path, code) };
}

const STATEMENT = /^[ \t]*(?:import|export)\b[^;"'`]*?\bfrom\s*"([^"]+)"|^[ \t]*import\s*"([^"]+)"/gm;
const DYNAMIC = /\bimport\(\s*"([^"]+)"/g;
/** `new URL("./x.ts", import.meta.url)`, `import.meta.resolve("./x.ts")`, `join(import.meta.dirname, "..", "x.ts")`. */
const PLACE =
  /new URL\(\s*("[^"]+\.[tj]s"),\s*import\.meta\.url|import\.meta\.resolve\(\s*("\.[^"]+")|import\.meta\.dirname,\s*((?:"[^"]+",\s*)*"[^"]+\.[tj]s")/g;

function importsOf(path: string, code: string): Import[] {
  const found: Import[] = [];
  for (const match of [...code.matchAll(STATEMENT), ...code.matchAll(DYNAMIC)]) {
    const specifier = match[1] ?? match[2] ?? "";
    // Code that a template makes for another program has its own names.
    if (!/^[\w@#./:-]+$/.test(specifier)) continue;
    if (specifier.startsWith("node:")) found.push({ kind: "node", name: specifier });
    else if (specifier.startsWith("#/")) found.push({ kind: "file", path: `src/${specifier.slice(2)}` });
    else if (specifier.startsWith(".")) found.push({ kind: "file", path: beside(path, specifier) });
    else found.push({ kind: "npm", name: packageOf(specifier) });
  }
  for (const match of code.matchAll(PLACE)) {
    const parts = [...(match[1] ?? match[2] ?? match[3] ?? "").matchAll(/"([^"]+)"/g)].map(
      (part) => part[1]!,
    );
    found.push({ kind: "program", path: beside(path, ...parts) });
  }
  return found;
}

function beside(path: string, ...parts: readonly string[]): string {
  return normalize(join(dirname(path), ...parts));
}

function packageOf(specifier: string): string {
  const names = specifier.split("/");
  return specifier.startsWith("@") ? names.slice(0, 2).join("/") : names[0]!;
}

/**
 * Blanks comments out, and strings in single quotes: the formatter leaves those only around quotes, so they hold code for
 * somebody else. Other strings are stepped over, so that a `//` in an address stays.
 */
function withoutComments(text: string): string {
  return text.replace(
    /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/\*[\s\S]*?\*\/|(?<=^|[\s;,({[])\/\/[^\n]*/g,
    (found) => (/^[/']/.test(found) ? found.replace(/[^\n]/g, " ") : found),
  );
}
