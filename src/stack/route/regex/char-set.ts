/** Code points as ranges, both ends inclusive, rising and apart: [from, to, from, to, …]. */
export type CharSet = readonly number[];

export const LAST_CODE_POINT = 0x10ffff;

/** Any ranges, in any order, as a set. */
export function charSetOf(ranges: readonly number[]): CharSet {
  const pairs: [number, number][] = [];
  for (let i = 0; i < ranges.length; i += 2) pairs.push([ranges[i]!, ranges[i + 1]!]);
  pairs.sort((a, b) => a[0] - b[0]);
  const out: number[] = [];
  for (const [from, to] of pairs) {
    const last = out.length - 1;
    if (last >= 0 && from <= out[last]! + 1) out[last] = Math.max(out[last]!, to);
    else out.push(from, to);
  }
  return out;
}

export function complement(set: CharSet): CharSet {
  const out: number[] = [];
  let from = 0;
  for (let i = 0; i < set.length; i += 2) {
    if (set[i]! > from) out.push(from, set[i]! - 1);
    from = set[i + 1]! + 1;
  }
  if (from <= LAST_CODE_POINT) out.push(from, LAST_CODE_POINT);
  return out;
}

export function contains(set: CharSet, code: number): boolean {
  for (let i = 0; i < set.length; i += 2) if (code >= set[i]! && code <= set[i + 1]!) return true;
  return false;
}

/** With every letter that differs from one of the set in case alone (Unicode's simple case folding). */
export function folded(set: CharSet): CharSet {
  if (set.every((code) => code < 0x80)) return foldedAscii(set);
  const out = [...set];
  for (const orbit of orbits()) {
    if (!orbit.some((code) => contains(set, code))) continue;
    for (const code of orbit) out.push(code, code);
  }
  return charSetOf(out);
}

/** As nearly all patterns need it, without the table of all letters. */
function foldedAscii(set: CharSet): CharSet {
  const out = [...set];
  for (let lower = 0x61; lower <= 0x7a; lower++) {
    const upper = lower - 0x20;
    if (!contains(set, lower) && !contains(set, upper)) continue;
    out.push(lower, lower, upper, upper);
    if (lower === 0x6b) out.push(KELVIN_SIGN, KELVIN_SIGN);
    if (lower === 0x73) out.push(LONG_S, LONG_S);
  }
  return charSetOf(out);
}

const KELVIN_SIGN = 0x212a;
const LONG_S = 0x17f;

let knownOrbits: readonly (readonly number[])[] | null = null;

/** Letters that are one but for their case, such as k, K and the sign of kelvin. Looked up once, when first asked for. */
function orbits(): readonly (readonly number[])[] {
  if (knownOrbits !== null) return knownOrbits;
  const byKey = new Map<number, number[]>();
  for (let code = 0; code <= LAST_CASED; code++) {
    if ((code >= 0xd800 && code <= 0xdfff) || code === DOTLESS_I) continue;
    const char = String.fromCodePoint(code);
    const upper = single(char.toUpperCase()) ?? code;
    const key = single(String.fromCodePoint(upper).toLowerCase()) ?? upper;
    if (key === code && upper === code) continue;
    const orbit = byKey.get(key);
    if (orbit === undefined) byKey.set(key, [code]);
    else orbit.push(code);
  }
  // Whose capital is two letters, as that of ß, is looked up by the one that has it for its small letter.
  for (const [key, orbit] of byKey) if (!orbit.includes(key)) orbit.push(key);
  knownOrbits = [...byKey.values()].filter((orbit) => orbit.length > 1);
  return knownOrbits;
}

/** Its capital is I, and still Unicode does not take it for i (CaseFolding.txt, simple folding). */
const DOTLESS_I = 0x131;
/** Planes above have no letters with case. */
const LAST_CASED = 0x1ffff;

function single(text: string): number | null {
  const code = text.codePointAt(0)!;
  return text.length === (code > 0xffff ? 2 : 1) ? code : null;
}

const properties = new Map<string, CharSet | null>();
const PROPERTIES_MAX = 64;

