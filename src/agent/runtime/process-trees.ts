import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readIfThere, removeTree, writeAtomic } from "../files.ts";
import { isAlive, signal, type ProcessRef } from "../processes.ts";
import type { Cgroup, CgroupLimits, ProcessGroups } from "./process-groups.ts";

const ROOTS = "roots.json";

/**
 * Groups of processes without cgroups, for the mode without root: a group is a folder that remembers the sandbox's two
 * processes, and its members are all that descend from them. The second is process 1 of a PID namespace: whatever is
 * started inside descends from it, and the kernel kills all of it with it. Limits are not kept.
 */
export class ProcessTrees implements ProcessGroups {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  create(path: string, _limits: CgroupLimits | null): Cgroup {
    const dir = join(this.#dir, path);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    return { v2: dir, dirs: [] };
  }

  joined(cgroup: Cgroup, roots: readonly ProcessRef[]): void {
    writeAtomic(join(cgroup.v2, ROOTS), JSON.stringify(roots));
  }

  pids(cgroup: Cgroup): number[] {
    const roots = rootsBelow(cgroup.v2).filter(isAlive);
    return roots.length === 0
      ? []
      : descendants(
          roots.map(({ pid }) => pid),
          parents(),
        );
  }

  oomKills(): number {
    return 0;
  }

  kill(cgroup: Cgroup): void {
    // Looked up first: with a root's end its children go to another parent.
    const pids = this.pids(cgroup);
    for (const root of rootsBelow(cgroup.v2)) signal(root, "SIGKILL");
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It was faster.
      }
    }
  }

  remove(path: string): boolean {
    const group = { v2: join(this.#dir, path), dirs: [] };
    if (!existsSync(group.v2)) return true;
    const hadAny = this.pids(group).length > 0;
    if (hadAny) this.kill(group);
    if (hadAny && this.pids(group).length > 0) return false;
    removeTree(group.v2);
    return true;
  }

  children(path: string): string[] {
    const dir = join(this.#dir, path);
    return existsSync(dir) ? subfolders(dir) : [];
  }
}

function rootsBelow(dir: string): ProcessRef[] {
  if (!existsSync(dir)) return [];
  const own = JSON.parse(readIfThere(join(dir, ROOTS)) ?? "[]") as ProcessRef[];
  return [...own, ...subfolders(dir).flatMap((name) => rootsBelow(join(dir, name)))];
}

function subfolders(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
}

/** Every process's parent (proc(5) stat, field 4), by one look at all. */
function parents(): Map<number, number> {
  const found = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (state !== "Z" && state !== "X") found.set(pid, Number(parent));
    } catch {
      // It ended meanwhile.
    }
  }
  return found;
}

/** `roots` and all below them. */
export function descendants(roots: readonly number[], parentOf: ReadonlyMap<number, number>): number[] {
  const children = Map.groupBy(parentOf.keys(), (pid) => parentOf.get(pid));
  const found = new Set<number>();
  const queue = [...roots];
  for (let pid = queue.pop(); pid !== undefined; pid = queue.pop()) {
    if (found.has(pid)) continue;
    found.add(pid);
    queue.push(...(children.get(pid) ?? []));
  }
  return [...found];
}
