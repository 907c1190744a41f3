import type { Fields } from "#/base/fields.ts";
import type { Random } from "#/base/random.ts";
import { AliasTable } from "./alias-table.ts";
import type { Member } from "./member.ts";

/** Chooses one of a pool's members. One per pool and algorithm. */
export interface Picker<T> {
  /** Members or weights changed. */
  reset(pool: Pool<T>): void;
  /** Null: nobody who is in use is left untried. `fields`: the request's, where there are any. */
  pick(pool: Pool<T>, nowMs: number, tried: readonly Member<T>[], fields: Fields | null): Member<T> | null;
}

/** Draws that may meet somebody set aside, or not warm yet, before all are looked at. */
const DRAWS_MAX = 16;
/** A new endpoint gets at least this part of its share. */
const WARM_MIN = 0.1;

/**
 * Members that are balanced with each other, and which of them are in use. Coming and going by standing costs the same with ten as
 * with a thousand.
 */
export class Pool<T> {
  readonly picker: Picker<T>;
  readonly #random: Random;
  members: readonly Member<T>[] = [];
  /** Those in use, in no order. */
  readonly active: Member<T>[] = [];
  /** The others. */
  readonly aside: Set<Member<T>> = new Set();
  /** When the next of them may be tried; Infinity: none. */
  nextDueMs: number = Infinity;
  /** Requests under way at all members. */
  pending = 0;
  /** Sum of `capacity` of those in use. */
  activeCapacity = 0;
  /** Weights differ. */
  isUneven = false;
  #alias: AliasTable | null = null;
  /** Over which time a new member's share grows; none is new once `warmUntilMs` is over. */
  #slowStartMs = 0;
  warmUntilMs: number = -Infinity;

  constructor(picker: Picker<T>, random: Random) {
    this.picker = picker;
    this.#random = random;
  }

  /** Takes a new set. Who of them is in use is `isIn`'s to say. */
  fill(members: readonly Member<T>[], slowStartMs: number, isIn: (member: Member<T>) => boolean): void {
    this.members = members;
    this.active.length = 0;
    this.aside.clear();
    this.pending = 0;
    this.activeCapacity = 0;
    this.#slowStartMs = slowStartMs;
    this.warmUntilMs = -Infinity;
    let weights = 0;
    this.isUneven = false;
    for (const { endpoint, pending, joinedAtMs } of members) {
      weights += endpoint.weight;
      if (endpoint.weight !== members[0]?.endpoint.weight) this.isUneven = true;
      this.pending += pending;
      if (slowStartMs > 0) this.warmUntilMs = Math.max(this.warmUntilMs, joinedAtMs + slowStartMs);
    }
    for (const member of members) {
      member.pool = this;
      member.place = -1;
      member.capacity = this.isUneven ? (member.endpoint.weight * members.length) / weights : 1;
      if (isIn(member)) this.#activate(member);
      else this.aside.add(member);
    }
    this.#alias = this.isUneven ? new AliasTable(members.map(({ capacity }) => capacity)) : null;
    this.reckonDue();
    this.picker.reset(this);
  }

  /** Takes a member out of use, or only notes its new pause. */
  setAside(member: Member<T>): void {
    if (member.place !== -1) {
      const last = this.active.pop() as Member<T>;
      if (last !== member) {
        this.active[member.place] = last;
        last.place = member.place;
      }
      member.place = -1;
      this.activeCapacity -= member.capacity;
      this.aside.add(member);
    }
    this.reckonDue();
  }

  takeBack(member: Member<T>): void {
    if (member.place === -1) {
      this.aside.delete(member);
      this.#activate(member);
    }
    this.reckonDue();
  }

  /** Looks when the next of those set aside, and not tried already, is to be tried. */
  reckonDue(): void {
    let dueMs = Infinity;
    for (const { standing } of this.aside)
      if (standing.probedAtMs < 0 && standing.untilMs < dueMs) dueMs = standing.untilMs;
    this.nextDueMs = dueMs;
  }

  /** One member in use at random, by weight, and by how warm it is; null when a few draws met none. */
  draw(nowMs: number): Member<T> | null {
    const isCold = nowMs < this.warmUntilMs;
    for (let i = 0; i < DRAWS_MAX; i++) {
      const member =
        this.#alias === null
          ? this.active[Math.floor(this.#random.next() * this.active.length)]
          : this.members[this.#alias.draw(this.#random)];
      if (member === undefined) return null;
      if (member.place !== -1 && (!isCold || this.#random.next() < this.warmth(member, nowMs))) return member;
    }
    return null;
  }

  /** Which part of its share a member gets so soon after it came, 0.1 … 1. */
  warmth(member: Member<T>, nowMs: number): number {
    if (nowMs >= this.warmUntilMs) return 1;
    return Math.min(1, Math.max(WARM_MIN, (nowMs - member.joinedAtMs) / this.#slowStartMs));
  }

  /** Looks at everybody in use: the least loaded that was not tried. */
  leastLoaded(
    nowMs: number,
    tried: readonly Member<T>[],
    by: "latency" | "requests" = "latency",
  ): Member<T> | null {
    let best: Member<T> | null = null;
    let leastLoad = Infinity;
    for (const member of this.active) {
      if (tried.includes(member)) continue;
      const load = by === "latency" ? member.load(nowMs) : member.pending / member.capacity;
      if (best !== null && load >= leastLoad) continue;
      best = member;
      leastLoad = load;
    }
    return best;
  }

  #activate(member: Member<T>): void {
    member.place = this.active.length;
    this.active.push(member);
    this.activeCapacity += member.capacity;
  }
}
