import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { compilePattern } from "./pattern.ts";
import { latin1OfUtf8 } from "./text.ts";

function matches(source: string, text: string): boolean {
  const compiled = compilePattern(source);
  assert(compiled.kind === "pattern", compiled.kind === "problem" ? compiled.problem : "");
  return compiled.pattern.matches(latin1OfUtf8(text));
}

/** Each: pattern, texts that match as a whole, texts that do not. */
const CASES: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ["", [""], ["a"]],
  ["/v[0-9]+/.*", ["/v1/", "/v22/x/y"], ["/v/", "x/v1/", "/v1"]],
  ["a|bc|", ["a", "bc", ""], ["b", "abc"]],
  ["^/a$", ["/a"], ["/a\n", "/ab", "x/a"]],
  ["(a+)+b", ["aab"], ["aa", "b"]],
  ["a{2}", ["aa"], ["a", "aaa"]],
  ["a{2,}", ["aa", "aaaa"], ["a"]],
  ["a{1,3}?b", ["ab", "aaab"], ["b", "aaaab"]],
  ["a{0}", [""], ["a"]],
  ["a{,2}{x}", ["a{,2}{x}"], ["aa"]],
  [".", ["a", "é", "日", "😀"], ["\n", "", "ab"]],
  ["(?s).", ["\n"], [""]],
  ["(?i)k-straße", ["K-STRAßE", "K-straße"], ["k-strasse"]],
  ["(?i:a)b", ["ab", "Ab"], ["aB"]],
  ["(?i)[h-k]s", ["\u212a\u017f", "HS"], ["gs"]],
  ["(?i)éÄßi", ["ÉäẞI", "éäßi"], ["éäßı", "eäßi"]],
  ["(?i)a(?-i)b", ["Ab"], ["AB"]],
  ["a(?i)b|c", ["aB", "C", "c"], ["AB"]],
  ["(?i)[^a-c]", ["d"], ["A", "b"]],
  ["[]a]", ["]", "a"], ["[]"]],
  ["[^]a]", ["b"], ["]"]],
  ["[a-]", ["a", "-"], ["b"]],
  ["[\\]\\-x]+", ["]-x"], ["\\"]],
  ["[[:alpha:]_]+[[:^digit:]]", ["ab_!"], ["a1"]],
  ["[\\d\\s]+", ["1 2\t"], ["a"]],
  ["\\w+\\W\\S\\D", ["ab !x"], ["ab !1"]],
  ["\\pL\\p{Lu}\\p{Greek}\\PL\\p{^Lu}", ["éÉα1a"], ["1Éα1a", "éÉa1a", "éÉα1A"]],
  ["\\Qa.b*\\E+", ["a.b*", "a.b**"], ["axb*"]],
  ["\\x41\\x{1F600}\\101\\.\\t", ["A😀A.\t"], ["A😀Ax\t"]],
  ["(?P<year>\\d{4})-(?<month>\\d\\d)", ["2026-11"], ["202-11"]],
  ["\\bfoo\\b.*", ["foo", "foo bar"], ["foobar", "xfoo"]],
  [".*\\Bo", ["foo"], ["f o", "o"]],
  ["(?m)^a$\\n^b$", ["a\nb"], ["a b"]],
  ["\\Aab\\z", ["ab"], ["ab\n"]],
  ["a$b", [], ["ab", "a"]],
  ["(?:)*", [""], ["a"]],
  ["((a*)*)*", ["", "aaa"], ["b"]],
  ["\\**", ["", "***"], ["a"]],
  ["größe", ["größe"], ["grösse"]],
  ["[à-ü]", ["é"], ["e", "Ã"]],
];

for (const [pattern, yes, no] of CASES) {
  test(`/${pattern}/ matches whole texts as RE2 does`, () => {
    for (const text of yes) assert.equal(matches(pattern, text), true, JSON.stringify(text));
    for (const text of no) assert.equal(matches(pattern, text), false, JSON.stringify(text));
  });
}

/** Each: pattern, what is said of it. */
const PROBLEMS: readonly (readonly [string, RegExp])[] = [
  ["(a", /missing \), at character 3$/],
  ["a)", /unexpected \), at character 2$/],
  ["*a", /nothing to repeat before \*, at character 1$/],
  ["a**", /a repetition of a repetition/],
  ["a+{2}", /a repetition of a repetition/],
  ["(?=a)b", /look-around takes more than linear time/],
  ["(?!a)b", /look-around/],
  ["(?<=a)b", /look-around/],
  ["(a)\\1", /a back-reference takes more than linear time/],
  ["\\y", /\\y is not known here/],
  ["\\C", /\\C is not known here/],
  ["\\", /a backslash at the end/],
  ["[a", /missing \]/],
  ["[b-a]", /a range ends before it begins/],
  ["[[:nobody:]]", /no class of characters is called nobody/],
  ["\\p{Nobody}", /no class of characters is called Nobody/],
  ["a{1001}", /a count is larger than 1000/],
  ["a{3,2}", /a count ends before it begins/],
  ["((a{100}){100}){100}", /too large: with its counts written out it has more than 2000 steps/],
  ["(?P<>a)", /bad name of a group/],
  ["(".repeat(200) + ")".repeat(200), /nested deeper than 100/],
  ["a".repeat(5_000), /more than 4096 characters/],
  ["\\x{110000}", /bad \\x/],
];

