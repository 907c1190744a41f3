import type { Clock } from "#/base/clock.ts";

export interface MemoryReturnParts {
  readonly clock: Clock;
  /** Processor time that the process has used, in ms. */
  cpuMs(): number;
  /** Of V8's heap, garbage counted. */
  heapBytes(): number;
  /** Nothing else runs meanwhile: 0.6 ms for each MB that lives; for "everything", which frees all that can be made again, 1.5 and 10 ms besides. */
  collect(what: "garbage" | "everything"): void;
  /** Gives the kernel what is free: a few milliseconds. */
  giveBack(): void;
}

const LOOK_EVERY_MS = 2_000;
/** Of one core, between two looks. What has been busy has left something; while it is not quiet, somebody may wait for it. */
const BUSY_SHARE = 0.05;
const QUIET_SHARE = 0.01;
/** A sidecar that nobody asks anything takes a third to one percent. Close to that the start's memory might stay for good. */
const QUIET_SHARE_FRESH = 0.02;
/** What can be made again is a few MB however large the heap is, and not worth twice the pause where that is long. */
const EVERYTHING_HEAP_BYTES_MAX = 64 * 1_048_576;
/** In a row, so that a service with little to do now and then is not stopped each time. */
const QUIET_LOOKS_AFTER_BURST = 5;

/**
 * Gives memory back when nobody waits: once the start is over, and after each burst. V8 collects only while it allocates, so
 * that without this the garbage of a burst's end stays until the next one, and the C library keeps what was freed.
 */
export class MemoryReturn {
  readonly #parts: MemoryReturnParts;
  #cpuMs = 0;
  #hasBeenBusy = true;
  #isFresh = true;
  #quietLooks = 0;

  constructor(parts: MemoryReturnParts) {
    this.#parts = parts;
  }

  /** To be called once the start is over. */
  start(): void {
    this.#cpuMs = this.#parts.cpuMs();
    this.#parts.clock.after(LOOK_EVERY_MS, this.#look);
  }

  readonly #look = (): void => {
    const share = (this.#parts.cpuMs() - this.#cpuMs) / LOOK_EVERY_MS;
    if (share > BUSY_SHARE) this.#hasBeenBusy = true;
    this.#quietLooks = share < (this.#isFresh ? QUIET_SHARE_FRESH : QUIET_SHARE) ? this.#quietLooks + 1 : 0;
    if (this.#hasBeenBusy && this.#quietLooks >= (this.#isFresh ? 1 : QUIET_LOOKS_AFTER_BURST)) {
      this.#parts.collect(this.#parts.heapBytes() > EVERYTHING_HEAP_BYTES_MAX ? "garbage" : "everything");
      this.#parts.giveBack();
      this.#hasBeenBusy = false;
      this.#isFresh = false;
    }
    this.#cpuMs = this.#parts.cpuMs();
    this.#parts.clock.after(LOOK_EVERY_MS, this.#look);
  };
}
