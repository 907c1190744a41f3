import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

const ROOT = join(import.meta.dirname, "..");
const checkout = mkdtempSync(join(tmpdir(), "pillion-launcher-"));
const stamp = join(checkout, "node_modules/.pillion-stamp");
after(() => rmSync(checkout, { recursive: true }));

mkdirSync(join(checkout, "scripts"));
for (const file of ["pillion", "scripts/run", "scripts/system-packages"])
  copyFileSync(join(ROOT, file), join(checkout, file));
writeFileSync(join(checkout, "package-lock.json"), "{}\n");
// Stand-ins: Node 26 that tells how it was started, and a setup that tells what is missing.
const bin = join(checkout, `node_modules/node-linux-${process.arch}/bin`);
mkdirSync(bin, { recursive: true });
writeFileSync(join(bin, "node"), '#!/bin/sh\nshift\necho "pid $$ in $PWD:" "$@"\nexit 7\n', { mode: 0o755 });
mkdirSync(join(checkout, "path"));
writeFileSync(join(checkout, "path/node"), '#!/bin/sh\nshift\necho setup "$@"\nexit 3\n', { mode: 0o755 });

function start(
  args: readonly string[],
  program = join(checkout, "pillion"),
): { line: string; code: number | null } {
  const PATH = `${join(checkout, "path")}:/usr/bin:/bin`;
  const { stdout, status } = spawnSync(program, args, {
    cwd: "/",
    encoding: "utf8",
    env: { PATH, HOME: checkout, PILLION_SETUP: "skip" },
  });
  return { line: stdout.trim(), code: status };
}

test("becomes Node 26 in the caller's folder and passes arguments and exit code on", () => {
  writeFileSync(stamp, `${createHash("sha256").update("{}\n").digest("hex")}\n`);
  const { line, code } = start(["logs", "a b", "--", "-h"]);
  assert.match(line, /^pid \d+ in \/: .*src\/main\.ts logs a b -- -h$/);
  assert.equal(code, 7);
});

test("finds its checkout through links", () => {
  symlinkSync("../pillion", join(checkout, "path/one"));
  symlinkSync(join(checkout, "path/one"), join(checkout, "path/two"));
  assert.ok(start(["version"], join(checkout, "path/two")).line.includes(`${checkout}/src/main.ts version`));
});

test("sets up first when the lockfile is not the one that was installed, and ends when that fails", () => {
  writeFileSync(stamp, "of another lockfile\n");
  assert.deepEqual(start(["version"]), { line: "setup", code: 3 });
  rmSync(stamp);
  assert.deepEqual(start(["version"]), { line: "setup", code: 3 });
});
