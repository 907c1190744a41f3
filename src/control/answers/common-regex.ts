import { compilePattern } from "#/stack/route/pattern.ts";

/**
 * A pattern as a proxy of another kind takes it, or null when it might not: RE2 (ours) and Rust's regex crate (linkerd2-proxy)
 * agree on most of the syntax, and where they do not, a proxy refuses the whole policy or, worse, matches something else
 * (`[a&&b]` is an intersection to one and three characters to the other). Taken is what both certainly read alike.
 *
 * The other proxy looks for the pattern anywhere and asks whether what it found is all there is, so that "a|ab" would not be
 * found to match "ab": the anchors make it look for the whole.
 */
export function commonRegex(pattern: string): string | null {
  if (pattern.length > LENGTH_MAX || !TOKENS.test(pattern) || !isBalanced(pattern)) return null;
  // What ours cannot use never holds, and theirs might.
  if (compilePattern(pattern).kind === "problem") return null;
  return `^(?:${pattern.replaceAll("\\/", "/")})$`;
}

const LENGTH_MAX = 1024;

/** Characters, escapes, classes, groups that capture or do not, and what repeats them, up to 99 times. */
const TOKENS = new RegExp(
  [
    "^(?:",
    "(?:",
    String.raw`[A-Za-z0-9 !"#%&',/:;<=>@_\`~-]|\\[dDwWsSbBtnrf.\\+*?()|[\]{}^$/-]`,
    String.raw`|\[\^?-?(?:[A-Za-z0-9]-[A-Za-z0-9]|[A-Za-z0-9 !"#%'()*+,./:;<=>?@_{|}$]|\\[dDwWsStnrf.\\[\]^/-])+-?\]`,
    "|[.)]",
    ")",
    String.raw`(?:(?:[*+?]|\{(?:\d{1,2}|\d{1,2},|\d{1,2},\d{1,2})\})\??)?`,
    // What opens is not repeated itself; told apart here, or each could be read in two ways.
    String.raw`|\(\?:|\((?!\?)|[|^$]`,
    ")*$",
  ].join(""),
);

/** Groups that open and close; nothing that repeats what is not there. */
function isBalanced(pattern: string): boolean {
  const bare = pattern.replaceAll(/\\.|\[\^?(?:\\.|[^\]])+\]/g, "x");
  if (/(?:^|\(|\(\?:|\|)[*+?{](?!:)/.test(bare.replaceAll("(?:", "("))) return false;
  let depth = 0;
  for (const mark of bare) {
    if (mark === "(") depth++;
    else if (mark === ")" && --depth < 0) return false;
  }
  return depth === 0;
}

/** What every match of the pattern begins with, "" where that is not plain to see. */
export function literalPrefix(pattern: string): string {
  if (/[|^$]/.test(pattern)) return "";
  const prefix = /^[A-Za-z0-9/_-]*/.exec(pattern)![0];
  const next = pattern.charAt(prefix.length);
  // The last character may be there any number of times.
  return next !== "" && "*?{+".includes(next) ? prefix.slice(0, -1) : prefix;
}
