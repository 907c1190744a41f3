import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import test from "node:test";
import { oneFile } from "./one-file.ts";
import { strippedSources } from "./stripped-sources.ts";

const ROOT = join(import.meta.dirname, "../..");
const MODULES: Readonly<Record<string, string>> = {
  "package.json": '{ "type": "module", "imports": { "#/*": "./*" } }',
  "main.js":
    'const { run } = await import("./a/run.js");\nconsole.log(await run());\nif (process.argv[2] === "other") await import("./no-main.js");\n',
  "a/run.js": [
    'import path from "node:path";',
    "import {",
    "  EOL,",
    "  platform as system, // a comment",
    '} from "node:os";',
    'import { Count, counts as many } from "#/base/count.js";',
    'import * as all from "./all.js";',
    "/** Said by all. */",
    "export async function run() {",
    '  const { late } = await import("../late.js");',
    '  return [path.sep, EOL.length, system(), many.length, new Count().next(), all.A, await late()].join(" ");',
    "}",
    "",
  ].join("\n"),
  "a/all.js": 'export const A = `${1}→\n  "`;\n',
  "base/count.js":
    "export class Count {\n  next() {\n    return counts.length;\n  }\n}\nconst counts = [1, 2];\nexport { counts };\nexport const loaded = globalThis.loaded = (globalThis.loaded ?? 0) + 1;\n",
  "late.js":
    'import { note } from "note/deep";\nimport { loaded } from "#/base/count.js";\nexport async function late() {\n  return `${note} ${loaded}`;\n}\n',
  "no-main.js": 'throw new Error("there");\n',
  "node_modules/note/package.json":
    '{ "name": "note", "type": "module", "exports": { "./deep": "./deep.js" } }',
  "node_modules/note/deep.js": 'export const note = "a note";\n',
};

