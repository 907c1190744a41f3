import { addressKey } from "#/base/address.ts";
import { hashText } from "#/base/hash.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { PeakEwma } from "./peak-ewma.ts";
import type { Pool } from "./pool.ts";
import { Standing } from "./standing.ts";

/** One endpoint as the balancer sees it. `extra` is what its user keeps per endpoint (connections, counters). */
export class Member<T> {
  /** Replaced when only its labels or weight change. */
  endpoint: Endpoint;
  readonly key: string;
  /** The same in every sidecar. */
  readonly hash: number;
  readonly extra: T;
  readonly latency: PeakEwma;
  readonly standing: Standing = new Standing();
  /** When it came to others that were there before; -Infinity for those of the first set. */
  joinedAtMs: number;
  /** Requests (HTTP) or connections (opaque) under way. Counted by `Balancer.begin` and `end`. */
  pending = 0;
  /** Its weight, as a multiple of its pool's mean. */
  capacity = 1;
  /** Null while it takes no part: its weight is 0 and others have one. */
  pool: Pool<T> | null = null;
  /** Its place in `pool.active`; -1: it is set aside. */
  place = -1;
  /** Of round robin: the virtual time of its next turn. NaN: it never had one. */
  turn = Number.NaN;

  constructor(endpoint: Endpoint, extra: T, latency: PeakEwma, joinedAtMs: number) {
    this.endpoint = endpoint;
    this.key = addressKey(endpoint.address);
    this.hash = hashText(this.key);
    this.extra = extra;
    this.latency = latency;
    this.joinedAtMs = joinedAtMs;
  }

  /** Expected cost of one more request there, compared between members alone. */
  load(nowMs: number): number {
    return this.latency.load(this.pending / this.capacity, nowMs);
  }
}
