import { createHash } from "node:crypto";
import { globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync, existsSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join } from "node:path";
import { oneFile } from "./one-file.ts";

const ENTRY = "main.ts";
/** What the entry loads to be a sidecar: in one file with it. Of the other roles a machine has one process each. */
const IN_ONE_FILE: readonly string[] = ["kernel/confinement.ts", "proxy/main.ts"];

/**
 * Makes JavaScript of the package's `src` in a folder below `into`, and returns that folder: the same files, `.js` for
 * `.ts`, and the data (`.json`) that they read. Shown to a process in the place of `src`, it runs as the sources would, without the compiler that stripping types
 * inside the process would load and keep: 22 MB in each of many sidecars (docs/decisions/0004-runtime.md).
 *
 * `main.js` is also all that a sidecar runs, in one file (`oneFile`).
 *
 * The folder is named for its content, so a running process never sees its files change, and doing it again is a look.
 */
export function strippedSources(packageRoot: string, into: string): string {
  const source = join(packageRoot, "src");
  const files = globSync("**/*.{ts,json}", {
    cwd: source,
    exclude: (name) => name.endsWith(".test.ts"),
  }).toSorted();
  const texts = files.map((file) => readFileSync(join(source, file), "utf8"));
  const hash = createHash("sha256")
    .update(JSON.stringify([process.version, files, texts]))
    .digest("hex");
  const target = join(into, hash.slice(0, 16));
  if (existsSync(target)) return target;

  // Written beside and renamed, so that a folder of this name is always whole.
  const partial = `${target}.partial-${process.pid}`;
  rmSync(partial, { recursive: true, force: true });
  for (const [index, file] of files.entries()) writeJavaScript(texts[index]!, join(partial, file));
  if (IN_ONE_FILE.every((file) => files.includes(file))) {
    const modules = files.flatMap((file, index) =>
      file.endsWith(".ts") ? [[javaScriptName(file), javaScriptOf(texts[index]!)] as const] : [],
    );
    const text = oneFile(new Map(modules), javaScriptName(ENTRY), IN_ONE_FILE.map(javaScriptName));
    writeFileSync(join(partial, javaScriptName(ENTRY)), text, { mode: 0o644 });
  }
  renameSync(partial, target);
  return target;
}

/** Writes what a source is as JavaScript to `path`, with `.js` for `.ts`, for anybody to read; data as it is. */
export function writeJavaScript(text: string, path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const written = path.endsWith(".ts") ? javaScriptOf(text) : text;
  writeFileSync(javaScriptName(path), written, { mode: 0o644 });
}

function javaScriptName(path: string): string {
  return path.replace(/\.ts$/, ".js");
}

/** Lines and columns stay, so the places in a stack trace are those of the source. */
function javaScriptOf(text: string): string {
  const stripped = stripTypeScriptTypes(text, { mode: "strip" });
  return stripped.replace(/((?:\bfrom|\bimport)\s*\(?\s*"(?:\.{1,2}|#)\/[^"\n]+)\.ts"/g, '$1.js"');
}
