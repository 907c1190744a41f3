import { parse, type Token } from "acorn";

/**
 * A module of JavaScript without its comments and indentation, in ASCII alone; lines stay. A running program keeps its text for as long
 * as it lives, and one letter past Latin-1 doubles all of it. Throws at what is no JavaScript.
 */
export function withoutComments(text: string): string {
  const tokens: Token[] = [];
  parse(text, {
    ecmaVersion: "latest",
    sourceType: "module",
    allowReturnOutsideFunction: true,
    onToken: tokens,
  });
  let at = 0;
  let bare = "";
  for (const { start, end } of tokens) {
    bare += spaceIn(text.slice(at, start)) + text.slice(start, end);
    at = end;
  }
  return bare.replace(/\\*[^\0-\x7f]/g, escaped);
}

/** What has to stay of that between two tokens: its lines, or one space. */
function spaceIn(between: string): string {
  const lines = between.replace(/[^\n]+/g, "");
  return lines === "" && between !== "" ? " " : lines;
}

/** A letter, and the backslashes before it: one that belongs to the letter says nothing, and would take the escape's own. */
function escaped(found: string): string {
  const slashes = found.length - 1;
  const letter = found.charCodeAt(slashes).toString(16).padStart(4, "0");
  return `${"\\".repeat(slashes - (slashes % 2))}\\u${letter}`;
}
