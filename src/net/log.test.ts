import assert from "node:assert/strict";
import { mkdtempSync, openSync, readFileSync, rmSync, closeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { JsonLog } from "./log.ts";

test("attack: whatever a peer writes, a line of the log stays one line of plain characters (log injection)", () => {
  const dir = mkdtempSync(join(tmpdir(), "pillion-log-"));
  const file = join(dir, "log");
  const fd = openSync(file, "w");
  const host = 'a"\r\n{"level":"error"}\u001b[2J\u009b31m\u202e\u2028';
  new JsonLog("info", () => 0, fd).warn("inbound connection refused", { host, error: new Error(host) });
  closeSync(fd);
  const text = readFileSync(file, "utf8");
  rmSync(dir, { recursive: true });
  assert.match(text, /^[\u0020-\u007e]+\n$/);
  assert.equal((JSON.parse(text) as { host: string }).host, host);
});
