/** A limit for all members together. */
export interface PoolRate {
  readonly perMs: number;
  readonly burst: number;
}

/** What a member says; see `ShareReport`, which these are. All counts are of requests. */
export interface MemberReport {
  readonly held: number;
  readonly returned: number;
  readonly wanted: number;
  readonly demandPerSecond: number;
  readonly overdraft: number;
}

interface Member {
  /** Given and, as far as is known, not used: at least as much as the member really has. */
  held: number;
  voidAtMs: number;
  demandPerMs: number;
  /** Its part of the rate, by demand. */
  entitledPerMs: number;
  /** Of that part, what it did not take yet. */
  credit: number;
}

/** Demand comes unevenly: a part is this much larger than the demand that it is for. What is not taken goes to others. */
const HEADROOM = 1.5;
/** Of the bucket, what is kept for whoever comes while others want more than there is: whole requests, of a small bucket none. */
const RESERVE = 1 / 8;
/** The bucket is as large as what is earned in so many times the interval of reports, or as the burst if that is more. */
const CAPACITY_INTERVALS = 4;
/** Parts are worked out anew so often at most, however many report. */
const DIVIDE_INTERVALS = 0.5;
/** A part that is not taken is kept for so many intervals. */
const CREDIT_INTERVALS = 3;

/**
 * One token bucket that many sidecars take from in advance. What they hold and have not used counts as still in it, so
 * that what all of them admit in any time is what one bucket of this rate and size would have:
 *
 *     level + Σ held ≤ capacity        admitted in any t ms ≤ capacity + rate · t
 *
 * While there is enough, each gets what it wants. Where there is not, the rate is divided by water-filling (max-min fair):
 * who wants little gets it, and the others equal parts of the rest; so nobody starves, and one who has all the load has all
 * the rate. A member that says nothing for the time of a lease holds nothing any more.
 */
export class QuotaPool {
  readonly #members = new Map<string, Member>();
  #rate: PoolRate;
  #level: number;
  #heldSum = 0;
  #atMs: number;
  #dividedAtMs = -Infinity;

  constructor(rate: PoolRate, intervalMs: number, nowMs: number) {
    this.#rate = rate;
    this.#level = capacityOf(rate, intervalMs);
    this.#atMs = nowMs;
  }

  get size(): number {
    return this.#members.size;
  }

  /** What members hold and may still use. */
  get held(): number {
    return this.#heldSum;
  }

  /** What is there to be given. Below zero where members admitted by themselves more than was left. */
  get level(): number {
    return this.#level;
  }

