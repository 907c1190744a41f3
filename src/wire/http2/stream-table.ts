import type { Stream } from "./stream.ts";

/**
 * The streams of a connection by id. Ids come in sequence, so nearly every stream lies at its own place and a look-up
 * is one comparison; a long-lived stream that is in the way costs one more. At most half full; never shrinks, so it is
 * bounded by four times the most streams that were held at once.
 */
export class StreamTable {
  #places = empty(PLACES_FIRST);
  #mask = PLACES_FIRST - 1;
  #count = 0;

  get size(): number {
    return this.#count;
  }

  get(id: number): Stream | null {
    const mask = this.#mask;
    for (let place = (id >>> 1) & mask; ; place = (place + 1) & mask) {
      const stream = this.#places[place]!;
      if (stream === null || stream.id === id) return stream;
    }
  }

  /** `stream.id` must not be in the table. */
  add(stream: Stream): void {
    if (2 * ++this.#count > this.#mask) this.#grow();
    this.#put(stream);
  }

  delete(id: number): void {
    const places = this.#places;
    const mask = this.#mask;
    let hole = (id >>> 1) & mask;
    for (;;) {
      const stream = places[hole]!;
      if (stream === null) return;
      if (stream.id === id) break;
      hole = (hole + 1) & mask;
    }
    this.#count--;
    // Whoever had to stand behind the hole moves up, so that no search ends too early.
    for (let place = (hole + 1) & mask; ; place = (place + 1) & mask) {
      const stream = places[place]!;
      if (stream === null) break;
      const home = (stream.id >>> 1) & mask;
      if (((place - home) & mask) < ((place - hole) & mask)) continue;
      places[hole] = stream;
      hole = place;
    }
    places[hole] = null;
  }

  /** A list of all, in no order: for rare events that concern every stream. */
  all(): Stream[] {
    return this.#places.filter((stream) => stream !== null);
  }

  #put(stream: Stream): void {
    const mask = this.#mask;
    let place = (stream.id >>> 1) & mask;
    while (this.#places[place] !== null) place = (place + 1) & mask;
    this.#places[place] = stream;
  }

  #grow(): void {
    const streams = this.all();
    const size = 2 * (this.#mask + 1);
    this.#places = empty(size);
    this.#mask = size - 1;
    for (const stream of streams) this.#put(stream);
  }
}

/** Power of two. */
const PLACES_FIRST = 32;

function empty(size: number): (Stream | null)[] {
  return Array.from({ length: size }, () => null);
}
