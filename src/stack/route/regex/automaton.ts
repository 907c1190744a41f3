import { contains, NEWLINE, WORD } from "./char-set.ts";
import type { Program, Step } from "./program.ts";
import type { Assertion } from "./syntax.ts";

/** Entries of the table of moves: a quarter of a megabyte for a pattern at most. */
const MOVES_MAX = 65_536;
/** Steps that all states together may name. */
const NAMED_MAX = 262_144;

const UNKNOWN = -1;
/** Of the end of the text, which a state either accepts or not. */
const ACCEPTS = 1;

/** Characters around a place, as far as assertions tell them apart. */
const Around = { EDGE: 0, NEWLINE: 1, WORD: 2, OTHER: 3 } as const;

/**
 * A deterministic automaton that is built as texts ask for it (as RE2 does): one state for each set of steps that the text so far
 * may be at, and one move for each class of characters that no step tells apart. A text costs one access of a table for each
 * character, and at worst, where states are new, a look at every step of the program: linear in both, whatever the pattern. When its
 * bound is reached the states are forgotten.
 */
export class Automaton {
  readonly #steps: readonly Step[];
  readonly #start: number;
  readonly #hasAsserts: boolean;
  /** Where the classes of characters begin, rising from 0. */
  readonly #bounds: readonly number[];
  /** Class of each ASCII character. */
  readonly #ascii = new Uint16Array(128);
  readonly #around: readonly number[];
  #states: State[] = [];
  #byKey = new Map<string, State>();
  #named = 0;
  /** Marks steps as seen in one closure. */
  readonly #seen: Uint32Array;
  #round = 0;

  constructor({ steps, start }: Program) {
    this.#steps = steps;
    this.#start = start;
    this.#hasAsserts = steps.some(({ kind }) => kind === "assert");
    this.#seen = new Uint32Array(steps.length);
    this.#bounds = boundsOf(steps, this.#hasAsserts);
    this.#around = this.#bounds.map((code) => aroundOf(code));
    for (let code = 0; code < 128; code++) this.#ascii[code] = this.#search(code);
  }

  /** Whether all of `text` matches. */
  matches(text: string): boolean {
    let state = this.#stateOf([this.#start], Around.EDGE);
    for (let i = 0; i < text.length; i++) {
      let code = text.charCodeAt(i);
      if (code >= 0xd800 && code <= 0xdbff) {
        code = text.codePointAt(i)!;
        if (code > 0xffff) i++;
      }
      const at = code < 128 ? this.#ascii[code]! : this.#search(code);
      const known = state.moves[at]!;
      state = known === UNKNOWN ? this.#move(state, at) : this.#states[known]!;
      if (state.core.length === 0) return false;
    }
    const end = this.#bounds.length;
    if (state.moves[end] === UNKNOWN) state.moves[end] = this.#accepts(state) ? ACCEPTS : 0;
    return state.moves[end] === ACCEPTS;
  }

  #move(from: State, at: number): State {
    const code = this.#bounds[at]!;
    const around = this.#around[at]!;
    const next: number[] = [];
    for (const index of this.#closure(from, around)) {
      const step = this.#steps[index]!;
      if (step.kind === "chars" && contains(step.set, code)) next.push(step.next);
    }
    const count = this.#states.length;
    const state = this.#stateOf(next, around);
    // Not into a table that was forgotten meanwhile.
    if (this.#states.length >= count) from.moves[at] = state.number;
    return state;
  }

  #accepts(state: State): boolean {
    return this.#closure(state, Around.EDGE).some((index) => this.#steps[index]!.kind === "match");
  }

  /** Steps that can be reached without a character, where `after` stands behind. */
  #closure({ core, before }: State, after: number): number[] {
    const seen = this.#seen;
    const round = ++this.#round;
    const out: number[] = [];
    const open = core.slice();
    while (open.length > 0) {
      const index = open.pop()!;
      if (seen[index] === round) continue;
      seen[index] = round;
      const step = this.#steps[index]!;
      if (step.kind === "fork") open.push(step.first, step.second);
      else if (step.kind !== "assert") out.push(index);
      else if (holds(step.at, before, after)) open.push(step.next);
    }
    return out;
  }

  #stateOf(steps: readonly number[], around: number): State {
    const core = [...new Set(steps)].toSorted((a, b) => a - b);
    const before = this.#hasAsserts ? around : Around.EDGE;
    const key = `${before} ${core.join(" ")}`;
    let state = this.#byKey.get(key);
    if (state !== undefined) return state;
    const width = this.#bounds.length + 1;
    if ((this.#states.length + 1) * width > MOVES_MAX || this.#named + core.length > NAMED_MAX)
      this.#forget();
    this.#named += core.length;
    state = { number: this.#states.length, core, before, moves: new Int32Array(width).fill(UNKNOWN) };
    this.#states.push(state);
    this.#byKey.set(key, state);
    return state;
  }

  #forget(): void {
    // States that a text is at just now keep what they need; their moves are found again.
    for (const state of this.#states) state.moves.fill(UNKNOWN);
    this.#states = [];
    this.#byKey = new Map();
    this.#named = 0;
  }

  #search(code: number): number {
    const bounds = this.#bounds;
    let low = 0;
    let high = bounds.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (bounds[middle]! <= code) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

interface State {
  readonly number: number;
  /** Steps that the text is at, rising, before those that need no character. */
  readonly core: readonly number[];
  /** What the last character was; always the same where no assertion asks. */
  readonly before: number;
  /** By class of characters the number of the next state, and last whether the end is accepted. */
  readonly moves: Int32Array;
}

function boundsOf(steps: readonly Step[], hasAsserts: boolean): readonly number[] {
  const bounds = new Set<number>([0]);
  const addAll = (set: readonly number[]): void => {
    for (let i = 0; i < set.length; i += 2) {
      bounds.add(set[i]!);
      bounds.add(set[i + 1]! + 1);
    }
  };
  for (const step of steps) if (step.kind === "chars") addAll(step.set);
  if (hasAsserts) {
    addAll(WORD);
    addAll(NEWLINE);
  }
  return [...bounds].toSorted((a, b) => a - b);
}

function aroundOf(code: number): number {
  return contains(NEWLINE, code) ? Around.NEWLINE : contains(WORD, code) ? Around.WORD : Around.OTHER;
}

function holds(at: Assertion, before: number, after: number): boolean {
  switch (at) {
    case "text-start":
      return before === Around.EDGE;
    case "text-end":
      return after === Around.EDGE;
    case "line-start":
      return before === Around.EDGE || before === Around.NEWLINE;
    case "line-end":
      return after === Around.EDGE || after === Around.NEWLINE;
    case "word-edge":
      return (before === Around.WORD) !== (after === Around.WORD);
    case "no-word-edge":
      return (before === Around.WORD) === (after === Around.WORD);
  }
}
