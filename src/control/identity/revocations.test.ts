import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { StateFolder } from "../state-folder.ts";
import { Revocations } from "./revocations.ts";

const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };

let dir = "";
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "pillion-revoked-"))));
afterEach(() => rmSync(dir, { recursive: true }));

test("who was revoked is so after a restart, until it is undone", () => {
  assert.equal(new Revocations(new StateFolder(dir)).set(WEB, true), true);
  const again = new Revocations(new StateFolder(dir));
  assert.equal(again.has(WEB), true);
  assert.equal(again.set(WEB, true), false);
  assert.equal(again.set(WEB, false), true);
  assert.deepEqual(new Revocations(new StateFolder(dir)).all, []);
});

test("a file that cannot be read lets nobody in again: the control plane does not begin", () => {
  for (const text of ["[", "{}", '["nobody"]']) {
    writeFileSync(join(dir, "revoked.json"), text);
    assert.throws(() => new Revocations(new StateFolder(dir)), /revoked\.json in the state folder/, text);
  }
});
