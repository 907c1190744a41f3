import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { tailOffset } from "./logs.ts";

function tail(text: string, lines: number): string {
  const folder = mkdtempSync(join(tmpdir(), "pillion-tail-"));
  const file = join(folder, "log");
  writeFileSync(file, text);
  const fd = openSync(file, "r");
  try {
    return readFileSync(file).subarray(tailOffset(fd, lines)).toString();
  } finally {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}

test("the last lines of a log begin where they begin, whatever it ends with", () => {
  assert.equal(tail("a\nb\nc\n", 2), "b\nc\n");
  assert.equal(tail("a\nb\nc\n", 0), "");
  assert.equal(tail("a\nb\nc\n", 9), "a\nb\nc\n");
  assert.equal(tail("a\nb\nc", 1), "c");
  assert.equal(tail("a\nb\nc", 2), "b\nc");
  assert.equal(tail("\n\n\n", 2), "\n\n");
  assert.equal(tail("", 5), "");
});

test("lines longer than what is read at once are found too", () => {
  const long = "x".repeat(200_000);
  assert.equal(tail(`a\n${long}\nc\n`, 2), `${long}\nc\n`);
  assert.equal(tail(`a\n${long}\n`, 1), `${long}\n`);
});
