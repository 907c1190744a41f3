import { posix } from "node:path";
import { withoutComments } from "./without-comments.ts";

/**
 * Joins modules into one file: a process that runs many small ones pays for each of them, in time and in memory
 * (docs/decisions/0021-start-and-memory.md). The file is `entry`'s text, with all that its `import()` of `roles` reaches put before it;
 * what else it imports, it still imports from files beside it.
 *
 * `modules` is JavaScript by its path below the sources. Each becomes a function that is run when it is first imported, as a module is,
 * and then gives what it exports. Only the forms are known that the sources use; throws, with the place, at any other, at modules that
 * import each other in a circle, and at what a module exports and may change.
 */
export function oneFile(
  modules: ReadonlyMap<string, string>,
  entry: string,
  roles: readonly string[],
): string {
  const text = modules.get(entry);
  if (text === undefined) throw new Error(`${entry}: there is no such module`);
  return new OneFile(modules).join(entry, text, roles);
}

/** An import or export of something begins a line, and ends with it or a later one. */
const IMPORT = /^import\s+(?:([^"';]+?)\s+from\s+)?"([^"]+)"(\s+with\s+\{[^}]*\})?;/gm;
const EXPORT = /^export\s+(?:(const|class|function|async\s+function)\s+([\w$]+)|\{([^}]*)\};)/gm;
const DYNAMIC_IMPORT = /\bimport\(\s*"([^"]+)"\s*\)/g;

interface Joined {
  readonly text: string;
  readonly exports: readonly string[];
  /** It, or what it imports, comes from a package, which is loaded when it is used. */
  readonly isAsync: boolean;
}

class OneFile {
  readonly #modules: ReadonlyMap<string, string>;
  /** null: it is about to be joined. */
  readonly #joined = new Map<string, Joined | null>();
  /** What is reached by `import()`, to be joined too. */
  readonly #lazy: string[] = [];

  constructor(modules: ReadonlyMap<string, string>) {
    this.#modules = modules;
  }

  join(entry: string, text: string, roles: readonly string[]): string {
    for (const role of roles) this.#add(role);
    for (const path of this.#lazy) this.#add(path);
    const own = text.replace(DYNAMIC_IMPORT, (whole, specifier: string) => {
      const path = resolve(entry, specifier);
      return roles.includes(path) ? `$import(${nameOf(path)})` : whole;
    });
    let lines = PRELUDE.split("\n").length + 1;
    const places: [line: number, path: string][] = [];
    const parts = [...this.#joined].map(([path, joined]) => {
      places.push([lines, path]);
      const part = `${joined!.text}\n`;
      lines += part.split("\n").length - 1;
      return part;
    });
    places.push([lines, entry]);
    return [
      PRELUDE.replace("PLACES", () => JSON.stringify(places)),
      "\n",
      ...parts,
      withoutComments(own),
    ].join("");
  }

  /** Puts a module and all that it imports into the file. Their order does not matter: none runs before the entry does. */
  #add(path: string): Joined {
    const known = this.#joined.get(path);
    if (known === null) throw new Error(`${path}: imports itself by way of others`);
    if (known !== undefined) return known;
    const source = this.#modules.get(path);
    if (source === undefined) throw new Error(`${path}: there is no such module`);
    const fail = (what: string): never => {
      throw new Error(`${path}: ${what} cannot be joined with other modules`);
    };
    for (const other of this.#joined.keys())
      if (nameOf(other) === nameOf(path)) fail(`a name so like ${other}`);
    this.#joined.set(path, null);

    let isAsync = false;
    const exported: string[] = [];
    const text = source
      .replace(IMPORT, (_, clause: string | undefined, specifier: string, attributes: string | undefined) => {
        if (clause === undefined || attributes !== undefined) return fail(`import "${specifier}"`);
        const from = this.#source(path, specifier);
        isAsync ||= from.isAsync;
        if (/^[\w$]/.test(clause) && !specifier.startsWith("node:"))
          return fail(`a default, import ${clause},`);
        // What is not there would be undefined when it is used, where a module would be refused at once.
        const missing =
          from.exports === null
            ? undefined
            : importedBy(clause).find((name) => !from.exports!.includes(name));
        if (missing !== undefined) return fail(`import ${missing}, which "${specifier}" does not export,`);
        return `const ${binding(clause)} = ${from.isAsync ? "await " : ""}${from.value};`;
      })
      .replace(DYNAMIC_IMPORT, (whole, specifier: string) => {
        if (!isOurs(specifier)) return whole;
        const target = resolve(path, specifier);
        this.#lazy.push(target);
        return `$import(${nameOf(target)})`;
      })
      .replace(EXPORT, (_, kind: string | undefined, name: string, list: string) => {
        if (kind !== undefined) exported.push(name);
        else
          for (const item of wordsOf(list)) {
            const [own] = item.split(/\s/);
            if (new RegExp(`^(?:let|var)\\s+${own!.replaceAll("$", "\\$")}\\b`, "m").test(source))
              return fail(`export of ${own}, which may change,`);
            exported.push(exportedAs(item));
          }
        return kind === undefined ? "" : `${kind} ${name}`;
      });
    const bare = withoutComments(text);
    const left = /^(?:import\b(?!\()|export\b).*|\bimport\.meta\b/m.exec(bare);
    if (left !== null) fail(left[0]);
    const made = `${isAsync ? "async " : ""}function () {${bare}\nreturn { ${exported.join(", ")} };}`;
    const exports = exported.map((item) => item.replace(/:.*/, ""));
    const joined = { text: `const ${nameOf(path)} = $module(${made});`, exports, isAsync };
    this.#joined.set(path, joined);
    return joined;
  }

  /** `exports` null: not ours to know. */
  #source(
    importer: string,
    specifier: string,
  ): { readonly value: string; readonly exports: readonly string[] | null; readonly isAsync: boolean } {
    // Asked for like this, a module of Node's does not bring all that it could lead to.
    if (specifier.startsWith("node:"))
      return { value: `process.getBuiltinModule("${specifier}")`, exports: null, isAsync: false };
    if (!isOurs(specifier)) return { value: `import("${specifier}")`, exports: null, isAsync: true };
    const path = resolve(importer, specifier);
    const { exports, isAsync } = this.#add(path);
    return { value: `${nameOf(path)}()`, exports, isAsync };
  }
}

/**
 * Before all modules. Places in stack traces are told as those of the module that a line came from, but for these lines themselves, by
 * way of which modules are run; V8 asks when somebody looks at a trace.
 */
const PRELUDE = `const $module = (make) => { let made; return () => (made ??= make()); };
const $import = async (module) => module();
Error.prepareStackTrace = (error, frames) => [Error.prototype.toString.call(error), ...frames].join("\\n    at ").replaceAll(/(file:[^\\n]*?):(\\d+):\\d+/g, (whole, file, line) => { const place = file === import.meta.url ? $places.findLast(([first]) => first <= line) : undefined; return place === undefined ? whole : new URL(place[1], file).href + ":" + (line - place[0] + 1); });
const $places = PLACES;`;

function isOurs(specifier: string): boolean {
  return specifier.startsWith(".") || specifier.startsWith("#/");
}

/** The path of what a module of ours imports. */
function resolve(importer: string, specifier: string): string {
  return specifier.startsWith("#/") ? specifier.slice(2) : posix.join(posix.dirname(importer), specifier);
}

function nameOf(path: string): string {
  return `$${path.replace(/\.js$/, "").replaceAll(/\W/g, "_")}`;
}

/** `a, { b as c }` and `* as d` of an import, as what a `const` takes; a default is all that a module of Node's exports. */
function binding(clause: string): string {
  const whole = /^(?:\*\s+as\s+)?([\w$]+)$/.exec(clause)?.[1];
  if (whole !== undefined) return whole;
  if (!/^\{[^{}]*\}$/.test(clause)) throw new Error(`import ${clause}: this form is not known here`);
  return clause.replaceAll(/([\w$]+)\s+as\s+/g, "$1: ");
}

/** What `{ a, b as c }` names in the other module; of `* as d` nothing. */
function importedBy(clause: string): string[] {
  return wordsOf(/^\{([^{}]*)\}$/.exec(clause)?.[1] ?? "").map((item) => item.split(/\s/)[0]!);
}

function wordsOf(list: string): string[] {
  return list
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

/** `a as b` of a list of exports, as a property of an object. */
function exportedAs(item: string): string {
  return item.replace(/^([\w$]+)\s+as\s+([\w$]+)$/, "$2: $1");
}
