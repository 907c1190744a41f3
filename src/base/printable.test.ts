import assert from "node:assert/strict";
import { test } from "node:test";
import { printable } from "./printable.ts";

test("attack: text from outside cannot colour, move, end or turn around the line that it is printed in", () => {
  assert.equal(printable("a\u001b[2Jb\r\nc\u009b31m"), "a\\u001b[2Jb\\u000d\\u000ac\\u009b31m");
  assert.equal(printable("safe\u202egpj.exe\u2066\u200b"), "safe\\u202egpj.exe\\u2066\\u200b");
  assert.equal(printable("a\tb\nc\u0007", true), "a\tb\nc\\u0007");
  assert.equal(printable("grün · 漢字 🙂"), "grün · 漢字 🙂");
});

test("JSON stays JSON, and says the same", () => {
  const value = { path: "/\u009b2J\u202e\u2028\u007f", "k\u200b": "\u001b" };
  const text = printable(JSON.stringify(value), true);
  assert.match(text, /^[\u0020-\u007e]*$/);
  assert.deepEqual(JSON.parse(text), value);
});
