/**
 * How a word is spelled, as a few characters that give it back from its lower-case form:
 *
 *     -        host              as it is
 *     +        Content-Type      each part begins with a capital
 *     ^        DNT               capitals
 *     ~4c.     eTaG              a bit for each character, the first the highest; a set one is a capital
 */
export function caseOf(word: string): string {
  if (word === word.toLowerCase()) return "-";
  if (word === inTitleCase(word.toLowerCase())) return "+";
  if (word === word.toUpperCase()) return "^";
  let digits = "";
  for (let at = 0; at < word.length; at += 4) {
    let bits = 0;
    for (let i = at; i < at + 4; i++) bits = 2 * bits + (isCapital(word.charCodeAt(i)) ? 1 : 0);
    digits += bits.toString(16);
  }
  return `~${digits.replace(/0+$/, "")}.`;
}

/** The words of `text` from `at` on: index after one letter case, or -1 where there is none. */
export function caseEnd(text: string, at: number): number {
  switch (text.charCodeAt(at)) {
    case AS_IT_IS:
    case TITLE:
    case CAPITALS:
      return at + 1;
    case EXPLICIT: {
      let end = at + 1;
      while (isHexDigit(text.charCodeAt(end))) end++;
      return text.charCodeAt(end) === DOT && end > at + 1 ? end + 1 : -1;
    }
    default:
      return -1;
  }
}

/** `lower` spelled as `letterCase` says; null where that says a capital of what has none. */
export function withCase(lower: string, letterCase: string): string | null {
  switch (letterCase.charCodeAt(0)) {
    case AS_IT_IS:
      return lower;
    case TITLE:
      return inTitleCase(lower);
    case CAPITALS:
      return lower.toUpperCase();
    default:
      return withCapitals(lower, letterCase);
  }
}

function withCapitals(lower: string, letterCase: string): string | null {
  const digits = letterCase.slice(1, -1);
  if (4 * (digits.length - 1) >= lower.length) return null;
  let out = "";
  for (let i = 0; i < lower.length; i++) {
    const character = lower[i] as string;
    const bits = Number.parseInt(digits[i >> 2] ?? "0", 16);
    if ((bits & (8 >> (i & 3))) === 0) out += character;
    else if (/^[a-z]$/.test(character)) out += character.toUpperCase();
    else return null;
  }
  return out;
}

function inTitleCase(lower: string): string {
  return lower.replace(/(^|-)[a-z]/g, (start) => start.toUpperCase());
}

function isCapital(code: number): boolean {
  return code >= 0x41 && code <= 0x5a;
}

function isHexDigit(code: number): boolean {
  return (code >= 0x30 && code <= 0x39) || (code >= 0x61 && code <= 0x66);
}

const AS_IT_IS = 0x2d;
const TITLE = 0x2b;
const CAPITALS = 0x5e;
const EXPLICIT = 0x7e;
const DOT = 0x2e;
