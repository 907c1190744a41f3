import { Automaton } from "./regex/automaton.ts";
import { compileProgram } from "./regex/program.ts";
import { parseRegex, SyntaxProblem } from "./regex/syntax.ts";
import { utf8OfLatin1 } from "./text.ts";

/** A regular expression that a whole text has to match. */
export interface Pattern {
  /** `text`: one character per byte of UTF-8, as requests are read. Linear in its length. */
  matches(text: string): boolean;
}

export type Compiled =
  | { readonly kind: "pattern"; readonly pattern: Pattern }
  | { readonly kind: "problem"; readonly problem: string };

/** As long as Gateway API lets a header's value be. */
const PATTERN_CHARS_MAX = 4_096;
/** With counts written out. A text that meets nothing but new states costs this much a character. */
const STEPS_MAX = 2_000;

/** The same for the control plane, which refuses an object with such a problem, and for sidecars (decision 0013). */
export function compilePattern(source: string): Compiled {
  if (source.length > PATTERN_CHARS_MAX)
    return problem(source, `it has more than ${PATTERN_CHARS_MAX} characters`);
  try {
    const program = compileProgram(parseRegex(source), STEPS_MAX);
    if (program === null)
      return problem(
        source,
        `it is too large: with its counts written out it has more than ${STEPS_MAX} steps`,
      );
    const automaton = new Automaton(program);
    return { kind: "pattern", pattern: { matches: (text) => automaton.matches(utf8OfLatin1(text)) } };
  } catch (error) {
    if (error instanceof SyntaxProblem)
      return problem(source, `${error.message}, at character ${error.at + 1}`);
    throw error;
  }
}

function problem(source: string, what: string): Compiled {
  const shown = source.length > SHOWN_CHARS_MAX ? `${source.slice(0, SHOWN_CHARS_MAX)}…` : source;
  return { kind: "problem", problem: `the regular expression ${shown} cannot be used: ${what}` };
}

const SHOWN_CHARS_MAX = 64;
