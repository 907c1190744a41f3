import { latin1, latin1Bytes } from "#/wire/latin1.ts";

export interface KeyedPlacesOptions<T> {
  /** Keys that are counted apart. */
  readonly keysMax: number;
  /** What counts for a key of its own; null: for keys that have to share. */
  readonly make: (key: string | null, nowMs: number) => T;
  /** Whether it may be forgotten without anybody getting more: it would be made anew just as it is. */
  readonly isFresh: (counted: T, nowMs: number) => boolean;
}

/** Of all places, the share that one client may fill with values of its own making. */
const CLIENT_SHARE = 1 / 4;
const KEY_CHARS_MAX = 256;
/** Places looked at for each new key once all are taken. */
const LOOKS = 16;

interface Place<T> {
  readonly counted: T;
  readonly owner: Owner<T> | null;
}

/** A client that has keys here. */
interface Owner<T> {
  readonly client: string;
  places: number;
  /** For its keys that find no place. */
  shared: T | null;
}

/**
 * One bucket (or whatever counts) for each key, for so many keys; made so that nobody gets past a limit by inventing keys:
 *
 * - A key is forgotten only once its bucket is full again. It then comes back as what it was, so pushing it out gains nothing.
 * - A new key that finds no place shares a bucket with all others that find none: inventing keys makes one's own limit
 *   tighter, never wider. Whoever has a place keeps it, so others' keys are not pushed out either.
 * - One client fills at most a quarter of the places. Its further keys share a bucket of its own, not everybody's.
 *
 * What remains: a limit for each value of a header that clients choose freely does not bound their sum; for that there is `total`.
 */
export class KeyedPlaces<T> {
  readonly #options: KeyedPlacesOptions<T>;
  readonly #ownedMax: number;
  readonly #places = new Map<string, Place<T>>();
  readonly #owners = new Map<string, Owner<T>>();
  #rest: T | null = null;
  /** Where the search for a place goes on. */
  #hand: IterableIterator<[string, Place<T>]> | null = null;

  constructor(options: KeyedPlacesOptions<T>) {
    this.#options = options;
    this.#ownedMax = Math.max(1, Math.floor(options.keysMax * CLIENT_SHARE));
  }

  get size(): number {
    return this.#places.size;
  }

  /** What counts for a key. `client`: who made the key up; null where it cannot be made up. */
  find(text: string, client: string | null, nowMs: number): T {
    const key = text.length > KEY_CHARS_MAX ? text.slice(0, KEY_CHARS_MAX) : text;
    const known = this.#places.get(key);
    if (known !== undefined) return known.counted;
    const { keysMax, make } = this.#options;
    const owner = client === null ? null : this.#ownerOf(client);
    if (owner !== null && owner.places >= this.#ownedMax) return (owner.shared ??= make(null, nowMs));
    if (this.#places.size >= keysMax) this.#makeRoom(nowMs);
    if (this.#places.size >= keysMax) return (this.#rest ??= make(null, nowMs));
    if (owner !== null && owner.places++ === 0) this.#owners.set(owner.client, owner);
    const own = copied(key);
    const counted = make(own, nowMs);
    this.#places.set(own, { counted, owner });
    return counted;
  }

  *[Symbol.iterator](): Generator<T> {
    for (const { counted } of this.#places.values()) yield counted;
    for (const { shared } of this.#owners.values()) if (shared !== null) yield shared;
    if (this.#rest !== null) yield this.#rest;
  }

  #ownerOf(client: string): Owner<T> {
    return this.#owners.get(client) ?? { client: copied(client), places: 0, shared: null };
  }

  #makeRoom(nowMs: number): void {
    for (let looks = 0; looks < LOOKS; looks++) {
      this.#hand ??= this.#places.entries();
      const { done, value } = this.#hand.next();
      if (done === true) {
        this.#hand = null;
        continue;
      }
      const [key, { counted, owner }] = value;
      if (!this.#options.isFresh(counted, nowMs)) continue;
      this.#places.delete(key);
      if (owner !== null && --owner.places === 0) this.#owners.delete(owner.client);
    }
  }
}

/** A key of its own memory: what was cut out of a request's head would keep the whole head. */
function copied(key: string): string {
  return latin1(latin1Bytes(key), 0, key.length);
}
