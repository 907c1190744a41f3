/**
 * Many sidecars on one machine, as they are there: each of its own, none with traffic. Pages of a program that they share are
 * divided among them in their proportional memory (PSS), so that one alone would look dearer than it is.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ChildProcess } from "node:child_process";
import type { ListenPorts } from "../subjects/controlled.ts";
import { end } from "../subjects/subject.ts";
import type { Namespaces } from "./namespaces.ts";
import { cpuUsed, memoryUsed } from "./process-cost.ts";
import { spread, type Spread } from "./report.ts";

export const CROWD = 20;
const SETTLE_MS = 3_000;
const IDLE_MS = 5_000;

/** How sidecars of one kind are started, outside any pair. */
export interface SidecarKind {
  readonly name: string;
  /** Prepares a world for so many; `start` may be called that often. `folder` exists and is empty. */
  prepare(world: Namespaces, folder: string, count: number): Promise<PreparedKind>;
}

export interface PreparedKind {
  start(ports: ListenPorts, number: number): Promise<ReadySidecar>;
  stop(): Promise<void>;
}

export interface ReadySidecar {
  readonly child: ChildProcess;
  /** From exec until it could serve. */
  readonly readyMs: number;
}

export interface CrowdRow {
  readonly subject: string;
  readonly count: number;
  readonly readyMs: Spread;
  /** KiB, over all of them. */
  readonly rssKib: Spread;
  readonly pssKib: Spread;
  readonly privateKib: Spread;
  /** Processor time in ms a second, of each. */
  readonly idleMsPerSecond: Spread;
}

export async function crowdOf(kind: SidecarKind, world: Namespaces, folder: string): Promise<CrowdRow> {
  const own = join(folder, `crowd-${kind.name}`);
  mkdirSync(own);
  const prepared = await kind.prepare(world, own, CROWD);
  const ready: ReadySidecar[] = [];
  try {
    for (let number = 0; number < CROWD; number++)
      ready.push(await prepared.start(crowdPorts(number), number));
    await sleep(SETTLE_MS);
    const pids = ready.map(({ child }) => child.pid ?? 0);
    const memory = pids.map(memoryUsed);
    const used = (): number[] => pids.map(cpuUsed).map(({ userUs, systemUs }) => userUs + systemUs);
    const before = used();
    await sleep(IDLE_MS);
    const idle = used().map((us, i) => (us - before[i]!) / IDLE_MS);
    return {
      subject: kind.name,
      count: CROWD,
      readyMs: spread(ready.map(({ readyMs }) => readyMs)),
      rssKib: spread(memory.map(({ rssKib }) => rssKib)),
      pssKib: spread(memory.map(({ pssKib }) => pssKib)),
      privateKib: spread(memory.map(({ privateKib }) => privateKib)),
      idleMsPerSecond: spread(idle),
    };
  } finally {
    await Promise.all(ready.map(({ child }) => end(child)));
    await prepared.stop();
  }
}

function crowdPorts(number: number): ListenPorts {
  const first = 20_000 + number * 10;
  return { inbound: first, outbound: first + 1, admin: first + 4 };
}
