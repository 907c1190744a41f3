import type { Random } from "#/base/random.ts";

/**
 * Draws a number below `weights.length` by weight, in constant time (A. J. Walker 1977, built as in M. D. Vose 1991). Weights
 * are more than 0.
 */
export class AliasTable {
  readonly #keep: Float64Array;
  readonly #alias: Uint32Array;

  constructor(weights: readonly number[]) {
    const count = weights.length;
    const sum = weights.reduce((a, b) => a + b, 0);
    this.#keep = new Float64Array(count).fill(1);
    this.#alias = Uint32Array.from(weights, (_, i) => i);
    const scaled = Float64Array.from(weights, (weight) => (weight * count) / sum);
    const small: number[] = [];
    const large: number[] = [];
    for (let i = 0; i < count; i++) ((scaled[i] as number) < 1 ? small : large).push(i);
    while (small.length > 0 && large.length > 0) {
      const less = small.pop() as number;
      const more = large[large.length - 1] as number;
      this.#keep[less] = scaled[less] as number;
      this.#alias[less] = more;
      scaled[more] = (scaled[more] as number) - (1 - (scaled[less] as number));
      if ((scaled[more] as number) < 1) small.push(large.pop() as number);
    }
    // What is left in either is 1 but for rounding.
  }

  draw(random: Random): number {
    const at = random.next() * this.#keep.length;
    const column = Math.floor(at);
    return at - column < (this.#keep[column] as number) ? column : (this.#alias[column] as number);
  }
}
