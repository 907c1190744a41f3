import type { FolderProblem } from "#/model/node-protocol.ts";
import { fieldPath } from "#/kube/folder.ts";
import type { SourceDocument } from "#/kube/source.ts";

/**
 * Reads a map of a scenario field by field, and notes what is wrong with file and line; a field that nobody asked for is
 * wrong too. What cannot be read has its default, so that all mistakes are found at once.
 */
export class FieldReader {
  readonly #file: string;
  readonly #document: SourceDocument;
  readonly #problems: FolderProblem[];
  readonly #path: readonly (string | number)[];
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #read = new Set<string>();

  constructor(
    file: string,
    document: SourceDocument,
    problems: FolderProblem[],
    value: unknown = document.value,
    path: readonly (string | number)[] = [],
  ) {
    this.#file = file;
    this.#document = document;
    this.#problems = problems;
    this.#path = path;
    const isMap = typeof value === "object" && value !== null && !Array.isArray(value);
    this.#fields = isMap ? (value as Record<string, unknown>) : {};
    if (!isMap) this.problem([], "must be a map");
  }

  /** `FILE:LINE`. */
  get place(): string {
    return `${this.#file}:${this.#document.lineOf(this.#path)}`;
  }

  has(name: string): boolean {
    return this.#fields[name] !== undefined;
  }

  /** For fields that are only read under a condition. */
  knows(...names: readonly string[]): void {
    for (const name of names) this.#read.add(name);
  }

  /** The fields' names, for maps whose keys are names. */
  get names(): readonly string[] {
    return Object.keys(this.#fields);
  }

  text(name: string, fallback: string): string {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    if (typeof value === "string") return value;
    if (typeof value === "number") return String(value);
    this.problem([name], "must be text");
    return fallback;
  }

  required(name: string): string {
    if (!this.has(name)) this.problem([], `${name} is missing`);
    return this.text(name, "");
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.#take(name);
    if (value === undefined || typeof value === "boolean") return value ?? fallback;
    this.problem([name], "must be true or false");
    return fallback;
  }

  whole(name: string, fallback: number, min: number, max: number): number {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) return value;
    this.problem([name], `must be a whole number from ${min} to ${max}`);
    return fallback;
  }

  number(name: string, fallback: number, min: number, max: number): number {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    if (typeof value === "number" && value >= min && value <= max) return value;
    this.problem([name], `must be a number from ${min} to ${max}`);
    return fallback;
  }

  durationMs(name: string, fallbackMs: number): number {
    const value = this.#take(name);
    if (value === undefined) return fallbackMs;
    const ms = typeof value === "string" ? parseDurationMs(value) : null;
    if (ms !== null && ms <= DURATION_MS_MAX) return ms;
    this.problem([name], 'must be a duration of at most an hour, such as "250ms", "1.5s" or "1m30s"');
    return fallbackMs;
  }

  /** `30%`, or a number from 0 to 1. */
  share(name: string, fallback: number): number {
    const value = this.#take(name);
    if (value === undefined) return fallback;
    const percent = typeof value === "string" ? /^(\d+(?:\.\d+)?)%$/.exec(value) : null;
    const share = percent !== null ? Number(percent[1]) / 100 : value;
    if (typeof share === "number" && share >= 0 && share <= 1) return share;
    this.problem([name], "must be a share such as 30%, or a number from 0 to 1");
    return fallback;
  }

  /** A map inside this one; empty when it is absent. */
  map(name: string): FieldReader {
    return this.#inner([name], this.#take(name) ?? {});
  }

  list(name: string): FieldReader[] {
    return this.#items(name).map((item, i) => this.#inner([name, i], item));
  }

  texts(name: string): string[] {
    return this.#items(name).flatMap((item, i) => {
      if (typeof item === "string") return [item];
      this.problem([name, i], "must be text");
      return [];
    });
  }

  /** A value that is written as one word or as a map. */
  isText(name: string): boolean {
    return typeof this.#fields[name] === "string";
  }

  /** To be called last: whatever was not read would have no effect. */
  done(): void {
    const unknown = this.names.filter((name) => !this.#read.has(name));
    for (const name of unknown)
      this.problem([name], `unknown field; known here are ${[...this.#read].toSorted().join(", ")}`);
  }

  problem(path: readonly (string | number)[], reason: string): void {
    const whole = [...this.#path, ...path];
    this.#problems.push({
      file: this.#file,
      line: this.#document.lineOf(whole),
      object: "",
      field: fieldPath(whole),
      reason,
    });
  }

  #take(name: string): unknown {
    this.#read.add(name);
    return this.#fields[name];
  }

  #items(name: string): readonly unknown[] {
    const value = this.#take(name);
    if (value === undefined) return [];
    if (Array.isArray(value) && value.length <= ITEMS_MAX) return value;
    this.problem([name], `must be a list of at most ${ITEMS_MAX} items`);
    return [];
  }

  #inner(path: readonly (string | number)[], value: unknown): FieldReader {
    return new FieldReader(this.#file, this.#document, this.#problems, value, [...this.#path, ...path]);
  }
}

/** GEP-2257's form, and parts of a unit besides: a service time may well be half a millisecond. */
export function parseDurationMs(text: string): number | null {
  if (!/^(\d{1,6}(\.\d{1,3})?(h|m|s|ms|us)){1,4}$/.test(text)) return null;
  let sum = 0;
  for (const [, count, unit] of text.matchAll(/([\d.]+)(ms|us|h|m|s)/g))
    sum += Number(count) * UNIT_MS[unit!]!;
  return sum;
}

const UNIT_MS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1, us: 0.001 };
const DURATION_MS_MAX = 3_600_000;
const ITEMS_MAX = 1_000;
