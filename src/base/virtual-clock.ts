import type { Clock, Timer } from "./clock.ts";

/** Cancelled entries are swept out once they are the greater part of so many. */
const SWEEP_MIN = 1_024;

interface Entry {
  readonly atMs: number;
  readonly order: number;
  /** Null once cancelled or fired. */
  fire: (() => void) | null;
}

/** Time that moves only when nothing is left to do at the present moment. The same run gives the same order of events. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  #tasks: (() => void)[] = [];
  #heap: Entry[] = [];
  #cancelled = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_800_000_000_000 + this.#nowMs;
  }

  /** Timers that neither fired nor were cancelled. What has ended leaves none. */
  get timers(): number {
    return this.#heap.length - this.#cancelled;
  }

  soon(task: () => void): void {
    this.#tasks.push(task);
  }

  after(afterMs: number, fire: () => void): Timer {
    const entry: Entry = { atMs: this.#nowMs + Math.max(0, afterMs), order: this.#order++, fire };
    this.#push(entry);
    return { cancel: () => this.#cancel(entry) };
  }

  #cancel(entry: Entry): void {
    if (entry.fire === null) return;
    entry.fire = null;
    this.#cancelled++;
    if (this.#cancelled < SWEEP_MIN || this.#cancelled * 2 < this.#heap.length) return;
    const live = this.#heap.filter(({ fire }) => fire !== null);
    this.#heap = [];
    this.#cancelled = 0;
    for (const entry of live) this.#push(entry);
  }

  /** Runs until `isDone`, or until `limitMs` more of virtual time have gone by: then it throws. */
  runUntil(isDone: () => boolean, what: string, limitMs = 60_000): void {
    const stopAtMs = this.#nowMs + limitMs;
    while (!isDone()) {
      if (!this.#step(stopAtMs)) throw new Error(`not within ${limitMs} ms of virtual time: ${what}`);
    }
  }

  /** Lets so much virtual time go by. */
  run(forMs: number): void {
    const stopAtMs = this.#nowMs + forMs;
    while (this.#step(stopAtMs));
    this.#nowMs = stopAtMs;
  }

  #step(stopAtMs: number): boolean {
    if (this.#tasks.length > 0) {
      const tasks = this.#tasks;
      this.#tasks = [];
      for (const task of tasks) task();
      return true;
    }
    const entry = this.#pop();
    if (entry === null) return false;
    if (entry.atMs > stopAtMs) {
      this.#push(entry);
      return false;
    }
    const { fire } = entry;
    if (fire === null) {
      this.#cancelled--;
      return true;
    }
    this.#nowMs = entry.atMs;
    entry.fire = null;
    fire();
    return true;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Entry;
      if (!isBefore(entry, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): Entry | null {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return null;
    const size = heap.length;
    if (size === 0) return first;
    for (let at = 0; ;) {
      let child = 2 * at + 1;
      if (child + 1 < size && isBefore(heap[child + 1] as Entry, heap[child] as Entry)) child++;
      if (child >= size || !isBefore(heap[child] as Entry, last)) {
        heap[at] = last;
        return first;
      }
      heap[at] = heap[child] as Entry;
      at = child;
    }
  }
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
