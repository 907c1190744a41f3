/** How a stream ended. NEVER also stands for ids that were skipped (RFC 9113 §5.1.1). */
export const Ended = { NEVER: 0, NORMALLY: 1, RESET_BY_US: 2, RESET_BY_REMOTE: 3 } as const;

/**
 * Remembers how the last `REMEMBERED` streams of one side ended, two bits each, so that frames still under way for a
 * stream that we reset are told from frames that no honest peer sends. Older ids count as reset by us, the forgiving answer.
 */
export class ClosedStreams {
  readonly #bits = new Uint8Array(REMEMBERED / 4);
  /** The highest id opened so far. */
  #highest = 0;

  /** Stream `id` was opened; ids in between are skipped for ever. */
  opened(id: number): void {
    if (id - this.#highest >= 2 * REMEMBERED) this.#bits.fill(0);
    else for (let skipped = this.#highest + 2; skipped <= id; skipped += 2) this.#put(skipped, Ended.NEVER);
    this.#highest = id;
  }

  ended(id: number, how: number): void {
    if (this.#highest - id < 2 * REMEMBERED) this.#put(id, how);
  }

  how(id: number): number {
    if (this.#highest - id >= 2 * REMEMBERED) return Ended.RESET_BY_US;
    const place = (id >>> 1) & (REMEMBERED - 1);
    return (this.#bits[place >>> 2]! >>> ((place & 3) << 1)) & 3;
  }

  #put(id: number, how: number): void {
    const place = (id >>> 1) & (REMEMBERED - 1);
    const shift = (place & 3) << 1;
    const index = place >>> 2;
    this.#bits[index] = (this.#bits[index]! & ~(3 << shift)) | (how << shift);
  }
}

/** Power of two; a kilobyte a connection. */
const REMEMBERED = 4096;
