import type { Stream } from "./stream.ts";

/**
 * The streams of a connection by id. Ids come in sequence, so nearly every stream lies at its own place and a look-up
 * is one comparison; a long-lived stream that is in the way costs one more. Places of neighbours lie apart, since who leaves looks
 * at all that follow without a gap. At most half full; never shrinks, so it is bounded by four times the most streams that were
 * held at once.
 *
 * A Map would do the same and cost the collector every request: as entries come and go it moves to a new table each few
 * entries, the old table keeps what was in it and points to the new one, and once one of them is in the old generation it
 * takes all later ones there, with their streams.
 */
export class StreamTable<S extends { readonly id: number } = Stream> {
  #places = empty<S>(PLACES_FIRST);
  #mask = PLACES_FIRST - 1;
  #count = 0;

  get size(): number {
    return this.#count;
  }

  get(id: number): S | null {
    const mask = this.#mask;
    for (let place = ((id >>> 1) * APART) & mask; ; place = (place + 1) & mask) {
      const stream = this.#places[place]!;
      if (stream === null || stream.id === id) return stream;
    }
  }

  /** `stream.id` must not be in the table. */
  add(stream: S): void {
    if (2 * ++this.#count > this.#mask) this.#grow();
    this.#put(stream);
  }

  /** False: it was not there. */
  delete(id: number): boolean {
    const places = this.#places;
    const mask = this.#mask;
    let hole = ((id >>> 1) * APART) & mask;
    for (;;) {
      const stream = places[hole]!;
      if (stream === null) return false;
      if (stream.id === id) break;
      hole = (hole + 1) & mask;
    }
    this.#count--;
    // Whoever had to stand behind the hole moves up, so that no search ends too early.
    for (let place = (hole + 1) & mask; ; place = (place + 1) & mask) {
      const stream = places[place]!;
      if (stream === null) break;
      const home = ((stream.id >>> 1) * APART) & mask;
      if (((place - home) & mask) < ((place - hole) & mask)) continue;
      places[hole] = stream;
      hole = place;
    }
    places[hole] = null;
    return true;
  }

  /** A list of all, in no order: for rare events that concern every stream. */
  all(): S[] {
    return this.#places.filter((stream) => stream !== null);
  }

  #put(stream: S): void {
    const mask = this.#mask;
    let place = ((stream.id >>> 1) * APART) & mask;
    while (this.#places[place] !== null) place = (place + 1) & mask;
    this.#places[place] = stream;
  }

  #grow(): void {
    const streams = this.all();
    const size = 2 * (this.#mask + 1);
    this.#places = empty<S>(size);
    this.#mask = size - 1;
    for (const stream of streams) this.#put(stream);
  }
}

/** Power of two. */
const PLACES_FIRST = 32;

/** Odd. So far apart lie the places of streams that follow each other: in a table that is half full, three of five are taken and then comes a gap. */
const APART = 5;

function empty<S>(size: number): (S | null)[] {
  return Array.from({ length: size }, () => null);
}
