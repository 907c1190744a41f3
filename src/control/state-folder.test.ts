import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { StateFolder } from "./state-folder.ts";

test("files are readable by their owner alone, and the folder too", () => {
  const dir = mkdtempSync(join(tmpdir(), "pillion-state-"));
  try {
    const state = new StateFolder(join(dir, "new"));
    state.writeText("a", "1");
    state.writeTogether([
      ["b", "2"],
      ["c", "3"],
    ]);
    assert.equal(statSync(state.path).mode & 0o777, 0o700);
    for (const name of readdirSync(state.path))
      assert.equal(statSync(join(state.path, name)).mode & 0o777, 0o600, name);
    assert.deepEqual(readdirSync(state.path).toSorted(), ["a", "b", "c"]);
    assert.equal(state.readText("missing"), null);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("files that belong together are finished after a crash between them", () => {
  const dir = mkdtempSync(join(tmpdir(), "pillion-state-"));
  try {
    writeFileSync(
      join(dir, "journal.json"),
      JSON.stringify([
        ["root.key", "K"],
        ["root.crt", "C"],
      ]),
    );
    writeFileSync(join(dir, "root.key"), "old");
    const state = new StateFolder(dir);
    assert.equal(state.readText("root.key"), "K");
    assert.equal(state.readText("root.crt"), "C");
    assert.equal(state.readText("journal.json"), null);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("JSON that cannot be read counts as missing", () => {
  const dir = mkdtempSync(join(tmpdir(), "pillion-state-"));
  try {
    const state = new StateFolder(dir);
    state.writeText("a.json", "{");
    assert.equal(state.readJson("a.json"), null);
    state.writeJson("a.json", { b: 1 });
    assert.deepEqual(state.readJson("a.json"), { b: 1 });
  } finally {
    rmSync(dir, { recursive: true });
  }
});
