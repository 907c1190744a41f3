import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join, relative, resolve } from "node:path";

/**
 * Writes the JavaScript of one entry module and everything that it imports from our own source, and gives the path of
 * a file to start with `node`. What Node needs to read TypeScript stays in a process's memory for good (33 MB of 107 in a
 * sidecar, measured), so processes that run in large numbers are started from this.
 *
 * `into` holds one folder per content, made whole or not at all; a second call with the same source only looks. It is
 * readable by everybody and should be writable by root alone. `call` is the exported function to run, given the environment.
 *
 * Throws when the entry imports a package: there is no node_modules beside what is written.
 */
export function prepareRole(sourceRoot: string, entry: string, call: string, into: string): string {
  const modules = new Map<string, string>();
  collect(resolve(sourceRoot), resolve(sourceRoot, entry), modules);
  const main = `import { ${call} } from "./${asJs(entry)}";\nconst { env } = process;\nawait ${call}(env);\n`;
  const digest = createHash("sha256").update(main);
  for (const [path, text] of modules) digest.update(path).update("\0").update(text).update("\0");
  const folder = join(into, digest.digest("hex").slice(0, 16));
  if (!existsSync(folder)) {
    const unfinished = `${folder}.${process.pid}`;
    const write = (path: string, text: string): void => {
      mkdirSync(dirname(join(unfinished, path)), { recursive: true, mode: 0o755 });
      writeFileSync(join(unfinished, path), text, { mode: 0o644 });
    };
    for (const [path, text] of modules) write(asJs(path), text);
    write("package.json", JSON.stringify({ type: "module", imports: { "#/*": "./*" } }));
    write("main.js", main);
    try {
      renameSync(unfinished, folder);
    } catch (error) {
      // Another process was quicker with the same content.
      rmSync(unfinished, { recursive: true, force: true });
      if (!existsSync(folder)) throw error;
    }
  }
  return join(folder, "main.js");
}

/** Imports as the formatter writes them: at the beginning of a line, or `import("…")`. */
const SPECIFIER = /(^(?:import|export|\})[^"\n]*\bfrom "|^import "|\bimport\(")([^"\n]+)(")/gm;

function collect(root: string, file: string, modules: Map<string, string>): void {
  const path = relative(root, file);
  if (modules.has(path)) return;
  const stripped = stripTypeScriptTypes(readFileSync(file, "utf8"), { mode: "strip" });
  const imported: string[] = [];
  const text = stripped.replace(SPECIFIER, (whole, before: string, specifier: string, after: string) => {
    if (specifier.startsWith("node:")) return whole;
    if (!specifier.endsWith(".ts"))
      throw new Error(`${path} imports ${specifier}, which is no module of ours`);
    imported.push(
      specifier.startsWith("#/") ? join(root, specifier.slice(2)) : resolve(dirname(file), specifier),
    );
    return `${before}${asJs(specifier)}${after}`;
  });
  modules.set(path, text);
  for (const next of imported) collect(root, next, modules);
}

function asJs(path: string): string {
  return path.replace(/\.ts$/, ".js");
}
