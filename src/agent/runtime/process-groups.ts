import type { ProcessRef } from "../processes.ts";

/** Limits of one group. null: none. */
export interface CgroupLimits {
  readonly cpuLimitMillis: number | null;
  /** Its weight beside the other groups in the same one, when there is more to do than processors. */
  readonly cpuRequestMillis: number | null;
  readonly memoryLimitBytes: number | null;
  readonly pidsMax: number | null;
}

/** A group that has other groups in it: weighed as one, limited by what is in it. */
export function weighedOnly(cpuRequestMillis: number): CgroupLimits {
  return { cpuLimitMillis: null, cpuRequestMillis, memoryLimitBytes: null, pidsMax: null };
}

/** One container's group of processes. */
export interface Cgroup {
  /** Its directory: of the v2 hierarchy, which eBPF programs attach to, or a plain one where there are no cgroups. */
  readonly v2: string;
  /** Every directory that a process has to enter, v2 last. Empty where there are no cgroups. */
  readonly dirs: readonly string[];
}

/** Which processes belong together: told by cgroups, or without root by descent. */
export interface ProcessGroups {
  /** The group at `path` below the instance's, e.g. `POD_UID/app/nginx`. Made when it is missing, limits set anew. */
  create(path: string, limits: CgroupLimits | null): Cgroup;
  /** Says that these processes, and all that descend from them, are the group's; cgroups know by themselves. */
  joined(cgroup: Cgroup, roots: readonly ProcessRef[]): void;
  /** Processes of the group and of all below it. */
  pids(cgroup: Cgroup): number[];
  /** How often the kernel has killed a process of this group for want of memory. */
  oomKills(cgroup: Cgroup): number;
  /** Kills every process of the group and below it. */
  kill(cgroup: Cgroup): void;
  /** Removes everything below `path`, killing what still runs. False: something is still dying. */
  remove(path: string): boolean;
  /** Names of the groups right below `path`. */
  children(path: string): string[];
}
