import {
  charSetOf,
  type CharSet,
  complement,
  DIGITS,
  folded,
  LAST_CODE_POINT,
  NAMED,
  NEWLINE,
  SPACE,
  unicodeProperty,
  WORD,
} from "./char-set.ts";

/** A regular expression as a tree. Whether a repetition is greedy does not matter to whether a whole text matches. */
export type Node =
  | { readonly kind: "chars"; readonly set: CharSet }
  | { readonly kind: "all" | "any"; readonly nodes: readonly Node[] }
  /** `max` Infinity: without end. */
  | { readonly kind: "repeat"; readonly node: Node; readonly min: number; readonly max: number }
  | { readonly kind: "assert"; readonly at: Assertion };

export type Assertion = "text-start" | "text-end" | "line-start" | "line-end" | "word-edge" | "no-word-edge";

/** Why a text is no expression, and where: `at` counts characters from 0. */
export class SyntaxProblem extends Error {
  readonly at: number;

  constructor(message: string, at: number) {
    super(message);
    this.at = at;
  }
}

/** Times that RE2 lets a part be repeated by a count. */
const COUNT_MAX = 1_000;
/** Groups inside groups: the parser's own stack. */
const NESTING_MAX = 100;

interface Flags {
  readonly i: boolean;
  readonly m: boolean;
  readonly s: boolean;
}

/**
 * Reads RE2's syntax (github.com/google/re2/wiki/Syntax), less \C, which matches a byte. What RE2 refuses because it takes more than
 * linear time, look-around and back-references, is refused too. Throws `SyntaxProblem`.
 */
export function parseRegex(source: string): Node {
  const parser = new Parser(source);
  const node = parser.alternatives({ i: false, m: false, s: false }, 0);
  if (!parser.isDone) throw parser.problem("unexpected )");
  return node;
}

class Parser {
  readonly #chars: readonly string[];
  #at = 0;

  constructor(source: string) {
    this.#chars = Array.from(source);
  }

  get isDone(): boolean {
    return this.#at >= this.#chars.length;
  }

