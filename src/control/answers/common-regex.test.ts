import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { commonRegex, literalPrefix } from "./common-regex.ts";

test("what both dialects read alike is sent, anchored as a whole", () => {
  for (const pattern of [
    "/api/v[0-9]+/.*",
    "a|ab",
    "(?:a|b)*",
    "a{2,3}?",
    "[^/]+",
    "[a-z-]",
    "[(]",
    "\\d+\\.\\d",
    "a&&b",
  ])
    assert.equal(commonRegex(pattern), `^(?:${pattern})$`);
  assert.equal(commonRegex("a\\/b"), "^(?:a/b)$");
});

test("what one of them refuses or reads otherwise is not sent", () => {
  for (const pattern of [
    "[a&&b]",
    "[a--b]",
    "[[:alpha:]]",
    "[]a]",
    "(?i)a",
    "(?P<n>a)",
    "\\pN",
    "\\Qa\\E",
    "\\C",
    "(a",
    "a)",
    "*a",
    "(*a)",
    "a|*b",
    "a**",
    "a{",
    "x{1001}",
    "(?=a)",
    "é",
    // Too large for ours, where it never holds.
    "(?:x{99}){99}",
  ])
    assert.equal(commonRegex(pattern), null, pattern);
});

test("no pattern takes long to look at", () => {
  for (const part of ["(?:", "((", "[a-", "a?", "(?:a?", "\\d{9"])
    assert.equal(commonRegex(`${part.repeat(300).slice(0, 1000)}é`), null);
});

test("every match begins with the literal prefix", () => {
  const parts = fc.constantFrom("/", "a", "b*", "c+", "d?", "e{0,1}", "(f)", "[gh]", ".", "-i");
  fc.assert(
    fc.property(
      fc.array(parts, { maxLength: 5 }).map((all) => all.join("")),
      fc.stringMatching(/^[/a-i-]{0,6}$/),
      (pattern, text) => {
        if (new RegExp(`^(?:${pattern})$`).test(text))
          assert.ok(text.startsWith(literalPrefix(pattern)), pattern);
      },
    ),
    { numRuns: 2_000 },
  );
});