test("modules in one file do what they do as files", () => {
  const asFiles = run(MODULES, []);
  assert.equal(asFiles.status, 0, asFiles.stderr);
  assert.match(asFiles.stdout, /^\/ 1 linux 2 2 1→\n {2}" a note 1\n$/);
  assert.equal(run(joined(MODULES), []).stdout, asFiles.stdout);
});

test("what is no part of the file is still imported from beside it", () => {
  const { stderr, status } = run({ ...joined(MODULES), "no-main.js": MODULES["no-main.js"]! }, ["other"]);
  assert.equal(status, 1);
  assert.match(stderr, /Error: there\n {4}at file:.*\/no-main\.js:1:7/);
});

test("a trace names the module's own lines", () => {
  const broken = {
    ...MODULES,
    "base/count.js": MODULES["base/count.js"]!.replace(
      "return counts",
      "throw new TypeError('here');\n return counts",
    ),
  };
  assert.match(
    run(joined(broken), []).stderr,
    /TypeError: here\n {4}at Count\.next \(file:.*\/base\/count\.js:3\)\n {4}at run \(file:.*\/a\/run\.js:11\)/,
  );
});

test("what goes wrong while modules are first run is told as it is", () => {
  const broken = { ...MODULES, "base/count.js": "export const counts = [];\nthrow new TypeError('here');\n" };
  broken["base/count.js"] += "export class Count {}\nexport const loaded = 1;\n";
  assert.match(
    run(joined(broken), []).stderr,
    /TypeError: here\n {4}at file:.*\/base\/count\.js:2\n[^]* at file:.*\/a\/run\.js:6\n/,
  );
});

test("what cannot be joined is told with its place", () => {
  for (const [text, complaint] of [
    ['import "./all.js";', /a\/run\.js: import "\.\/all\.js" cannot/],
    ['import all from "./all.js";', /a\/run\.js: a default, import all, cannot/],
    ["export let a = 1;", /a\/run\.js: export let a = 1; cannot/],
    ["export default 1;", /a\/run\.js: export default 1; cannot/],
    ['export * from "./all.js";', /a\/run\.js: export \* from/],
    ["const here = import.meta.dirname;", /a\/run\.js: import\.meta cannot/],
    ['import { a } from "./none.js";', /a\/none\.js: there is no such module/],
    ['import { b } from "#/a/run.js";', /a\/run\.js: imports itself/],
    ['import { A, B as b } from "./all.js";', /a\/run\.js: import B, which "\.\/all\.js" does not export,/],
    ["let a = 1;\nexport { a as b };", /a\/run\.js: export of a, which may change,/],
    ['import { a } from "../a_run.js";', /a_run\.js: a name so like a\/run\.js cannot/],
  ] as const)
    assert.throws(() => joined({ ...MODULES, "a_run.js": "", "a/run.js": text }), complaint);
});

test("each of the sidecar's own modules can be run in one file", () => {
  const into = mkdtempSync(join(tmpdir(), "pillion-one-file-"));
  try {
    const folder = strippedSources(ROOT, into);
    symlinkSync(join(ROOT, "node_modules"), join(into, "node_modules"));
    const text = readFileSync(join(folder, "main.js"), "latin1");
    const names = [...text.matchAll(/^const (\$\w+) = \$module/gm)].map(([, name]) => name!);
    assert.ok(names.includes("$net_jwt_verifier") && names.includes("$proxy_workload_api_serve"));
    const withoutEntry = text.slice(0, text.indexOf("\nconst role = "));
    writeFileSync(
      join(folder, "all.mjs"),
      `${withoutEntry}\nfor (const module of [${names.join(", ")}]) if (Object.keys(await module()).length > 0) console.log("ran");`,
    );
    const { stdout, stderr } = spawnSync(process.execPath, ["--no-warnings", join(folder, "all.mjs")], {
      encoding: "utf8",
    });
    assert.equal(stdout.split("\n").length - 1, names.length - emptyModules(text), stderr);
  } finally {
    rmSync(into, { recursive: true });
  }
});

test("the sidecar's own modules run in one file", () => {
  const into = mkdtempSync(join(tmpdir(), "pillion-one-file-"));
  try {
    const folder = strippedSources(ROOT, into);
    writeFileSync(join(folder, "package.json"), MODULES["package.json"]!);
    assert.match(readFileSync(join(folder, "main.js"), "latin1"), /^const \$proxy_main = /m);
    rmSync(join(folder, "proxy"), { recursive: true });
    const { status, stderr } = spawnSync(
      process.execPath,
      ["--no-strip-types", "--no-warnings", join(folder, "main.js"), "sidecar"],
      {
        encoding: "utf8",
        env: {},
      },
    );
    assert.match(stderr, /the sidecar's settings cannot be used/);
    assert.equal(status, 64);
  } finally {
    rmSync(into, { recursive: true });
  }
});

/** Those that are types alone. */
function emptyModules(text: string): number {
  return [...text.matchAll(/^return \{ {2}\};\}\);$/gm)].length;
}

/** The modules with those of `main.js` in one file, and only what is no module of it beside. */
function joined(files: Readonly<Record<string, string>>): Record<string, string> {
  const modules = Object.entries(files).filter(
    ([path]) => path.endsWith(".js") && !path.startsWith("node_modules"),
  );
  const others = Object.entries(files).filter(
    ([path]) => path.startsWith("node_modules") || path === "package.json",
  );
  return { ...Object.fromEntries(others), "main.js": oneFile(new Map(modules), "main.js", ["a/run.js"]) };
}

function run(
  files: Readonly<Record<string, string>>,
  words: readonly string[],
): { status: number | null; stdout: string; stderr: string } {
  const folder = mkdtempSync(join(tmpdir(), "pillion-one-file-"));
  try {
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      writeFileSync(join(folder, file), text);
    }
    return spawnSync(process.execPath, [join(folder, "main.js"), ...words], { encoding: "utf8" });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
