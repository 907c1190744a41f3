import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { ContainerPlan, SidecarPlan } from "#/model/pod-plan.ts";
import { Cgroups, cgroupRoots } from "./cgroups.ts";
import { podCpuRequests } from "./pod-weight.ts";
import { weighedOnly } from "./process-groups.ts";

const LIMITS = { cpuLimitMillis: 250, cpuRequestMillis: 500, memoryLimitBytes: 64 << 20, pidsMax: 99 };

test("finds the hybrid layout's roots, and pure v2's", () => {
  const hybrid = cgroupRoots(
    "cgroup /c/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup /c/memory cgroup rw,memory 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\ncgroup /c/freezer cgroup rw,freezer 0 0",
  );
  assert.equal(hybrid.v2, "/c/unified");
  assert.deepEqual(
    [...hybrid.v1],
    [
      ["cpu", "/c/cpu,cpuacct"],
      ["memory", "/c/memory"],
    ],
  );
  assert.deepEqual(cgroupRoots("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0"), {
    v2: "/sys/fs/cgroup",
    v1: new Map(),
  });
});

test("writes limits where the controllers are", (t) => {
  const root = mkdtempSync(join(tmpdir(), "pillion-cgroups-"));
  t.after(() => rmSync(root, { recursive: true }));
  const pure = new Cgroups("p/i", `cgroup2 ${root}/v2 cgroup2 rw 0 0`);
  const group = pure.create("pod/app/c", LIMITS);
  assert.deepEqual(group.dirs, [join(root, "v2/p/i/pod/app/c")]);
  const read = (path: string): string => readFileSync(join(root, path), "utf8");
  assert.equal(read("v2/p/i/pod/app/c/cpu.max"), "25000 100000");
  assert.equal(read("v2/p/i/pod/app/c/memory.max"), String(64 << 20));
  assert.equal(read("v2/p/i/pod/app/c/pids.max"), "99");
  assert.match(read("v2/p/i/pod/app/cgroup.subtree_control"), /pids/);

  const hybrid = new Cgroups(
    "p/i",
    `cgroup ${root}/cpu cgroup rw,cpu 0 0\ncgroup ${root}/memory cgroup rw,memory 0 0\ncgroup2 ${root}/u cgroup2 rw 0 0`,
  );
  const both = hybrid.create("pod/c", LIMITS);
  assert.equal(both.v2, join(root, "u/p/i/pod/c"));
  assert.equal(both.dirs.length, 3);
  assert.equal(read("cpu/p/i/pod/c/cpu.cfs_quota_us"), "25000");
  assert.equal(read("cpu/p/i/pod/c/cpu.shares"), "512");
  assert.equal(read("memory/p/i/pod/c/memory.limit_in_bytes"), String(64 << 20));
});

test("a pod weighs what its containers and its sidecar ask for, and all meshes as much as the processors", (t) => {
  const container = (cpuRequestMillis: number | null) => ({ cpuRequestMillis }) as ContainerPlan;
  const sidecar = {} as SidecarPlan;
  assert.deepEqual(
    podCpuRequests({ initContainers: [], containers: [container(300), container(null)], sidecar }),
    { appMillis: 300, podMillis: 400 },
  );
  assert.deepEqual(
    podCpuRequests({ initContainers: [container(500)], containers: [container(300)], sidecar }),
    {
      appMillis: 500,
      podMillis: 600,
    },
  );
  const nothing = podCpuRequests({ initContainers: [], containers: [container(null)], sidecar });
  assert.equal(nothing.podMillis, 2 * nothing.appMillis, "as much as its sidecar");
  const root = mkdtempSync(join(tmpdir(), "pillion-cgroups-"));
  t.after(() => rmSync(root, { recursive: true }));
  const read = (path: string): string => readFileSync(join(root, path), "utf8");
  new Cgroups("p/i", `cgroup ${root}/cpu cgroup rw,cpu 0 0\ncgroup2 ${root}/u cgroup2 rw 0 0`).create(
    "pod",
    weighedOnly(500),
  );
  assert.equal(read("cpu/p/i/pod/cpu.shares"), "512");
  assert.equal(read("cpu/p/i/pod/cpu.cfs_quota_us"), "-1");
  assert.equal(read("cpu/p/cpu.shares"), String(1024 * availableParallelism()));
  new Cgroups("p/i", `cgroup2 ${root}/v2 cgroup2 rw 0 0`).create("pod", weighedOnly(500));
  assert.equal(read("v2/p/i/pod/cpu.max"), "max 100000");
  assert.equal(read("v2/p/i/pod/pids.max"), "max");
  assert.equal(read("v2/p/cpu.weight"), String(100 * availableParallelism()));
});

test("counts kills for want of memory in either layout", (t) => {
  const root = mkdtempSync(join(tmpdir(), "pillion-cgroups-"));
  t.after(() => rmSync(root, { recursive: true }));
  const pure = new Cgroups("i", `cgroup2 ${root} cgroup2 rw 0 0`);
  const group = pure.create("c", null);
  assert.equal(pure.oomKills(group), 0);
  writeFileSync(join(group.v2, "memory.events"), "low 0\noom 5\noom_kill 3\noom_group_kill 0\n");
  assert.equal(pure.oomKills(group), 3);
  mkdirSync(join(root, "m"));
  const hybrid = new Cgroups("i", `cgroup ${root}/m cgroup rw,memory 0 0\ncgroup2 ${root}/u cgroup2 rw 0 0`);
  const other = hybrid.create("c", null);
  writeFileSync(join(root, "m/i/c/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
  assert.equal(hybrid.oomKills(other), 2);
});
