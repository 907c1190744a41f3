import { isDeepStrictEqual } from "node:util";
import { SeededRandom } from "#/base/random.ts";
import type { FuzzMachine } from "./fuzz-machine.ts";
import { cutAnywhere, mutate, pick, shrink } from "./mutation.ts";

/** Inputs that are kept to breed from; past it a new one takes the place of any. */
const POOL_MAX = 2_000;
/** One execution takes microseconds. This is for what goes round for ever. */
const EXECUTION_MS_MAX = 10_000;

export interface FuzzFailure {
  readonly execution: number;
  readonly problem: string;
  /** The smallest input found that fails in some way. */
  readonly input: Uint8Array;
}

/**
 * Breeds inputs for one machine: from its seeds by mutation, and from what was bred before when the machine said something about
 * it that it had not said yet. The same seed gives the same executions.
 */
export class Fuzz {
  readonly machine: FuzzMachine;
  executions = 0;
  readonly #random: SeededRandom;
  readonly #pool: Uint8Array[];
  /** These come first, as they are. */
  readonly #seeds: number;
  readonly #seen = new Set<string>();

  constructor(machine: FuzzMachine, seed: number) {
    this.machine = machine;
    // Apart from the other machines', so that each can be run alone.
    let mixed = seed;
    for (const char of machine.name) mixed = (Math.imul(mixed, 31) + char.charCodeAt(0)) >>> 0;
    this.#random = new SeededRandom(mixed);
    this.#pool = machine.seeds();
    this.#seeds = this.#pool.length;
  }

  /** What was bred or given so far and is kept. */
  get poolSize(): number {
    return this.#pool.length;
  }

  /** One input, whole and in pieces; null when all is well. */
  execute(): FuzzFailure | null {
    const random = this.#random;
    const isSeed = this.executions < this.#seeds;
    const input = isSeed ? this.#pool[this.executions]! : mutate(random, this.#pool, this.machine);
    this.executions++;
    const pieces = cutAnywhere(random, input);
    const startedMs = performance.now();
    const problem = this.#judge(input, pieces);
    if (problem === null && performance.now() - startedMs < EXECUTION_MS_MAX) return null;
    const fails = (bytes: Uint8Array): boolean => {
      const single = Array.from(bytes, (byte) => Uint8Array.of(byte));
      return (
        this.#judge(bytes, single) !== null ||
        this.#judge(bytes, cutAnywhere(new SeededRandom(1), bytes)) !== null
      );
    };
    return {
      execution: this.executions,
      problem: problem ?? `took over ${EXECUTION_MS_MAX} ms`,
      input: problem !== null && fails(input) ? shrink(input, fails) : input,
    };
  }

  #judge(input: Uint8Array, pieces: readonly Uint8Array[]): string | null {
    try {
      if (this.machine.hasTurns === true) {
        this.#keep(input, this.machine.run(pieces));
        return null;
      }
      const whole = this.machine.run([input.slice()]);
      const inPieces = this.machine.run(pieces);
      if (!isDeepStrictEqual(whole, inPieces))
        return `cut into ${pieces.length} pieces it means something else:\n  ${whole.join("\n  ")}\nand in pieces\n  ${inPieces.join("\n  ")}`;
      this.#keep(input, whole);
      return null;
    } catch (error) {
      return error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
  }

  /** Worth breeding from: the machine said a sequence of things that it had not said before. */
  #keep(input: Uint8Array, said: readonly string[]): void {
    const gist = said.slice(0, 12).map(gistOf).join("|");
    if (this.#seen.has(gist) || this.#seen.size >= 20 * POOL_MAX) return;
    this.#seen.add(gist);
    if (this.#pool.length < POOL_MAX) this.#pool.push(input);
    else this.#pool[pick(this.#random, POOL_MAX)] = input;
  }
}

/** What a line says without what it says it of: names, numbers and payloads can be anything. */
function gistOf(line: string): string {
  if (line.startsWith("{"))
    return line
      .replaceAll(/"[^"]*"/g, "s")
      .replaceAll(/\d+/g, "0")
      .slice(0, 200);
  const [first = ""] = line.split(" ", 1);
  if (/^(error|reset)/.test(first)) return line.replaceAll(/\d+/g, "0");
  return (
    first + (/ (none|length|chunked|close|tunnel) .*?(?= \[|$)/.exec(line)?.[0].replaceAll(/\d+/g, "0") ?? "")
  );
}
