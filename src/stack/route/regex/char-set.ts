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
  const out = [...set];
  for (const orbit of orbits()) {
    if (!orbit.some((code) => contains(set, code))) continue;
    for (const code of orbit) out.push(code, code);
  }
  return charSetOf(out);
}

let knownOrbits: readonly (readonly number[])[] | null = null;

/** Letters that are one but for their case, such as k, K and the sign of kelvin. Looked up once, when first asked for. */
function orbits(): readonly (readonly number[])[] {
  if (knownOrbits !== null) return knownOrbits;
  const byKey = new Map<number, number[]>();
  for (let code = 0; code <= LAST_CASED; code++) {
    if (code >= 0xd800 && code <= 0xdfff) continue;
    const char = String.fromCodePoint(code);
    const upper = single(char.toUpperCase()) ?? code;
    const key = single(String.fromCodePoint(upper).toLowerCase()) ?? upper;
    if (key === code && upper === code) continue;
    const orbit = byKey.get(key);
    if (orbit === undefined) byKey.set(key, [code]);
    else orbit.push(code);
  }
  knownOrbits = [...byKey.values()].filter((orbit) => orbit.length > 1);
  return knownOrbits;
}

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
  let test: RegExp;
  try {
    test = new RegExp(name.length <= 2 ? `\\p{${name}}` : `\\p{Script=${name}}`, "u");
  } catch {
    return null;
  }
  const out: number[] = [];
  for (let code = 0; code <= LAST_CODE_POINT; code++) {
    if (!test.test(String.fromCodePoint(code))) continue;
    if (out.length > 0 && out.at(-1) === code - 1) out[out.length - 1] = code;
    else out.push(code, code);
  }
  return out;
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
