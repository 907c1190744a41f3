import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Cgroup, CgroupLimits, ProcessGroups } from "./process-groups.ts";

export type { Cgroup, CgroupLimits } from "./process-groups.ts";

/**
 * The machine's cgroup hierarchies: either pure v2, or v2 beside v1 controllers (systemd's "hybrid" layout and many
 * containers). Limits go to whichever hierarchy has the controller; membership in v2 is always kept.
 */
export class Cgroups implements ProcessGroups {
  readonly v2Root: string;
  readonly #v1Roots: ReadonlyMap<string, string>;
  readonly #base: string;
  #isWeighed = false;

  /** `base` is the path of this instance below each root, e.g. `pillion/default`. Throws when there is no v2 hierarchy. */
  constructor(base: string, mounts: string = readFileSync("/proc/self/mounts", "utf8")) {
    const { v2, v1 } = cgroupRoots(mounts);
    if (v2 === null) throw new Error("no cgroup v2 hierarchy is mounted: check `mount -t cgroup2`");
    this.v2Root = v2;
    this.#v1Roots = v1;
    this.#base = base;
    if (v1.size === 0) this.#delegate(v2, base);
  }

  /** The group at `path` below the instance's, e.g. `POD_UID/app/nginx`. Made when it is missing, limits set anew. */
  create(path: string, limits: CgroupLimits | null): Cgroup {
    const dirs: string[] = [];
    if (!this.#isWeighed) this.#weighMeshes();
    for (const [controller, root] of this.#v1Roots) {
      const dir = join(root, this.#base, path);
      mkdirSync(dir, { recursive: true });
      if (limits !== null) setV1Limits(controller, dir, limits);
      dirs.push(dir);
    }
    const v2 = join(this.v2Root, this.#base, path);
    if (this.#v1Roots.size === 0) {
      this.#delegate(this.v2Root, join(this.#base, path, ".."));
      mkdirSync(v2, { recursive: true });
      if (limits !== null) setV2Limits(v2, limits);
    } else {
      mkdirSync(v2, { recursive: true });
    }
    dirs.push(v2);
    return { v2, dirs };
  }

  /** Processes entered it themselves, by `dirs`. */
  joined(): void {}

  pids(cgroup: Cgroup): number[] {
    return groupPids(cgroup.v2);
  }

  /** How often the kernel has killed a process of this group for want of memory. */
  oomKills(cgroup: Cgroup): number {
    const memory = this.#v1Roots.get("memory");
    const file =
      memory === undefined
        ? join(cgroup.v2, "memory.events")
        : join(cgroup.dirs.find((dir) => dir.startsWith(`${memory}/`)) ?? "", "memory.oom_control");
    return Number(/^oom_kill (\d+)$/m.exec(readOr(file, ""))?.[1] ?? 0);
  }

  /** Kills every process of the group and below it, forks in progress included. */
  kill(cgroup: Cgroup): void {
    killTree(cgroup.v2);
  }

  /** Removes everything below `path` in every hierarchy, killing what still runs. False: something is still dying. */
  remove(path: string): boolean {
    let gone = true;
    for (const root of [...this.#v1Roots.values(), this.v2Root]) {
      const dir = join(root, this.#base, path);
      if (!existsSync(dir)) continue;
      if (root === this.v2Root) killTree(dir);
      if (!removeGroups(dir)) gone = false;
    }
    return gone;
  }

  /** Names of the groups right below `path` in any hierarchy. */
  children(path: string): string[] {
    const names = new Set<string>();
    for (const root of [...this.#v1Roots.values(), this.v2Root]) {
      for (const name of subdirectories(join(root, this.#base, path))) names.add(name);
    }
    return [...names];
  }

  /**
   * All meshes together weigh as much as one busy process of the machine on each processor, as kubelet has it for all pods:
   * a group is one competitor by default, however many pods are in it.
   */
  #weighMeshes(): void {
    this.#isWeighed = true;
    const [top = ""] = this.#base.split("/");
    const cpu = this.#v1Roots.get("cpu");
    const dir = join(cpu ?? this.v2Root, top);
    mkdirSync(dir, { recursive: true });
    const processors = availableParallelism();
    if (cpu !== undefined) tryWrite(join(dir, "cpu.shares"), String(CPU_SHARES_DEFAULT * processors));
    else tryWrite(join(dir, "cpu.weight"), String(Math.min(CPU_WEIGHT_MAX, CPU_WEIGHT_DEFAULT * processors)));
  }

  /** v2 only: hands the controllers down so that groups below `path` can have limits. */
  #delegate(root: string, path: string): void {
    let dir = root;
    for (const part of ["", ...path.split("/")]) {
      if (part === "." || part === "..") continue;
      dir = join(dir, part);
      mkdirSync(dir, { recursive: true });
      for (const controller of ["cpu", "memory", "pids"])
        tryWrite(join(dir, "cgroup.subtree_control"), `+${controller}`);
    }
  }
}

/** Process ids in this group and all below it. */
export function groupPids(dir: string): number[] {
  const own = readOr(join(dir, "cgroup.procs"), "").split("\n").filter(Boolean).map(Number);
  return [...own, ...subdirectories(dir).flatMap((name) => groupPids(join(dir, name)))];
}

/** Where the hierarchies are mounted, by /proc/self/mounts. v1: only the controllers that carry limits. */
export function cgroupRoots(mounts: string): { v2: string | null; v1: Map<string, string> } {
  let v2: string | null = null;
  const v1 = new Map<string, string>();
  for (const line of mounts.split("\n")) {
    const [, at = "", type, options = ""] = line.split(" ");
    if (type === "cgroup2") v2 ??= at;
    if (type !== "cgroup") continue;
    for (const controller of ["cpu", "memory", "pids"]) {
      if (options.split(",").includes(controller) && !v1.has(controller)) v1.set(controller, at);
    }
  }
  return { v2, v1 };
}

const CPU_PERIOD_US = 100_000;
/** What a group has that nobody has weighed, in v1 and v2: a process of ordinary priority has the same. */
const CPU_SHARES_DEFAULT = 1_024;
const CPU_WEIGHT_DEFAULT = 100;
const CPU_WEIGHT_MAX = 10_000;

function setV1Limits(controller: string, dir: string, limits: CgroupLimits): void {
  if (controller === "cpu") {
    const quota =
      limits.cpuLimitMillis === null ? -1 : Math.max(1000, (limits.cpuLimitMillis * CPU_PERIOD_US) / 1000);
    writeFileSync(join(dir, "cpu.cfs_period_us"), String(CPU_PERIOD_US));
    writeFileSync(join(dir, "cpu.cfs_quota_us"), String(Math.round(quota)));
    writeFileSync(join(dir, "cpu.shares"), String(cpuShares(limits.cpuRequestMillis)));
  } else if (controller === "memory") {
    writeFileSync(join(dir, "memory.limit_in_bytes"), String(limits.memoryLimitBytes ?? -1));
    // Swap counts against the same limit; the file is missing where the kernel does not account swap.
    if (limits.memoryLimitBytes !== null)
      tryWrite(join(dir, "memory.memsw.limit_in_bytes"), String(limits.memoryLimitBytes));
  } else {
    writeFileSync(join(dir, "pids.max"), String(limits.pidsMax ?? "max"));
  }
}

function setV2Limits(dir: string, limits: CgroupLimits): void {
  const quota =
    limits.cpuLimitMillis === null
      ? "max"
      : Math.max(1000, Math.round((limits.cpuLimitMillis * CPU_PERIOD_US) / 1000));
  writeFileSync(join(dir, "cpu.max"), `${quota} ${CPU_PERIOD_US}`);
  // The mapping of shares [2, 262144] to weights [1, 10000] that container runtimes use.
  writeFileSync(
    join(dir, "cpu.weight"),
    String(1 + Math.floor(((cpuShares(limits.cpuRequestMillis) - 2) * 9999) / 262142)),
  );
  writeFileSync(
    join(dir, "memory.max"),
    limits.memoryLimitBytes === null ? "max" : String(limits.memoryLimitBytes),
  );
  if (limits.memoryLimitBytes !== null) tryWrite(join(dir, "memory.swap.max"), "0");
  writeFileSync(join(dir, "pids.max"), String(limits.pidsMax ?? "max"));
}

/** 1000 millis are 1024 shares; a container that asks for nothing gets the least. */
function cpuShares(requestMillis: number | null): number {
  return Math.max(2, Math.floor(((requestMillis ?? 0) * 1024) / 1000));
}

function killTree(dir: string): void {
  if (tryWrite(join(dir, "cgroup.kill"), "1")) return;
  // cgroup.kill came with kernel 5.14. Without it: until a pass finds nothing, because a fork may be under way.
  for (let pass = 0; pass < 20; pass++) {
    const pids = groupPids(dir);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It was faster.
      }
    }
  }
}

function removeGroups(dir: string): boolean {
  for (const name of subdirectories(dir)) removeGroups(join(dir, name));
  try {
    rmdirSync(dir);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT";
  }
  return true;
}

function subdirectories(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return [];
  }
}

function readOr(file: string, otherwise: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return otherwise;
  }
}

function tryWrite(file: string, text: string): boolean {
  try {
    writeFileSync(file, text);
    return true;
  } catch {
    return false;
  }
}
