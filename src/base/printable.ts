/**
 * Text from outside, for a line that a person reads in a terminal: what could move the cursor, colour, end the line or turn its order
 * around is written as `\uXXXX` instead. With `keepsLines`, tabs and line feeds stay. Of JSON that is the same JSON, for it has
 * such characters inside strings only.
 */
export function printable(text: string, keepsLines: boolean = false): string {
  return text.replace(keepsLines ? UNPRINTABLE_BUT_LINES : UNPRINTABLE, written);
}

// Controls of Latin-1, marks of direction, separators of lines, and what has no width.
const INVISIBLE = "\\u007f-\\u009f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff";
const UNPRINTABLE = new RegExp(`[\\u0000-\\u001f${INVISIBLE}]`, "g");
const UNPRINTABLE_BUT_LINES = new RegExp(`[\\u0000-\\u0008\\u000b-\\u001f${INVISIBLE}]`, "g");

function written(found: string): string {
  return `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
