import type { RateLimit } from "#/model/traffic.ts";
import { LEASE_MS } from "#/stack/limits/quota-share.ts";
import type { MemberReport, PoolRate } from "./quota-pool.ts";
import { QuotaPool } from "./quota-pool.ts";

/** Keys of one limit that are counted apart; the others share one count. */
const KEYS_MAX = 1_000;
/** Of all limits together. Beyond, there is no count for a key of its own, and at last none for a limit. */
const POOLS_MAX = 50_000;
/** Of those, what is only for the first count of a limit, however many keys others have. */
const POOLS_FOR_LIMITS = 5_000;
/** On all ports of a workload, which names them itself. One more is not counted. */
const LIMITS_OF_WORKLOAD_MAX = 256;
const INTERVAL_MS_MIN = 100;
/** Some reports have to fit into a lease. */
const INTERVAL_MS_MAX = LEASE_MS / 3;
/** Reports of all sidecars in a second that are aimed at, as far as the longest interval allows. */
const REPORTS_PER_SECOND = 2_000;
const SWEEP_MS = 1_000;

/** One limit of one workload. */
interface Limit {
  readonly byKey: Map<string, QuotaPool>;
  rest: QuotaPool | null;
}

/** All global rate limits that sidecars take from. Pure: time comes in as an argument. */
export class QuotaPools {
  /** By workload, then by port and limit. */
  readonly #workloads = new Map<string, Map<string, Limit>>();
  #pools = 0;
  /** Who reported lately, and when. */
  readonly #members = new Map<string, number>();
  #sweptAtMs = 0;

  /** How long sidecars wait between two reports: longer when there are many, so that they do not overload us. */
  get intervalMs(): number {
    const wantedMs = (this.#members.size * 1_000) / REPORTS_PER_SECOND;
    return Math.round(Math.min(INTERVAL_MS_MAX, Math.max(INTERVAL_MS_MIN, wantedMs)));
  }

  get size(): number {
    return this.#pools;
  }

  /**
   * `limitKey` names the limit among the workload's: port and limit. `key` null: of the keys that the sidecar does not count apart. Null:
   * there is no room to count it; sidecars that hear nothing keep to equal parts.
   */
  lease(
    workload: string,
    limitKey: string,
    limit: RateLimit,
    member: string,
    key: string | null,
    report: MemberReport,
    nowMs: number,
  ): { readonly granted: number; readonly waitMs: number } | null {
    this.#sweep(nowMs);
    this.#members.set(member, nowMs);
    const rate: PoolRate = { perMs: limit.requests / limit.windowMs, burst: limit.burst };
    const pool = this.#poolOf(workload, limitKey, key, rate, nowMs);
    if (pool === null) return null;
    pool.setRate(rate, nowMs, this.intervalMs);
    return pool.report(member, report, nowMs, this.intervalMs, LEASE_MS);
  }

  #poolOf(
    workload: string,
    limitKey: string,
    key: string | null,
    rate: PoolRate,
    nowMs: number,
  ): QuotaPool | null {
    const limit = this.#limitOf(workload, limitKey);
    if (limit === null) return null;
    if (key !== null) {
      const known = limit.byKey.get(key);
      if (known !== undefined) return known;
      const room = POOLS_MAX - this.#pools - (limit.byKey.size === 0 ? 0 : POOLS_FOR_LIMITS);
      if (limit.byKey.size < KEYS_MAX && room > 0) {
        const pool = this.#make(rate, nowMs);
        limit.byKey.set(key, pool);
        return pool;
      }
    }
    if (limit.rest === null && this.#pools < POOLS_MAX) limit.rest = this.#make(rate, nowMs);
    return limit.rest;
  }

  #limitOf(workload: string, limitKey: string): Limit | null {
    const limits = this.#workloads.get(workload) ?? new Map<string, Limit>();
    const known = limits.get(limitKey);
    if (known !== undefined) return known;
    if (limits.size >= LIMITS_OF_WORKLOAD_MAX) return null;
    const limit: Limit = { byKey: new Map(), rest: null };
    limits.set(limitKey, limit);
    this.#workloads.set(workload, limits);
    return limit;
  }

  #make(rate: PoolRate, nowMs: number): QuotaPool {
    this.#pools++;
    return new QuotaPool(rate, this.intervalMs, nowMs);
  }

  /** Forgets what nobody uses, and only what would be made anew as it is. */
  #sweep(nowMs: number): void {
    if (nowMs - this.#sweptAtMs < SWEEP_MS) return;
    this.#sweptAtMs = nowMs;
    for (const [member, atMs] of this.#members) if (nowMs - atMs >= LEASE_MS) this.#members.delete(member);
    const { intervalMs } = this;
    for (const [workload, limits] of this.#workloads) {
      for (const [limitKey, limit] of limits) {
        for (const [key, pool] of limit.byKey) {
          if (!pool.isFresh(nowMs, intervalMs)) continue;
          limit.byKey.delete(key);
          this.#pools--;
        }
        if (limit.rest?.isFresh(nowMs, intervalMs) === true) {
          limit.rest = null;
          this.#pools--;
        }
        if (limit.byKey.size === 0 && limit.rest === null) limits.delete(limitKey);
      }
      if (limits.size === 0) this.#workloads.delete(workload);
    }
  }
}
