import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import type { PodStatus } from "#/model/pod-plan.ts";
import { StateFolder } from "../state-folder.ts";
import { LEAF_LIFE_MS, SKEW_MS } from "./certificates.ts";
import { Trusting } from "./trusting.ts";

const folders: string[] = [];
let state: StateFolder;

beforeEach(() => {
  const dir = mkdtempSync(join(tmpdir(), "pillion-trusting-"));
  folders.push(dir);
  state = new StateFolder(dir);
});

after(() => {
  for (const dir of folders) rmSync(dir, { recursive: true });
});

function pod(name: string, sidecar: "running" | "waiting" | "terminated" | "none" = "running"): PodStatus {
  return {
    uid: name,
    name,
    namespace: "shop",
    owner: `Deployment/shop/${name}`,
    sidecar: sidecar === "none" ? null : { state: sidecar },
  } as PodStatus;
}

const names = (awaited: readonly { readonly name: string }[]): string[] => awaited.map(({ name }) => name);

test("waits for every running sidecar until it has confirmed, and for nobody without one", () => {
  const trusting = new Trusting(state);
  trusting.observe([pod("a"), pod("b"), pod("starting", "waiting"), pod("plain", "none")], () => true);
  assert.deepEqual(names(trusting.withoutRoots(2)), ["a", "b"]);
  trusting.confirms("a", 2, "");
  assert.deepEqual(names(trusting.withoutRoots(2)), ["b"]);
  trusting.confirms("b", 1, "");
  assert.deepEqual(names(trusting.withoutRoots(2)), ["b"]);
  trusting.confirms("b", 3, "");
  assert.deepEqual(trusting.withoutRoots(2), []);
});

test("the pod of a Job that is done keeps nobody waiting, whatever its sidecar went by", () => {
  const trusting = new Trusting(state);
  trusting.starts("job", 1, "i1");
  trusting.observe([pod("job")], () => true);
  assert.deepEqual(names(trusting.withoutRoots(2)), ["job"]);
  trusting.observe([pod("job", "terminated")], () => true);
  assert.deepEqual(trusting.withoutRoots(2), []);
  assert.deepEqual(trusting.withOtherLeaves("i2", 0, 0), []);
});

test("a sidecar that starts goes by the roots of that moment, whatever the one before it had confirmed", () => {
  const trusting = new Trusting(state);
  trusting.observe([pod("a")], () => true);
  trusting.confirms("a", 5, "");
  // An answer given just before the roots changed; its process is not reported yet.
  trusting.starts("a", 4, "i1");
  assert.deepEqual(names(trusting.withoutRoots(5)), ["a"]);
  trusting.starts("a", 5, "i1");
  assert.deepEqual(trusting.withoutRoots(5), []);
});

test("what sidecars started with is known after a restart; what they confirmed is confirmed again", () => {
  const before = new Trusting(state);
  before.starts("foreign", 7, "i1");
  before.starts("ours", 3, "i1");
  before.confirms("ours", 7, "i2");
  const trusting = new Trusting(state);
  trusting.observe([pod("foreign"), pod("ours")], () => true);
  assert.deepEqual(names(trusting.withoutRoots(7)), ["ours"]);
  trusting.confirms("ours", 7, "i2");
  assert.deepEqual(trusting.withoutRoots(7), []);
});

test("a pod that has gone is not waited for", () => {
  const trusting = new Trusting(state);
  trusting.starts("a", 1, "i1");
  trusting.observe([], (uid) => uid === "a");
  assert.deepEqual(names(trusting.withoutRoots(2)), ["a"], "it is planned, and may be starting");
  trusting.observe([], () => false);
  assert.deepEqual(trusting.withoutRoots(2), []);
  assert.deepEqual(state.readJson("started-with.json"), {});
});

test("a leaf of another issuer is waited for until it is renewed, and of one that says nothing until its life is over", () => {
  const trusting = new Trusting(state);
  trusting.starts("foreign", 1, "old");
  trusting.starts("late", 1, "new");
  trusting.observe([pod("foreign"), pod("late"), pod("ours")], () => true);
  trusting.confirms("ours", 1, "old");
  assert.deepEqual(names(trusting.withOtherLeaves("new", 0, 1)), ["foreign", "ours"]);
  trusting.confirms("ours", 1, "new");
  assert.deepEqual(names(trusting.withOtherLeaves("new", 0, 1)), ["foreign"]);
  assert.match(trusting.withOtherLeaves("new", 0, 1)[0]!.why, /1970-01-02T00:10:00/);
  assert.deepEqual(trusting.withOtherLeaves("new", 0, LEAF_LIFE_MS + SKEW_MS), []);
});
