/**
 * Latencies in logarithmic buckets of at most 1 % error, 1 µs to 100 s, in fixed memory. Recording allocates nothing.
 */
export class Histogram {
  readonly #counts = new Uint32Array(BUCKETS);
  count = 0;
  sumUs = 0;
  maxUs = 0;

  record(us: number): void {
    this.count++;
    this.sumUs += us;
    if (us > this.maxUs) this.maxUs = us;
    const bucket = us <= 1 ? 0 : Math.floor(Math.log(us) * PER_E);
    this.#counts[Math.min(bucket, BUCKETS - 1)]!++;
  }

  /** Upper edge, in µs, of the bucket that holds the given quantile (0 < q <= 1); 0 when nothing was recorded. */
  quantileUs(q: number): number {
    let left = Math.ceil(this.count * q);
    for (let i = 0; i < BUCKETS && left > 0; i++) {
      left -= this.#counts[i]!;
      if (left <= 0) return Math.min(Math.exp((i + 1) / PER_E), this.maxUs);
    }
    return this.maxUs;
  }

  clear(): void {
    this.#counts.fill(0);
    this.count = this.sumUs = this.maxUs = 0;
  }
}

const PER_E = 100;
const BUCKETS = Math.ceil(Math.log(100e6) * PER_E);
