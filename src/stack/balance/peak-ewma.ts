/**
 * Estimated latency of one endpoint that rises at once with a slow answer and forgets it by a half-life (Finagle's
 * "peak EWMA"): a sample above the estimate replaces it, one below pulls it down by exp(-elapsed / decay).
 */
export class PeakEwma {
  readonly #decayMs: number;
  #estimateMs: number;
  #updatedAtMs: number;

  constructor(defaultRttMs: number, decayMs: number, nowMs: number) {
    this.#estimateMs = defaultRttMs;
    this.#decayMs = decayMs;
    this.#updatedAtMs = nowMs;
  }

  observe(rttMs: number, nowMs: number): void {
    const old = this.#decayed(nowMs);
    const keep = Math.exp(-Math.max(0, nowMs - this.#updatedAtMs) / this.#decayMs);
    this.#estimateMs = rttMs > old ? rttMs : this.#estimateMs * keep + rttMs * (1 - keep);
    this.#updatedAtMs = nowMs;
  }

  /** Expected cost of one more request when `pending` are under way. */
  load(pending: number, nowMs: number): number {
    return this.#decayed(nowMs) * (pending + 1);
  }

  /** An endpoint that was not asked for a while is forgiven, so that it gets asked again. */
  #decayed(nowMs: number): number {
    const elapsedMs = nowMs - this.#updatedAtMs;
    return elapsedMs <= 0 ? this.#estimateMs : this.#estimateMs * Math.exp(-elapsedMs / this.#decayMs);
  }
}