  setRate(rate: PoolRate, nowMs: number, intervalMs: number): void {
    if (rate.perMs === this.#rate.perMs && rate.burst === this.#rate.burst) return;
    this.#advance(nowMs, intervalMs);
    this.#rate = rate;
    this.#advance(nowMs, intervalMs);
    this.#dividedAtMs = -Infinity;
  }

  /** Whether it may be forgotten: one made anew would be the same. */
  isFresh(nowMs: number, intervalMs: number): boolean {
    this.#advance(nowMs, intervalMs);
    return this.#members.size === 0 && this.#level >= capacityOf(this.#rate, intervalMs);
  }

  /** `waitMs`: when less is given than wanted, how long until there can be more. `leaseMs`: for how long it is given. */
  report(
    id: string,
    report: MemberReport,
    nowMs: number,
    intervalMs: number,
    leaseMs: number,
  ): { readonly granted: number; readonly waitMs: number } {
    this.#advance(nowMs, intervalMs);
    const member = this.#memberOf(id);
    // Nobody can hold, or give back, more than it was given.
    const held = Math.min(report.held, member.held);
    const returned = Math.min(report.returned, member.held - held);
    this.#heldSum += held - member.held;
    member.held = held;
    member.voidAtMs = nowMs + leaseMs;
    member.demandPerMs = report.demandPerSecond / 1_000;
    const capacity = capacityOf(this.#rate, intervalMs);
    this.#level = Math.max(-capacity, this.#level + returned - report.overdraft);
    this.#divide(nowMs, intervalMs);
    const free = Math.max(0, this.#level - Math.floor(capacity * RESERVE));
    const allowed = Math.min(this.#level, member.credit + free);
    const granted = Math.max(0, Math.min(report.wanted, Math.floor(allowed + ROUNDING)));
    this.#level -= granted;
    this.#heldSum += granted;
    member.held += granted;
    member.credit = Math.max(0, member.credit - granted);
    return { granted, waitMs: granted < report.wanted ? this.#waitMs(member, intervalMs) : 0 };
  }

  #memberOf(id: string): Member {
    let member = this.#members.get(id);
    if (member === undefined) {
      member = { held: 0, voidAtMs: 0, demandPerMs: 0, entitledPerMs: 0, credit: 1 };
      this.#members.set(id, member);
      this.#dividedAtMs = -Infinity;
    }
    return member;
  }

  #waitMs({ credit, entitledPerMs }: Member, intervalMs: number): number {
    const { perMs } = this.#rate;
    const earnedMs = perMs > 0 ? (1 - this.#level) / perMs : Infinity;
    // One request comes of its own part, or earlier with what is earned beyond the reserve, if nobody else takes that.
    const free = this.#level - Math.floor(capacityOf(this.#rate, intervalMs) * RESERVE);
    const togetherMs = (1 - credit - free) / (entitledPerMs + perMs);
    const entitledMs = entitledPerMs > 0 ? Math.min((1 - credit) / entitledPerMs, togetherMs) : 0;
    return Math.max(intervalMs, Math.min(WAIT_MS_MAX, Math.max(earnedMs, entitledMs)));
  }

  #advance(nowMs: number, intervalMs: number): void {
    for (const [id, member] of this.#members) {
      if (nowMs < member.voidAtMs) continue;
      this.#members.delete(id);
      this.#heldSum -= member.held;
      this.#dividedAtMs = -Infinity;
    }
    const elapsedMs = Math.max(0, nowMs - this.#atMs);
    this.#atMs = nowMs;
    const room = capacityOf(this.#rate, intervalMs) - this.#heldSum;
    this.#level = Math.min(room, this.#level + elapsedMs * this.#rate.perMs);
    if (elapsedMs === 0) return;
    for (const member of this.#members.values()) {
      const most = Math.max(1, member.entitledPerMs * CREDIT_INTERVALS * intervalMs);
      member.credit = Math.min(most, member.credit + elapsedMs * member.entitledPerMs);
    }
  }

  #divide(nowMs: number, intervalMs: number): void {
    if (nowMs - this.#dividedAtMs < DIVIDE_INTERVALS * intervalMs) return;
    this.#dividedAtMs = nowMs;
    const members = [...this.#members.values()];
    const parts = waterFill(
      members.map(({ demandPerMs }) => demandPerMs * HEADROOM),
      this.#rate.perMs,
    );
    for (const [i, member] of members.entries()) member.entitledPerMs = parts[i] as number;
  }
}

/**
 * Max-min fair parts of `total`: nobody gets less than another who does not want less. What nobody wants is divided equally
 * on top, for whoever comes to want it.
 */
export function waterFill(demands: readonly number[], total: number): number[] {
  const order = demands.map((_, i) => i).toSorted((a, b) => (demands[a] as number) - (demands[b] as number));
  const parts = demands.map(() => 0);
  let left = total;
  for (const [done, i] of order.entries()) {
    const part = Math.min(demands[i] as number, left / (order.length - done));
    parts[i] = part;
    left -= part;
  }
  return parts.map((part) => part + Math.max(0, left) / parts.length);
}

function capacityOf({ perMs, burst }: PoolRate, intervalMs: number): number {
  return Math.max(1, burst, perMs * CAPACITY_INTERVALS * intervalMs);
}

const WAIT_MS_MAX = 60_000;
const ROUNDING = 1e-9;
