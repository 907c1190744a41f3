import { readFileSync } from "node:fs";

/**
 * A process that cannot be mistaken for a later one with the same number: its start time (clock ticks since boot,
 * proc(5) stat field 22) goes with it. JSON-safe, because it is kept over restarts of the agent.
 */
export interface ProcessRef {
  readonly pid: number;
  readonly startTicks: number;
}

/** What `pid` denotes now, or null when there is no such process (a zombie counts as none). */
export function processRef(pid: number): ProcessRef | null {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return null;
  }
  // The name in parentheses may hold anything, so fields are counted from the last parenthesis.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields[0] === "Z" || fields[0] === "X") return null;
  return { pid, startTicks: Number(fields[19]) };
}

export function isAlive(ref: ProcessRef): boolean {
  return processRef(ref.pid)?.startTicks === ref.startTicks;
}

/** Sends a signal to exactly that process. False when it is gone. */
export function signal(ref: ProcessRef, name: NodeJS.Signals): boolean {
  if (!isAlive(ref)) return false;
  try {
    return process.kill(ref.pid, name);
  } catch {
    return false;
  }
}

/** The process among `pids` that is number `inner` in its own PID namespace (proc(5) status, NSpid), or null. */
export function findByInnerPid(pids: readonly number[], inner: number): ProcessRef | null {
  for (const pid of pids) {
    let status: string;
    try {
      status = readFileSync(`/proc/${pid}/status`, "latin1");
    } catch {
      continue;
    }
    const numbers = /^NSpid:\s+(.*)$/m.exec(status)?.[1]?.split(/\s+/) ?? [];
    if (numbers.length >= 2 && Number(numbers.at(-1)) === inner) return processRef(pid);
  }
  return null;
}
