import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { LIMIT_SETTINGS } from "#/model/limits.ts";

const ROOT = join(import.meta.dirname, "..");
const PAGE = readFileSync(join(ROOT, "docs/reference/limits.md"), "utf8");

test("docs/reference/limits.md has every limit with its setting and default, and no other", () => {
  const rows = [...PAGE.matchAll(/^\|[^|]*\| (\d+)( s)? \| `([a-z0-9-]+)`, `(PILLION_\w+)` \|/gm)];
  assert.deepEqual(
    rows.map(([, value, seconds, annotation, variable]) => ({
      variable,
      annotation: `config.pillion.dev/${annotation!}`,
      unit: seconds === undefined ? "count" : "duration",
      standard: Number(value) * (seconds === undefined ? 1 : 1000),
    })),
    Object.values(LIMIT_SETTINGS),
  );
});

test("docs/reference/limits.md says what happens at each limit that is counted", () => {
  const source = readFileSync(join(ROOT, "src/model/limits.ts"), "utf8");
  const [, union = ""] = /type LimitReached =([^;]+);/.exec(source) ?? [];
  const labels = [...union.matchAll(/"(\w+)"/g)].map((match) => match[1]!);
  assert.ok(labels.length > 10);
  assert.deepEqual(
    labels.filter((label) => !PAGE.includes(`| \`${label}\` |`)),
    [],
  );
});
