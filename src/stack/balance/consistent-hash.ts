import type { Fields } from "#/base/fields.ts";
import { hashPair } from "#/base/hash.ts";
import type { Member } from "./member.ts";
import type { Picker, Pool } from "./pool.ts";

/** Keys fall into so many slots. With a thousand members each has about 65: shares are even within about 12 %, with ten 1 %. */
const SLOTS = 65_536;
/** Slots that a key walks on from full members before all are looked at. */
const WALK_MAX = 64;
/** What a bound that is a whole number may be off by. */
const ROUNDING = 1e-9;
/** Members that come in one update and are compared slot by slot; more begin the table anew. */
const JOINING_MAX = 4;

/**
 * The same member for the same key, whichever sidecar asks. Keys fall into slots, and a slot belongs to the member whose hash
 * with it is highest: rendezvous hashing (D. Thaler and C. Ravishankar 1998), by weight with C. Schindelhauer and G. Schomaker's logarithm (2005). So a
 * member that leaves gives up its own keys and no others, and one that comes takes its share and nothing else moves, where a
 * Maglev table moves some more and a ring needs some hundred points for each member to be as even. The table of slots is filled
 * as keys come, so that an update costs little.
 *
 * Bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam 2016): a member with `boundedLoad` times its share of all requests under way
 * takes no more, and the key walks on to the next slot's member. 0: no bound.
 */
export class ConsistentHash<T> implements Picker<T> {
  readonly #keyOf: (fields: Fields | null) => number;
  readonly #boundedLoad: number;
  readonly #without: Picker<T>;
  /** By slot, the place of its member in `#known`, and one more; 0: not looked for yet. Empty until there is a key. */
  #slots: Uint32Array = new Uint32Array(0);
  /** Null: nobody, any more. Places are used again. */
  readonly #known: (Member<T> | null)[] = [];
  readonly #weights: number[] = [];
  readonly #places = new Map<Member<T>, number>();
  #isUneven = false;

  /** `keyOf` gives 32 bits, or -1 for a request without a key, which `without` picks for. */
  constructor(keyOf: (fields: Fields | null) => number, boundedLoad: number, without: Picker<T>) {
    this.#keyOf = keyOf;
    this.#boundedLoad = boundedLoad <= 0 ? Infinity : Math.max(1, boundedLoad);
    this.#without = without;
  }

  reset(pool: Pool<T>): void {
    this.#without.reset(pool);
    const members = new Set(pool.members);
    let isStale = this.#isUneven !== pool.isUneven;
    this.#isUneven = pool.isUneven;
    const gone = new Set<number>();
    for (const [member, place] of this.#places) {
      if (members.has(member)) {
        if (pool.isUneven && this.#weights[place] !== member.endpoint.weight) isStale = true;
        this.#weights[place] = member.endpoint.weight;
        continue;
      }
      gone.add(place);
      this.#places.delete(member);
      this.#known[place] = null;
    }
    if (gone.size > 0) {
      for (let slot = 0; slot < this.#slots.length; slot++)
        if (gone.has((this.#slots[slot] as number) - 1)) this.#slots[slot] = 0;
    }
    const joining = pool.members.filter((member) => !this.#places.has(member));
    for (const member of joining) {
      const free = this.#known.indexOf(null);
      const place = free === -1 ? this.#known.length : free;
      this.#known[place] = member;
      this.#weights[place] = member.endpoint.weight;
      this.#places.set(member, place);
    }
    if (isStale || joining.length > JOINING_MAX) {
      this.#slots.fill(0);
      return;
    }
    for (const member of joining) {
      const place = this.#places.get(member) as number;
      for (let slot = 0; slot < this.#slots.length; slot++) {
        const owner = (this.#slots[slot] as number) - 1;
        if (owner >= 0 && this.#beats(member, this.#known[owner] as Member<T>, slot))
          this.#slots[slot] = place + 1;
      }
    }
  }

  pick(pool: Pool<T>, nowMs: number, tried: readonly Member<T>[], fields: Fields | null): Member<T> | null {
    const key = this.#keyOf(fields);
    if (key === -1) return this.#without.pick(pool, nowMs, tried, fields);
    if (pool.active.length === 0) return null;
    const bound = (this.#boundedLoad * (pool.pending + 1)) / pool.activeCapacity;
    for (let i = 0; i < WALK_MAX; i++) {
      const member = this.#ownerOf((key + i) % SLOTS);
      if (member.place === -1 || tried.includes(member)) continue;
      if (member.pending < Math.ceil(bound * member.capacity - ROUNDING)) return member;
    }
    // Bounds add up to more than there is, so one of those in use has room.
    return pool.leastLoaded(nowMs, tried, "requests");
  }

  /** The member that a request's key belongs to, in use or not; null without a key. */
  ownerFor(fields: Fields | null): Member<T> | null {
    const key = this.#keyOf(fields);
    return key === -1 || this.#places.size === 0 ? null : this.#ownerOf(key % SLOTS);
  }

  #ownerOf(slot: number): Member<T> {
    if (this.#slots.length === 0) this.#slots = new Uint32Array(SLOTS);
    const known = this.#slots[slot] as number;
    if (known !== 0) return this.#known[known - 1] as Member<T>;
    let best: Member<T> | null = null;
    for (const member of this.#places.keys())
      if (best === null || this.#beats(member, best, slot)) best = member;
    this.#slots[slot] = (this.#places.get(best as Member<T>) as number) + 1;
    return best as Member<T>;
  }

  #beats(a: Member<T>, b: Member<T>, slot: number): boolean {
    const hashOfA = hashPair(slot, a.hash);
    const hashOfB = hashPair(slot, b.hash);
    // In whatever order members came, the same one wins.
    if (hashOfA === hashOfB) return a.key > b.key;
    if (!this.#isUneven) return hashOfA > hashOfB;
    return costOf(hashOfA, a.endpoint.weight) < costOf(hashOfB, b.endpoint.weight);
  }
}

/** Exponentially distributed, the sooner the greater the weight. */
function costOf(hash: number, weight: number): number {
  return -Math.log((hash + 1) / 4_294_967_297) / weight;
}
