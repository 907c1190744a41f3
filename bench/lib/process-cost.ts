import { readFileSync, readdirSync } from "node:fs";

/** CPU time a process has used since it began. User and system time apart, in µs. */
export interface CpuUsed {
  userUs: number;
  systemUs: number;
}

/** Memory of one process in KiB: resident, proportional (shared pages divided by their users), and its own alone. */
export interface MemoryUsed {
  rssKib: number;
  pssKib: number;
  privateKib: number;
}

/**
 * CPU time of all threads of a process, by the scheduler's own nanosecond count where the kernel gives it. The split
 * between user and system comes from the 10 ms ticks of /proc/PID/stat, scaled to the exact sum.
 */
export function cpuUsed(pid: number): CpuUsed {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const userTicks = Number(fields[11]);
  const systemTicks = Number(fields[12]);
  let exactUs = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) exactUs += threadUs(pid, thread);
  const ticks = userTicks + systemTicks;
  const tickUs = 10_000;
  // Threads that ended are missing from the exact sum, and are in the ticks.
  const sumUs = exactUs < ticks * tickUs * 0.9 ? ticks * tickUs : exactUs;
  const userShare = ticks === 0 ? 1 : userTicks / ticks;
  return { userUs: sumUs * userShare, systemUs: sumUs * (1 - userShare) };
}

function threadUs(pid: number, thread: string): number {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ")[0]) / 1000;
  } catch {
    return 0; // ended between the listing and the reading
  }
}

export function cpuBetween(before: CpuUsed, after: CpuUsed): CpuUsed {
  return { userUs: after.userUs - before.userUs, systemUs: after.systemUs - before.systemUs };
}

export function memoryUsed(pid: number): MemoryUsed {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(rollup)?.[1] ?? 0);
  return { rssKib: kib("Rss"), pssKib: kib("Pss"), privateKib: kib("Private_Clean") + kib("Private_Dirty") };
}
