import { memoryUsed, type MemoryUsed } from "../../bench/lib/process-cost.ts";

/** Often enough that a median of a third of the shortest case stands on dozens of samples. */
const SAMPLE_EVERY_MS = 250;
/** The last third's median may lie so far above the middle third's. */
export const RATIO_MAX = 1.05;

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
  readonly isFlat: boolean;
}

/** Watches the memory of processes from construction until `stop`. */
export class MemoryWatch {
  readonly #pids: ReadonlyMap<string, number>;
  readonly #start = new Map<string, MemoryUsed>();
  readonly #samples = new Map<string, MemoryUsed[]>();
  #timer: NodeJS.Timeout | null = null;
  /** Why a process could not be read any more, such as that it is gone. */
  #error: Error | null = null;

  /** `pids` by the name that the report gives them. What they hold now is their start. */
  constructor(pids: ReadonlyMap<string, number>) {
    this.#pids = pids;
    for (const [name, pid] of pids) {
      this.#start.set(name, memoryUsed(pid));
      this.#samples.set(name, []);
    }
  }

  /** The time that is divided into thirds begins. */
  begin(): void {
    this.#timer = setInterval(() => this.#sample(), SAMPLE_EVERY_MS);
  }

  /** … and ends. Throws when a process is gone, or was watched for too short a time to say anything. */
  stop(): MemoryCourse[] {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#sample();
    if (this.#error !== null) throw this.#error;
    return [...this.#pids.keys()].map((name) =>
      courseOf(name, this.#start.get(name) as MemoryUsed, this.#samples.get(name) ?? []),
    );
  }

  /** Never throws: nobody waits for a timer. */
  #sample(): void {
    for (const [name, pid] of this.#pids) {
      try {
        this.#samples.get(name)?.push(memoryUsed(pid));
      } catch (error) {
        this.#error ??= new Error(`${name} can no longer be watched`, { cause: error });
      }
    }
  }
}

/** Judges one process by its samples, in the order of time. */
export function courseOf(process: string, start: MemoryUsed, samples: readonly MemoryUsed[]): MemoryCourse {
  if (samples.length < 9) throw new Error(`${samples.length} samples of ${process} are too few for thirds`);
  const third = Math.floor(samples.length / 3);
  const rss = samples.map(({ rssKib }) => rssKib);
  const middleRssKib = median(rss.slice(third, rss.length - third));
  const lastRssKib = median(rss.slice(-third));
  const ratio = lastRssKib / middleRssKib;
  return {
    process,
    samples: samples.length,
    startRssKib: start.rssKib,
    startPssKib: start.pssKib,
    firstRssKib: median(rss.slice(0, third)),
    middleRssKib,
    lastRssKib,
    lastPssKib: median(samples.slice(-third).map(({ pssKib }) => pssKib)),
    peakRssKib: Math.max(...rss),
    ratio,
    isFlat: ratio <= RATIO_MAX,
  };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[half] as number)
    : ((sorted[half - 1] as number) + (sorted[half] as number)) / 2;
}