  problem(message: string): SyntaxProblem {
    return new SyntaxProblem(message, this.#at);
  }

  alternatives(outer: Flags, depth: number): Node {
    if (depth > NESTING_MAX) throw this.problem(`groups are nested deeper than ${NESTING_MAX}`);
    let flags = outer;
    const all: Node[] = [];
    let nodes: Node[] = [];
    while (!this.isDone && this.#peek() !== ")") {
      if (this.#take("|")) {
        all.push({ kind: "all", nodes });
        nodes = [];
        continue;
      }
      const changed = this.#flagsAlone(flags);
      if (changed !== null) {
        flags = changed;
        continue;
      }
      const start = this.#at;
      if (this.#takeText("\\Q")) {
        this.#quoted(flags, nodes);
        continue;
      }
      const node = this.#atom(flags, depth);
      nodes.push(this.#repeated(node, start));
    }
    all.push({ kind: "all", nodes });
    return all.length === 1 ? all[0]! : { kind: "any", nodes: all };
  }

  #atom(flags: Flags, depth: number): Node {
    const char = this.#next();
    switch (char) {
      case "(":
        return this.#group(flags, depth);
      case "[":
        return this.#class(flags);
      case ".":
        return { kind: "chars", set: flags.s ? [0, LAST_CODE_POINT] : complement(NEWLINE) };
      case "^":
        return { kind: "assert", at: flags.m ? "line-start" : "text-start" };
      case "$":
        return { kind: "assert", at: flags.m ? "line-end" : "text-end" };
      case "*":
      case "+":
      case "?":
        this.#at--;
        throw this.problem(`nothing to repeat before ${char}`);
      case "\\":
        return this.#escape(flags);
      default:
        return literal(char, flags);
    }
  }

  /** (?i) and the like, which hold up to the end of their group; null where something else stands. */
  #flagsAlone(flags: Flags): Flags | null {
    const start = this.#at;
    if (!this.#takeText("(?")) return null;
    const changed = this.#readFlags(flags);
    if (changed !== null && this.#take(")")) return changed;
    this.#at = start;
    return null;
  }

  #readFlags(flags: Flags): Flags | null {
    const changed = { ...flags };
    let value = true;
    for (;;) {
      const char = this.#peek();
      if (char === "-" && value) value = false;
      else if (char === "i" || char === "m" || char === "s") changed[char] = value;
      // Which of two repetitions takes more does not matter to a whole match.
      else if (char !== "U") return changed;
      this.#at++;
    }
  }

  #group(flags: Flags, depth: number): Node {
    let inner = flags;
    if (this.#take("?")) {
      if (this.#takeText("P<") || (this.#peek() === "<" && !"=!".includes(this.#peek(1)) && this.#take("<")))
        this.#name();
      else {
        const changed = this.#readFlags(flags);
        if (changed === null || !this.#take(":"))
          throw this.problem(`(?${this.#peek()} is not known here: look-around takes more than linear time`);
        inner = changed;
      }
    }
    const node = this.alternatives(inner, depth + 1);
    if (!this.#take(")")) throw this.problem("missing )");
    return node;
  }

  #name(): void {
    const start = this.#at;
    while (/^\w$/.test(this.#peek())) this.#at++;
    if (this.#at === start || !this.#take(">")) throw this.problem("bad name of a group");
  }

  #repeated(node: Node, start: number): Node {
    const count = this.#count();
    if (count === null) return node;
    if (node.kind === "assert" && count.max > 1) {
      // What holds once holds as often as one likes.
      this.#take("?");
      return { kind: "repeat", node, min: Math.min(count.min, 1), max: 1 };
    }
    this.#take("?");
    const again = this.#at;
    if (this.#count() !== null) {
      this.#at = again;
      throw this.problem(`a repetition of a repetition, of what stands at ${start}`);
    }
    return { kind: "repeat", node, ...count };
  }

  #count(): { min: number; max: number } | null {
    if (this.#take("*")) return { min: 0, max: Infinity };
    if (this.#take("+")) return { min: 1, max: Infinity };
    if (this.#take("?")) return { min: 0, max: 1 };
    if (this.#peek() !== "{") return null;
    // What is no count is a brace like any other.
    const match = /^\{(\d{1,9})(,(\d{0,9}))?\}/.exec(this.#chars.slice(this.#at, this.#at + 24).join(""));
    if (match === null) return null;
    const min = Number(match[1]);
    const max = match[2] === undefined ? min : match[3] === "" ? Infinity : Number(match[3]);
    if (min > COUNT_MAX || (max !== Infinity && max > COUNT_MAX))
      throw this.problem(`a count is larger than ${COUNT_MAX}`);
    if (max < min) throw this.problem("a count ends before it begins");
    this.#at += match[0].length;
    return { min, max };
  }

  /** Up to \E; a repetition behind it is of the last character. */
  #quoted(flags: Flags, nodes: Node[]): void {
    const count = nodes.length;
    while (!this.isDone && !this.#takeText("\\E")) nodes.push(literal(this.#next(), flags));
    if (nodes.length > count) nodes.push(this.#repeated(nodes.pop()!, this.#at));
  }

  #escape(flags: Flags): Node {
    if (this.isDone) throw this.problem("a backslash at the end");
    const char = this.#peek();
    const at = ASSERTIONS[char];
    if (at !== undefined) {
      this.#at++;
      return { kind: "assert", at };
    }
    const set = this.#classEscape(flags);
    return set === null ? literal(this.#charEscape(), flags) : { kind: "chars", set };
  }

  /** \d, \pL and the like, behind the backslash; null where none stands. */
  #classEscape(flags: Flags): CharSet | null {
    const char = this.#peek();
    const perl = PERL[char.toLowerCase()];
    if (perl !== undefined) {
      this.#at++;
      return char === char.toLowerCase() ? perl : complement(perl);
    }
    if (char !== "p" && char !== "P") return null;
    this.#at++;
    let name = this.#next();
    if (name === "{") {
      name = "";
      while (!this.isDone && this.#peek() !== "}") name += this.#next();
      if (!this.#take("}")) throw this.problem("missing }");
    }
    const isNot = name.startsWith("^");
    const found = unicodeProperty(isNot ? name.slice(1) : name);
    if (found === null) throw this.problem(`no class of characters is called ${name}`);
    const set = flags.i ? folded(found) : found;
    return isNot === (char === "P") ? set : complement(set);
  }

  /** One character, behind the backslash. */
  #charEscape(): string {
    const char = this.#next();
    if (char === "x") return this.#hex();
    if (char >= "0" && char <= "7") return this.#octal(char);
    const control = CONTROLS[char];
    if (control !== undefined) return control;
    if (/^[0-9A-Za-z]$/.test(char)) {
      this.#at--;
      throw this.problem(
        /^[1-9]$/.test(char) ? "a back-reference takes more than linear time" : `\\${char} is not known here`,
      );
    }
    return char;
  }

  #hex(): string {
    let digits = "";
    if (this.#take("{")) while (!this.isDone && this.#peek() !== "}") digits += this.#next();
    else digits = this.#next() + (this.isDone ? "" : this.#next());
    const code = Number.parseInt(digits, 16);
    const isWhole = /^[0-9A-Fa-f]{1,8}$/.test(digits) && (digits.length === 2 || this.#take("}"));
    if (!isWhole || code > LAST_CODE_POINT) throw this.problem("bad \\x");
    return String.fromCodePoint(code);
  }

  /** \0, \012 or \123: a digit other than 0 alone would be a back-reference. */
  #octal(first: string): string {
    let digits = first;
    while (digits.length < 3 && this.#peek() >= "0" && this.#peek() <= "7") digits += this.#next();
    if (first !== "0" && digits.length === 1)
      throw this.problem("a back-reference takes more than linear time");
    return String.fromCharCode(Number.parseInt(digits, 8));
  }

  #class(flags: Flags): Node {
    const isNot = this.#take("^");
    const ranges: number[] = [];
    let isFirst = true;
    while (isFirst || this.#peek() !== "]") {
      if (this.isDone) throw this.problem("missing ]");
      isFirst = false;
      const set = this.#setInClass(flags);
      if (set !== null) {
        ranges.push(...set);
        continue;
      }
      const from = this.#charInClass();
      let to = from;
      if (this.#peek() === "-" && this.#peek(1) !== "]" && this.#peek(1) !== "") {
        this.#at++;
        to = this.#charInClass();
        if (to < from) throw this.problem("a range ends before it begins");
      }
      ranges.push(from, to);
    }
    this.#at++;
    const set = flags.i ? folded(charSetOf(ranges)) : charSetOf(ranges);
    return { kind: "chars", set: isNot ? complement(set) : set };
  }

  #setInClass(flags: Flags): CharSet | null {
    if (this.#peek() === "[" && this.#peek(1) === ":") {
      const rest = this.#chars.slice(this.#at, this.#at + 16).join("");
      const match = /^\[:(\^?)(\w+):\]/.exec(rest);
      if (match === null) return null;
      const named = NAMED[match[2]!];
      if (named === undefined) throw this.problem(`no class of characters is called ${match[2]}`);
      this.#at += match[0].length;
      return match[1] === "^" ? complement(named) : named;
    }
    if (this.#peek() !== "\\") return null;
    this.#at++;
    const set = this.isDone ? null : this.#classEscape(flags);
    if (set === null) this.#at--;
    return set;
  }

  #charInClass(): number {
    const char = this.#next();
    if (char !== "\\") return char.codePointAt(0)!;
    if (this.isDone) throw this.problem("a backslash at the end");
    return this.#charEscape().codePointAt(0)!;
  }

  #peek(ahead = 0): string {
    return this.#chars[this.#at + ahead] ?? "";
  }

  #next(): string {
    const char = this.#chars[this.#at];
    if (char === undefined) throw this.problem("the expression ends too early");
    this.#at++;
    return char;
  }

  #take(char: string): boolean {
    if (this.#peek() !== char || char === "") return false;
    this.#at++;
    return true;
  }

  #takeText(text: string): boolean {
    for (let i = 0; i < text.length; i++) if (this.#peek(i) !== text[i]) return false;
    this.#at += text.length;
    return true;
  }
}

function literal(char: string, { i }: Flags): Node {
  const code = char.codePointAt(0)!;
  const set = [code, code];
  return { kind: "chars", set: i ? folded(set) : set };
}

const ASSERTIONS: Readonly<Record<string, Assertion>> = {
  A: "text-start",
  z: "text-end",
  b: "word-edge",
  B: "no-word-edge",
};
const PERL: Readonly<Record<string, CharSet>> = { d: DIGITS, s: SPACE, w: WORD };
const CONTROLS: Readonly<Record<string, string>> = {
  a: "\x07",
  f: "\f",
  t: "\t",
  n: "\n",
  r: "\r",
  v: "\v",
};
