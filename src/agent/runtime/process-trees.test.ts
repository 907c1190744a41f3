import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { processRef } from "../processes.ts";
import { descendants, ProcessTrees } from "./process-trees.ts";

test("a tree is its roots and all that descends from them", () => {
  const parentOf = new Map([
    [2, 1],
    [3, 2],
    [4, 3],
    [5, 1],
    [6, 5],
  ]);
  assert.deepEqual(
    descendants([2, 6, 99], parentOf).toSorted((a, b) => a - b),
    [2, 3, 4, 6, 99],
  );
});

test("a group knows the children of what joined it, and removing it kills them", async () => {
  const dir = mkdtempSync(join(tmpdir(), "pln-trees-"));
  const child = spawn("sh", ["-c", "sleep 100 & echo; wait"], { stdio: ["ignore", "pipe", "ignore"] });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  try {
    await new Promise((resolve) => child.stdout.once("data", resolve));
    const trees = new ProcessTrees(dir);
    const group = trees.create("pod/app/main", null);
    assert.deepEqual(trees.pids(group), []);
    const root = processRef(child.pid ?? 0);
    assert.ok(root);
    trees.joined(group, [root]);
    assert.equal(trees.pids(trees.create("pod", null)).length, 2);
    assert.deepEqual(trees.children(""), ["pod"]);
    trees.remove("pod");
    await ended;
    assert.equal(trees.remove("pod"), true);
    assert.deepEqual(trees.children(""), []);
  } finally {
    child.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  }
});
