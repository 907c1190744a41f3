/**
 * `npm run generate` writes src/gen from proto/. With `--check` it writes into a temporary folder instead and fails
 * when the committed files differ from what came out. Uses no network: buf and its plugin are npm packages.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { commandLine } from "./command-line.ts";

const root = join(import.meta.dirname, "..");
const proto = join(root, "proto");
const committed = join(root, "src/gen");

const { check } = commandLine(
  `Usage: npm run generate -- [options]

Writes src/gen from proto/.

Options:
  --check       writes nothing, and fails where src/gen differs from what would come out
  -h, --help    shows this`,
  { check: { type: "boolean", default: false } },
);

if (check) {
  const temporary = mkdtempSync(join(tmpdir(), "pillion-gen-"));
  try {
    // The template writes to ../src/gen, seen from its output folder.
    generateFrom(join(temporary, "proto"));
    const stale = differences(committed, join(temporary, "src/gen"));
    for (const line of stale) console.error(line);
    if (stale.length > 0) {
      console.error("src/gen does not match proto/: run `npm run generate` and commit the result");
      process.exitCode = 1;
    }
  } finally {
    rmSync(temporary, { recursive: true });
  }
} else {
  generateFrom(proto);
}

function generateFrom(output: string): void {
  const buf = join(root, "node_modules/@bufbuild/buf/bin/buf");
  // The plugin starts with `#!/usr/bin/env node`; it gets the Node that runs this script.
  const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env["PATH"] ?? ""}` };
  execFileSync(process.execPath, [buf, "generate", "--output", output], {
    cwd: proto,
    stdio: "inherit",
    env,
  });
}

function differences(committedFolder: string, freshFolder: string): string[] {
  const before = new Set(filesBelow(committedFolder));
  const after = new Set(filesBelow(freshFolder));
  const isSame = (file: string): boolean =>
    readFileSync(join(committedFolder, file)).equals(readFileSync(join(freshFolder, file)));
  return [
    ...[...before].filter((file) => !after.has(file)).map((file) => `${file}: comes from no .proto file`),
    ...[...after].filter((file) => !before.has(file)).map((file) => `${file}: is missing`),
    ...[...after]
      .filter((file) => before.has(file) && !isSame(file))
      .map((file) => `${file}: is not up to date`),
  ];
}

function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}
