import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import test from "node:test";
import { withoutComments } from "./without-comments.ts";

const cases: Readonly<Record<string, readonly [text: string, expected: string]>> = {
  "comments go, their lines stay": ["a; // b\n/** c\n * d\n */\nconst e = 1;", "a;\n\n\n\nconst e = 1;"],
  "a comment parts words": ["return/* a */1", "return 1"],
  "indentation goes": ["{\n    a;\n\n  \n}", "{\na;\n\n\n}"],
  "strings stay": [`f("// a", '/* b */', "\\"//")`, `f("// a", '/* b */', "\\"//")`],
  "templates stay, indentation too": ["f(`// a\n   b`); // c", "f(`// a\n   b`); "],
  "code in a template is code": ["`${ /* a */ { b: `}${c}` } }//d`", "`${ { b: `}${c}` } }//d`"],
  "what looks like a part of a template is none": ["`$a \\${ // b`", "`$a \\${ // b`"],
  "regular expressions stay": ['f(/["//]/g, /\\/*/); // a', 'f(/["//]/g, /\\/*/); '],
  "after return there is one": ["return /'/.test(a); // b", "return /'/.test(a); "],
  "a division is none": ["a / b; // c / d\n(a) / 'b'", "a / b;\n(a) / 'b'"],
  "nor is one after ++, after a block there is one": [
    "a++ / b / 'c'; // d\nif (a) {}\n/'/.test(b); // e",
    "a++ / b / 'c';\nif (a) {}\n/'/.test(b); ",
  ],
  "letters past ASCII are escaped": [
    'f("→", `é`, /[😀]/u); // →',
    'f("\\u2192", `\\u00e9`, /[\\ud83d\\ude00]/u); ',
  ],
  "a backslash before such a letter goes, but not one that is escaped": [
    'f("\\→", "\\\\→")',
    'f("\\u2192", "\\\\\\u2192")',
  ],
};

for (const [name, [text, expected]] of Object.entries(cases))
  test(name, () => assert.equal(withoutComments(text), expected));

test("what has no end is told", () => {
  for (const text of ['f("a', "`a", "`${a", "/* a"])
    assert.throws(() => withoutComments(text), /Unterminated|Unexpected/);
});

test("a file of the sources has as many lines after as before, and nothing more to take out", () => {
  const source = join(import.meta.dirname, "..");
  for (const file of globSync("{base,wire,stack,net,proxy}/**/*.ts", { cwd: source })) {
    const script = stripTypeScriptTypes(readFileSync(join(source, file), "utf8"), { mode: "strip" });
    const bare = withoutComments(script);
    assert.equal(bare.split("\n").length, script.split("\n").length, file);
    assert.equal(withoutComments(bare), bare, file);
  }
});
