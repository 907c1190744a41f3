import type { RetryBudget } from "#/model/traffic.ts";

/** Into so many parts an interval is cut: the budget is exact to one of them. */
const PARTS = 20;
/** The floor remembers each of its retries. More than these in one floor interval are not allowed, whatever it says. */
const FLOOR_COUNT_MAX = 10_000;

/**
 * How many retries one client's sidecar may send to one service (GEP-3388), so that what fails is not buried under attempts to
 * mend it. A retry is allowed if with it, over the last `intervalMs`, retries are at most `percent` of requests, or if fewer than
 * `floorCount` were sent within `floorIntervalMs`. The floor is exact. The share is counted in twentieths of the interval
 * and errs on the side of the service, by up to a tenth: what is on its way when a failure begins was not yet answered, and
 * retries of one tier are requests to the next.
 * Costs a few hundred bytes, and the floor's times once there are retries.
 */
export class RetryBudgetWindow {
  readonly settings: RetryBudget;
  readonly #partMs: number;
  /** By part, as a ring: the one under way, and those of a whole interval before it. */
  readonly #requests = new Float64Array(PARTS + 1);
  readonly #retries = new Float64Array(PARTS + 1);
  #requestSum = 0;
  #retrySum = 0;
  /** Number of the part under way, since the clock began. */
  #part = 0;
  /** When the last retries were, as a ring. Made with the first. */
  #floor: Float64Array | null = null;
  #floorNext = 0;
  #exhaustedAtMs = -Infinity;

  constructor(settings: RetryBudget) {
    this.settings = settings;
    this.#partMs = settings.intervalMs / PARTS;
  }

  /** When a retry was last not allowed; -Infinity: never. */
  get exhaustedAtMs(): number {
    return this.#exhaustedAtMs;
  }

  /** A request came that may come to be retried. */
  request(nowMs: number): void {
    this.#advance(nowMs);
    this.#requests[this.#part % (PARTS + 1)]! += 1;
    this.#requestSum++;
  }

  /** Whether there may be a retry now; if so it is counted. */
  tryRetry(nowMs: number): boolean {
    this.#advance(nowMs);
    if (!this.#isWithinShare() && !this.#isWithinFloor(nowMs)) {
      this.#exhaustedAtMs = nowMs;
      return false;
    }
    this.#retries[this.#part % (PARTS + 1)]! += 1;
    this.#retrySum++;
    this.#note(nowMs);
    return true;
  }

  #isWithinShare(): boolean {
    // Of the part under way, and of the oldest, which lies partly before the interval, no requests count, and all retries.
    const now = this.#part % (PARTS + 1);
    const oldest = (this.#part + 1) % (PARTS + 1);
    const requests = this.#requestSum - this.#requests[now]! - this.#requests[oldest]!;
    return (this.#retrySum + 1) * 100 <= this.settings.percent * requests;
  }

  #isWithinFloor(nowMs: number): boolean {
    const { floorCount, floorIntervalMs } = this.settings;
    if (floorCount <= 0) return false;
    // In the ring's next place stands the retry that was `floorCount` ago.
    return this.#floor === null || this.#floor[this.#floorNext]! <= nowMs - floorIntervalMs;
  }

  #note(nowMs: number): void {
    const { floorCount } = this.settings;
    if (floorCount <= 0) return;
    this.#floor ??= new Float64Array(Math.min(floorCount, FLOOR_COUNT_MAX)).fill(-Infinity);
    this.#floor[this.#floorNext] = nowMs;
    this.#floorNext = (this.#floorNext + 1) % this.#floor.length;
  }

  #advance(nowMs: number): void {
    const part = Math.floor(nowMs / this.#partMs);
    if (part === this.#part) return;
    const passed = Math.min(part - this.#part, PARTS + 1);
    this.#part = part;
    for (let i = 0; i < passed; i++) {
      const at = (part - i) % (PARTS + 1);
      this.#requestSum -= this.#requests[at]!;
      this.#retrySum -= this.#retries[at]!;
      this.#requests[at] = 0;
      this.#retries[at] = 0;
    }
  }
}
