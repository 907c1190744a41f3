import type { Subject } from "../subjects/subject.ts";
import type { CrowdRow } from "./crowd.ts";
import type { LetThrough } from "./let-through.ts";
import type { Burst } from "./load.ts";
import type { MeshSizeRow } from "./mesh-size.ts";
import type { Observed } from "./observed.ts";
import type { CpuUsed, MemoryUsed } from "./process-cost.ts";
import { spread, type Spread } from "./report.ts";
import type { Shape } from "./shapes.ts";

/** One burst of one subject, and what its processes used meanwhile. */
export interface Sample {
  readonly burst: Burst;
  readonly cpu: readonly CpuUsed[];
  readonly wireBytes: number;
  /** Of all processes together; null where the machine does not count them. */
  readonly instructions: number | null;
}

/** What one subject cost and gave under one shape, over all rounds; costs are per unit of the shape. */
export interface Row {
  readonly shape: string;
  readonly unit: Shape["unit"];
  readonly subject: string;
  /** µs, of each process. */
  readonly cpuUs: readonly { readonly role: string; readonly total: Spread; readonly userShare: number }[];
  /** Of the sum of all processes. Null where there is none. */
  readonly cpuSumUs: Spread | null;
  readonly perSecond: Spread;
  /** Of all processes together; null where the machine does not count them. */
  readonly instructions: Spread | null;
  /** Between the two pods, both ways. */
  readonly wireBytes: Spread;
  readonly p50Us: Spread;
  readonly p99Us: Spread;
  readonly p999Us: Spread;
  readonly failed: number;
}

export interface MemoryRow {
  readonly subject: string;
  readonly role: string;
  /** From exec until it could serve. */
  readonly readyMs: number;
  readonly fresh: MemoryUsed;
  /** Resident after each of a round's bursts: the median, for each round. */
  readonly roundsRssKib: readonly number[];
  readonly loaded: MemoryUsed;
  /** What each idle connection adds, in KiB of resident memory; null where it was not measured. */
  readonly idleKib: { readonly http1: number | null; readonly tcp: number | null };
}

export interface Results {
  readonly machine: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly rounds: number;
  readonly seconds: number;
  /** Subjects and shapes that could not be measured, and why. */
  readonly skipped: readonly string[];
  readonly rows: readonly Row[];
  readonly memory: readonly MemoryRow[];
  /** Whose capacity open loops of a share are shares of; null where there are none. */
  readonly reference: { readonly subject: string; readonly perSecond: number } | null;
  readonly watched: readonly WatchedRow[];
  readonly crowd: readonly CrowdRow[];
  readonly meshSizes: readonly MeshSizeRow[];
  readonly letThrough: LetThrough | null;
  /** In memory, without sockets: what policy adds to a request. */
  readonly policy: readonly PolicyRow[];
}

/** What one of our sidecars said of itself after one burst. */
export interface WatchedRow extends Observed {
  readonly shape: string;
  readonly role: string;
  readonly seconds: number;
}

export interface PolicyRow {
  readonly what: string;
  /** CPU of a request, × the same without. */
  readonly ratio: Spread;
  readonly aimMax: number;
}

export function rowOf(shape: Shape, subject: Subject, samples: readonly Sample[]): Row {
  const of = (value: (sample: Sample) => number): Spread => spread(samples.map(value));
  const total = (cpu: CpuUsed): number => cpu.userUs + cpu.systemUs;
  const sum = ({ cpu }: Sample): number => cpu.reduce((all, one) => all + total(one), 0);
  return {
    shape: shape.name,
    unit: shape.unit,
    subject: subject.name,
    cpuUs: subject.processes.map(({ role }, i) => ({
      role,
      total: of((s) => total(s.cpu[i]!) / s.burst.done),
      userShare: of((s) => shareOf(s.cpu[i]!)).median,
    })),
    cpuSumUs: subject.processes.length === 0 ? null : of((s) => sum(s) / s.burst.done),
    perSecond: of((s) => s.burst.perSecond),
    instructions: samples.some((s) => s.instructions === null)
      ? null
      : of((s) => (s.instructions ?? 0) / s.burst.done),
    wireBytes: of((s) => s.wireBytes / s.burst.done),
    p50Us: of((s) => s.burst.p50Us),
    p99Us: of((s) => s.burst.p99Us),
    p999Us: of((s) => s.burst.p999Us),
    failed: samples.reduce((all, s) => all + s.burst.failed, 0),
  };
}

/** User time of all; the kernel counts both in ticks of 10 ms, so that a short burst's share is a rough one. */
function shareOf({ userUs, systemUs }: CpuUsed): number {
  return userUs + systemUs <= 0 ? 1 : Math.min(1, Math.max(0, userUs / (userUs + systemUs)));
}

/** The peers whose cost ours is divided by: pairs that do what we do. */
export function isPeerPair(subject: string): boolean {
  return subject.startsWith("Envoy pair") || subject.startsWith("linkerd2-proxy pair");
}

/** What can be drawn of each shape, and whether less of it is better. Null where a subject has none. */
export const PLOTTED = {
  cpu: {
    title: "CPU of all processes per unit",
    isLessBetter: true,
    of: (row: Row): number | null => row.cpuSumUs?.median ?? null,
  },
  rate: {
    title: "Units a second",
    isLessBetter: false,
    of: (row: Row): number | null => row.perSecond.median,
  },
  p99: {
    title: "p99 of latency",
    isLessBetter: true,
    of: (row: Row): number | null => (row.p99Us.median === 0 ? null : row.p99Us.median),
  },
} as const;
export type Plotted = keyof typeof PLOTTED;

/** `row` against the best peer pair of the same shape; null where either has none. */
export function bestRatio(row: Row, rows: readonly Row[], what: Plotted): number | null {
  const { of, isLessBetter } = PLOTTED[what];
  const own = of(row);
  const peers = rows
    .filter((other) => other.shape === row.shape && isPeerPair(other.subject))
    .flatMap((peer) => of(peer) ?? []);
  const best = isLessBetter ? Math.min(...peers) : Math.max(...peers);
  return own === null || peers.length === 0 || best === 0 ? null : own / best;
}

/** CPU of `row` against the cheapest peer pair of the same shape; null where either has none. */
export function ratioToPeer(row: Row, rows: readonly Row[]): number | null {
  return bestRatio(row, rows, "cpu");
}