for (const [pattern, what] of PROBLEMS) {
  test(`/${pattern.slice(0, 30)}/ is refused, with the reason`, () => {
    const compiled = compilePattern(pattern);
    assert(compiled.kind === "problem");
    assert.match(compiled.problem, what);
  });
}

// What JavaScript's expressions mean alike, of random shapes, against those of the runtime.
const atoms = fc.constantFrom("a", "b", "é", ".", "[ab]", "[^a]", "\\w", "\\b", "\\B", "^", "$", "(?:)");
const patterns = fc.letrec<{ node: string }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 4 },
    atoms,
    fc.tuple(tie("node"), tie("node")).map(([a, b]) => a + b),
    fc.tuple(tie("node"), tie("node")).map(([a, b]) => `(?:${a}|${b})`),
    fc
      .tuple(tie("node"), fc.constantFrom("*", "+", "?", "{2}", "{1,2}", "{0,1}", "{2,}", "*?"))
      .map(([a, count]) => `(?:${a})${count}`),
  ),
})).node;
const texts = fc.array(fc.constantFrom("a", "b", "é", "-"), { maxLength: 7 }).map((all) => all.join(""));

test("agrees with the runtime's own expressions, on any pattern and text", () => {
  fc.assert(
    fc.property(patterns, fc.array(texts, { minLength: 1, maxLength: 8 }), (pattern, all) => {
      const oracle = new RegExp(`^(?:${pattern})$`, "u");
      for (const text of all)
        assert.equal(matches(pattern, text), oracle.test(text), `${pattern} on ${text}`);
    }),
    { numRuns: 2_000 },
  );
});

test("classes of Unicode hold for the characters that the runtime says", () => {
  const odd = [
    0xfffd, 0xffff, 0x1f600, 0x2fa1d, 0x40000, 0x4fffe, 0xe0001, 0xf0000, 0xffffd, 0xfffff, 0x10ffff,
  ];
  const codes = fc.oneof(fc.constantFrom(...odd), fc.nat({ max: 0x2ffff }), fc.nat({ max: 0x10ffff }));
  const names = fc.constantFrom("L", "Lu", "N", "P", "Z", "C", "Cn", "Co", "So", "Han", "Latin", "Greek");
  fc.assert(
    fc.property(names, codes, (name, code) => {
      if (code >= 0xd800 && code <= 0xdfff) return;
      const char = String.fromCodePoint(code);
      const asked = name.length <= 2 ? `\\p{${name}}` : `\\p{Script=${name}}`;
      assert.equal(
        matches(`\\p{${name}}`, char),
        new RegExp(`^${asked}$`, "u").test(char),
        `${name} ${code}`,
      );
    }),
    { numRuns: 1_000 },
  );
});

test("never throws, whatever it is given", () => {
  const odd = fc.array(
    fc.constantFrom(..."()[]{}|*+?^$.\\-:,<>!=PQExpbdw019aé\u0000".split(""), "(?", "[^", "\\p{", "😀"),
    { maxLength: 20 },
  );
  fc.assert(
    fc.property(odd, texts, (all, text) => {
      const compiled = compilePattern(all.join(""));
      if (compiled.kind === "pattern") compiled.pattern.matches(text);
    }),
    { numRuns: 5_000 },
  );
});

test("a pattern that makes others try for ever costs its length times the text's, with more states than are kept", () => {
  // With backtracking, 2^40 attempts.
  assert.equal(matches("(a+)+b", "a".repeat(10_000)), false);
  assert.equal(matches("(a?){40}a{40}", "a".repeat(40)), true);
  // Each text of 12 letters is a state of its own: 2^12 of them times the table's width is past the bound.
  const compiled = compilePattern("(?:a|b)*a(?:a|b){12}[c-fx-z0-9]?");
  assert(compiled.kind === "pattern");
  let state = 1;
  let text = "";
  for (let i = 0; i < 20_000; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    text += (state >> 16) % 2 === 0 ? "a" : "b";
  }
  for (let stop = 13; stop < 40; stop++) {
    const part = text.slice(0, 20_000 - stop);
    assert.equal(compiled.pattern.matches(part), part.at(-13) === "a");
  }
});
