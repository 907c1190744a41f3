import { setTimeout as delay } from "node:timers/promises";
import { memoryUsed, type MemoryUsed } from "../../bench/lib/process-cost.ts";

/** Often enough that a median of a third of the shortest case stands on dozens of samples. */
const SAMPLE_EVERY_MS = 250;
/** The last third's median may lie so far above the middle third's. */
export const RATIO_MAX = 1.05;
/** A sidecar gives memory back once it has been idle for ten seconds, and an attacker's connection lives on for as long. */
const REST_MS = 40_000;

/** What one process held over one case, in KiB. */
export interface MemoryCourse {
  readonly process: string;
  readonly samples: number;
  /** Before the case's work began. */
  readonly startRssKib: number;
  readonly startPssKib: number;
  /** Medians of the thirds of the time in which the work went on. */
  readonly firstRssKib: number;
  readonly middleRssKib: number;
  readonly lastRssKib: number;
  readonly lastPssKib: number;
  readonly peakRssKib: number;
  /** Last third to middle third. */
  readonly ratio: number;
  /** At the end of each rest. */
  readonly restsRssKib: readonly number[];
  /** Last third of the rests to their middle third; null without rests. */
  readonly restRatio: number | null;
  /** By the rests where there are some: how much garbage lies about meanwhile is up to the collector. */
  readonly isFlat: boolean;
}

/** Watches the memory of processes from construction until `stop`. */
export class MemoryWatch {
  readonly #pids: ReadonlyMap<string, number>;
  readonly #start = new Map<string, MemoryUsed>();
  readonly #samples = new Map<string, MemoryUsed[]>();
  readonly #rests = new Map<string, MemoryUsed[]>();
  #timer: NodeJS.Timeout | null = null;
  /** Why a process could not be read any more, such as that it is gone. */
  #error: Error | null = null;

  /** `pids` by the name that the report gives them. What they hold now is their start. */
  constructor(pids: ReadonlyMap<string, number>) {
    this.#pids = pids;
    for (const [name, pid] of pids) {
      this.#start.set(name, memoryUsed(pid));
      this.#samples.set(name, []);
      this.#rests.set(name, []);
    }
  }

  /** The time that is divided into thirds begins. */
  begin(): void {
    this.#timer = setInterval(() => this.#sample(this.#samples), SAMPLE_EVERY_MS);
  }

  /** Nothing is asked of the processes until this resolves: what they hold then is kept, not garbage that waits. */
  async rest(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    await delay(REST_MS);
    this.#sample(this.#rests);
    this.begin();
  }

  /** … and ends. Throws when a process is gone, or was watched for too short a time to say anything. */
  stop(): MemoryCourse[] {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#sample(this.#samples);
    if (this.#error !== null) throw this.#error;
    return [...this.#pids.keys()].map((name) =>
      courseOf(
        name,
        this.#start.get(name) as MemoryUsed,
        this.#samples.get(name) ?? [],
        this.#rests.get(name) ?? [],
      ),
    );
  }

  /** Never throws: nobody waits for a timer. */
  #sample(into: ReadonlyMap<string, MemoryUsed[]>): void {
    for (const [name, pid] of this.#pids) {
      try {
        into.get(name)?.push(memoryUsed(pid));
      } catch (error) {
        this.#error ??= new Error(`${name} can no longer be watched`, { cause: error });
      }
    }
  }
}

/** Judges one process by its samples, in the order of time. */
export function courseOf(
  process: string,
  start: MemoryUsed,
  samples: readonly MemoryUsed[],
  rests: readonly MemoryUsed[] = [],
): MemoryCourse {
  if (samples.length < 9) throw new Error(`${samples.length} samples of ${process} are too few for thirds`);
  const third = Math.floor(samples.length / 3);
  const rss = samples.map(({ rssKib }) => rssKib);
  const [firstRssKib, middleRssKib, lastRssKib] = thirds(rss);
  const ratio = lastRssKib / middleRssKib;
  const restsRssKib = rests.map(({ rssKib }) => rssKib);
  let restRatio: number | null = null;
  if (rests.length >= 3) {
    const [, middle, last] = thirds(restsRssKib);
    restRatio = last / middle;
  }
  return {
    process,
    samples: samples.length,
    startRssKib: start.rssKib,
    startPssKib: start.pssKib,
    firstRssKib,
    middleRssKib,
    lastRssKib,
    lastPssKib: median(samples.slice(-third).map(({ pssKib }) => pssKib)),
    peakRssKib: Math.max(...rss),
    ratio,
    restsRssKib,
    restRatio,
    isFlat: (restRatio ?? ratio) <= RATIO_MAX,
  };
}

/** Medians of the first, the middle and the last third. */
function thirds(values: readonly number[]): [number, number, number] {
  const third = Math.floor(values.length / 3);
  return [
    median(values.slice(0, third)),
    median(values.slice(third, values.length - third)),
    median(values.slice(-third)),
  ];
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[half] as number)
    : ((sorted[half - 1] as number) + (sorted[half] as number)) / 2;
}
