import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const ROOT = join(import.meta.dirname, "..");

test("every attack that counts as answered names tests that exist", () => {
  const page = readFileSync(join(ROOT, "docs/security/attacks.md"), "utf8");
  const [answered = ""] = page.split("\n## Not yet");
  const rows = answered
    .split("\n")
    .filter((line) => /^\| (?!attack |---)/.test(line) && !line.startsWith("|---"));
  assert.ok(rows.length > 30, `${rows.length} rows`);
  const problems: string[] = [];
  for (const row of rows) {
    const proofs = [...row.matchAll(/`([^`]+\.(?:test\.ts|md))` "([^"]+)"/g)];
    if (proofs.length === 0) problems.push(`no test: ${row}`);
    for (const [, path, title] of proofs) {
      if (!existsSync(join(ROOT, path!))) problems.push(`${path!} is not there`);
      else if (!readFileSync(join(ROOT, path!), "utf8").includes(title!))
        problems.push(`${path!} has no test "${title!}"`);
    }
  }
  assert.deepEqual(problems, []);
});
