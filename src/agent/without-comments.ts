/**
 * JavaScript without its comments and indentation, in ASCII alone; lines stay. A running program keeps its text for as long as it
 * lives, and one letter past Latin-1 doubles all of it.
 *
 * Tells strings, templates and regular expressions from code as a formatter leaves them: a slash begins an expression where a value
 * may begin. Throws at what has no end.
 */
export function withoutComments(text: string): string {
  const parts: string[] = [];
  /** Of each template that we are in: how many braces are open since its part began. */
  const open: number[] = [];
  let before = "";
  let at = 0;
  const match = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found === undefined) throw new Error(`no end of ${JSON.stringify(text.slice(at, at + 40))}`);
    at += found.length;
    return found;
  };
  const take = (found: string): void => {
    parts.push(found);
    before = found;
  };
  const space = (found: string): void => {
    const lines = found.replace(/[^\n]+/g, "");
    if (parts.at(-1) === " ") parts.pop();
    parts.push(lines === "" && parts.at(-1)?.endsWith("\n") !== true ? " " : lines);
  };
  while (at < text.length) {
    const letter = text[at]!;
    const two = text.slice(at, at + 2);
    if (two === "//") match(LINE_COMMENT);
    // It parts words, as a space or lines do.
    else if (two === "/*") space(match(COMMENT));
    else if (letter === '"' || letter === "'") take(match(QUOTED));
    else if (letter === "/" && BEFORE_VALUE.test(before)) take(match(EXPRESSION));
    else if (letter === "`" || (letter === "}" && open.at(-1) === 0)) {
      if (letter === "}") open.pop();
      take(match(TEMPLATE_PART));
      if (before.endsWith("${")) open.push(0);
    } else if (SPACE.test(letter)) space(match(SPACES));
    else {
      const depth = open.length - 1;
      if (depth >= 0 && letter === "{") open[depth]!++;
      if (depth >= 0 && letter === "}") open[depth]!--;
      take(match(WORD_OR_SIGN));
    }
  }
  if (open.length > 0) throw new Error("no end of a template");
  return parts.join("").replace(/\\*[^\0-\x7f]/g, escaped);
}

const LINE_COMMENT = /\/\/[^\n]*/y;
const COMMENT = /\/\*[^]*?\*\//y;
const QUOTED = /"(?:[^"\\\n]|\\[^])*"|'(?:[^'\\\n]|\\[^])*'/y;
const TEMPLATE_PART = /[`}](?:[^`\\$]|\\[^]|\$(?!\{))*(?:`|\$\{)/y;
const EXPRESSION = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;
const WORD_OR_SIGN = /[\w$#]+|[^]/y;
const SPACE = /\s/;
const SPACES = /\s+/y;
/** What comes before a value: nothing, a sign, the part of a template, or one of these words. */
const BEFORE_VALUE =
  /^(?:|[^\w$#)\]"'`/]|.*\$\{|return|typeof|case|in|of|delete|void|throw|do|else|await|yield)$/s;

/** A letter, and the backslashes before it: one that belongs to the letter says nothing, and would take the escape's own. */
function escaped(found: string): string {
  const slashes = found.length - 1;
  const letter = found.charCodeAt(slashes).toString(16).padStart(4, "0");
  return `${"\\".repeat(slashes - (slashes % 2))}\\u${letter}`;
}
