import assert from "node:assert/strict";
import { test } from "node:test";
import {
  containerCapabilities,
  isBelow,
  isLoaderVariable,
  missingMountPoints,
  sandboxArguments,
} from "./sandbox.ts";

test("default capabilities are the container runtimes', less what is dropped, plus what is added", () => {
  assert.equal(containerCapabilities([], []).length, 13);
  assert.deepEqual(containerCapabilities(["NET_ADMIN"], ["ALL"]), ["NET_ADMIN"]);
  assert.ok(!containerCapabilities([], ["NET_RAW"]).includes("NET_RAW"));
  for (const name of ["SYS_ADMIN", "SYS_PTRACE", "BPF", "MKNOD", "ALL"]) {
    assert.throws(
      () => containerCapabilities([name], []),
      new RegExp(`capability ${name} would let the container out`),
    );
  }
});

test("variables that the C library obeys never reach our own tools", () => {
  for (const name of ["LD_PRELOAD", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "GCONV_PATH"])
    assert.ok(isLoaderVariable(name));
  for (const name of ["PATH", "HOME", "OLD_LD", "TZ"]) assert.ok(!isLoaderVariable(name));
});

test("mount points that the root lacks are grouped by the deepest folder that exists", () => {
  const missing = missingMountPoints([
    "/etc/no-such-app/conf",
    "/etc/no-such-file",
    "/data/x",
    "/tmp/y",
    "/usr",
    "/etc/no-such-app/conf/below",
  ]);
  assert.deepEqual([...missing], [["/etc", ["no-such-app/conf", "no-such-file"]]]);
});

test("a folder is below itself and its parents, not below its namesakes", () => {
  assert.ok(isBelow("/a/b", ["/a"]));
  assert.ok(isBelow("/a", ["/a"]));
  assert.ok(isBelow("/a", ["/"]));
  assert.ok(!isBelow("/ab", ["/a"]));
});

test("the sandbox hides the mesh's folders, also inside a volume that contains them", () => {
  const args = sandboxArguments({
    hostname: "h",
    scratchDir: null,
    etcFiles: [],
    binds: [{ source: "/usr", target: "/host", readOnly: false }],
    hidden: ["/usr/lib"],
    shown: [],
    overlays: new Map(),
    workingDir: "/",
    env: [["A", "b"]],
  });
  const text = args.join(" ");
  assert.match(text, /--bind \/usr \/host --tmpfs \/host\/lib/);
  assert.match(text, /--tmpfs \/usr\/lib/);
  assert.match(text, /--clearenv --setenv A b/);
  assert.match(text, /--ro-bind \/proc\/sys \/proc\/sys/);
  assert.doesNotMatch(text, /--(ro-)?bind \/(sys|run|dev|proc) /);
});
