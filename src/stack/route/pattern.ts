/** A regular expression in RE2's syntax that a whole text has to match. */
export interface Pattern {
  /** `text`: one character per byte, as requests are read. */
  matches(text: string): boolean;
}

export type Compiled =
  | { readonly kind: "pattern"; readonly pattern: Pattern }
  | { readonly kind: "problem"; readonly problem: string };

export function compilePattern(source: string): Compiled {
  return { kind: "problem", problem: `the regular expression ${source} cannot be used yet` };
}