/** Characters of a general category ("L", "Lu") or a script ("Greek"), as the runtime's Unicode has it; null: there is none. */
export function unicodeProperty(name: string): CharSet | null {
  let set = properties.get(name);
  if (set !== undefined) return set;
  set = readProperty(name);
  if (properties.size >= PROPERTIES_MAX) properties.clear();
  properties.set(name, set);
  return set;
}

function readProperty(name: string): CharSet | null {
  if (name === "Any") return [0, LAST_CODE_POINT];
  if (!/^[A-Z][A-Za-z_]*$/.test(name)) return null;
  let runs: RegExp;
  try {
    runs = new RegExp(name.length <= 2 ? `\\p{${name}}+` : `\\p{Script=${name}}+`, "gu");
  } catch {
    return null;
  }
  // Asking of many characters at once takes some milliseconds, of each alone a tenth of a second.
  const out: number[] = [];
  for (let from = 0; from <= LAST_CODE_POINT; from += BLOCK) {
    // Surrogates are no characters, and no text that was read has one.
    if (from === FIRST_SURROGATE) continue;
    if (isUniform(from)) {
      // All but the last two of the plane are alike.
      const last = from + PLANE - 1;
      if (blockAt(from, 2).search(runs) === 0) out.push(from, last - 2);
      if (
        blockAt(last + 1 - BLOCK, 2)
          .slice(-4)
          .search(runs) === 0
      )
        out.push(last - 1, last);
      from += PLANE - BLOCK;
      continue;
    }
    const units = from > 0xffff ? 2 : 1;
    for (const run of blockAt(from, units).matchAll(runs))
      out.push(from + run.index / units, from + (run.index + run[0].length) / units - 1);
  }
  return charSetOf(out);
}

const BLOCK = 0x800;
const PLANE = 0x10000;

/** Planes that have no characters, or those of private use alone. */
function isUniform(from: number): boolean {
  const plane = from / PLANE;
  return Number.isInteger(plane) && plane >= 4 && plane !== 14;
}

const FIRST_SURROGATE = 0xd800;

/** The text of a block of code points, each of `units` (RFC 2781 §2.1). */
function blockAt(from: number, units: 1 | 2): string {
  const bytes = Buffer.alloc(2 * units * BLOCK);
  for (let i = 0; i < BLOCK; i++) {
    const code = from + i;
    if (units === 1) bytes.writeUInt16LE(code, 2 * i);
    else {
      bytes.writeUInt16LE(0xd800 + ((code - 0x10000) >> 10), 4 * i);
      bytes.writeUInt16LE(0xdc00 + ((code - 0x10000) & 0x3ff), 4 * i + 2);
    }
  }
  return bytes.toString("utf16le");
}

export const DIGITS: CharSet = [0x30, 0x39];
export const WORD: CharSet = charSetOf([0x30, 0x39, 0x41, 0x5a, 0x5f, 0x5f, 0x61, 0x7a]);
export const SPACE: CharSet = charSetOf([0x09, 0x0a, 0x0c, 0x0d, 0x20, 0x20]);
export const NEWLINE: CharSet = [0x0a, 0x0a];

/** RE2's [[:name:]]. */
export const NAMED: Readonly<Record<string, CharSet>> = {
  alnum: charSetOf([0x30, 0x39, 0x41, 0x5a, 0x61, 0x7a]),
  alpha: charSetOf([0x41, 0x5a, 0x61, 0x7a]),
  ascii: [0, 0x7f],
  blank: charSetOf([0x09, 0x09, 0x20, 0x20]),
  cntrl: charSetOf([0, 0x1f, 0x7f, 0x7f]),
  digit: DIGITS,
  graph: [0x21, 0x7e],
  lower: [0x61, 0x7a],
  print: [0x20, 0x7e],
  punct: charSetOf([0x21, 0x2f, 0x3a, 0x40, 0x5b, 0x60, 0x7b, 0x7e]),
  space: charSetOf([0x09, 0x0d, 0x20, 0x20]),
  upper: [0x41, 0x5a],
  word: WORD,
  xdigit: charSetOf([0x30, 0x39, 0x41, 0x46, 0x61, 0x66]),
};
