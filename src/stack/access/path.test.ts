import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { comparedPath, normalPath } from "./path.ts";

/** What it becomes; null: refused. */
const CASES: readonly (readonly [target: string, normal: string | null])[] = [
  // As it is.
  ["/", "/"],
  ["/orders/7", "/orders/7"],
  ["/a/", "/a/"],
  ["/a;x=1/b", "/a;x=1/b"],
  ["/.well-known/x", "/.well-known/x"],
  ["/a...", "/a..."],
  ["/caf\xc3\xa9", "/caf\xc3\xa9"],
  ["*", "*"],
  ["", ""],
  // The query stays.
  ["/a?x=/../%2F//", "/a?x=/../%2F//"],
  ["/%61?%61", "/a?%61"],
  // Escapes (RFC 3986 §6.2.2).
  ["/%61%2e%7E%2d%5f", "/a.~-_"],
  ["/%c3%a9%3a", "/%C3%A9%3A"],
  ["/%20", "/%20"],
  ["/100%25", "/100%25"],
  // Dots (RFC 3986 §5.2.4).
  ["/a/./b", "/a/b"],
  ["/a/../b", "/b"],
  ["/a/%2e%2E/b", "/b"],
  ["/a/.%2e/b", "/b"],
  ["/a/b/..", "/a/"],
  ["/a/.", "/a/"],
  ["/.", "/"],
  ["/public;x/../admin", "/admin"],
  // Slashes.
  ["//admin", "/admin"],
  ["/a///b//", "/a/b/"],
  // What servers read in several ways.
  ["/a%2Fb", null],
  ["/a%2fb", null],
  ["/a%5Cb", null],
  ["/a\\b", null],
  ["/a%00", null],
  ["/a%0Ab", null],
  ["/a%0d%0aHost:x", null],
  ["/a%7f", null],
  ["/a\x01", null],
  ["/a b", null],
  ["/%252Fb", null],
  ["/%25%32%46b", null],
  ["/%252e%252e/b", null],
  ["/a/..;/b", null],
  ["/a/..;x=1/b", null],
  ["/a/.;x/b", null],
  ["/a/..%3Bx/b", null],
  ["/a/%2e%2e;x/b", null],
  ["/a/..%20/b", null],
  ["/a/..%23/b", null],
  ["/a/..%3F/b", null],
  ["/..", null],
  ["/a/../..", null],
  ["/a/../../b", null],
  ["/a//../b", null],
  ["/a/.//../b", null],
  ["/a%", null],
  ["/a%4", null],
  ["/a%zz", null],
  ["/a%u002f", null],
  ["/a%c0%af", null],
  ["/a/%c0%ae%c0%ae/b", null],
  ["/a%e0%80%af", null],
  ["/a\xc0\xafb", null],
  ["/a#b", null],
  ["/a?b#c", null],
  ["admin", null],
  ["http://web/admin", null],
];

test("a path has one form, or is refused (RFC 3986 §6.2.2, §5.2.4)", () => {
  for (const [target, normal] of CASES) assert.equal(normalPath(target), normal, JSON.stringify(target));
});

test("what is compared has no escape but that of a question mark", () => {
  assert.equal(comparedPath("/a%3Ab%40c?x=%3A"), "/a:b@c");
  assert.equal(comparedPath("/what%3F"), "/what%3F");
  assert.equal(comparedPath("/%C3%A9"), "/\xc3\xa9");
  assert.equal(comparedPath("/100%25"), "/100%");
});

/** Of what tricks are made of. */
const piece = fc.constantFrom(
  ...[
    "/",
    "//",
    ".",
    "..",
    "a",
    "B",
    "%61",
    "%2e",
    "%2E",
    "%2f",
    "%5c",
    "\\",
    "%25",
    "%",
    "2",
    "f",
    "F",
    ";",
    "%3B",
    "%3b",
  ],
  ...[
    "%00",
    "%20",
    "%c0",
    "%ae",
    "%af",
    "\xc3\xa9",
    "%C3%A9",
    "%3f",
    "?",
    "#",
    "~",
    "%7e",
    "%e0",
    "%80",
    "%0a",
  ],
);
const target = fc.array(piece, { maxLength: 12 }).map((pieces) => `/${pieces.join("")}`);

test("the form of a form is the form", () => {
  fc.assert(
    fc.property(target, (given) => {
      const normal = normalPath(given);
      if (normal !== null) assert.equal(normalPath(normal), normal);
    }),
    { numRuns: 5_000 },
  );
});

/** How servers read a path: escapes first or dots first, once or twice, slashes merged or not. */
const READERS: readonly ((path: string) => string)[] = [
  (path) => merged(dotless(decoded(path))),
  (path) => decoded(merged(dotless(path))),
  (path) => dotless(merged(decoded(path))),
  (path) => merged(decoded(dotless(decoded(path)))),
  (path) => merged(dotless(decoded(path).replaceAll("\\", "/"))),
  (path) => merged(decoded(new URL(`http://h${path}`).pathname)),
];

function decoded(path: string): string {
  return path.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
function merged(path: string): string {
  return path.replaceAll(/\/+/g, "/");
}
/** Parameters of segments taken off first, as servlet containers do. */
function bare(path: string): string {
  return path.replaceAll(/;[^/]*/g, "");
}
function dotless(path: string): string {
  const out: string[] = [];
  const segments = path.split("/").slice(1);
  for (const [i, segment] of segments.entries()) {
    if (segment === "..") out.pop();
    else if (segment !== ".") out.push(segment);
    if ((segment === "." || segment === "..") && i === segments.length - 1) out.push("");
  }
  return `/${out.join("/")}`;
}

test("whoever reads the form that is forwarded reads what was compared", () => {
  let forms = 0;
  fc.assert(
    fc.property(target, (given) => {
      const normal = normalPath(given);
      if (normal === null) return;
      forms++;
      const path = normal.replace(/\?.*$/s, "");
      const compared = comparedPath(normal).replaceAll("%3F", "?");
      assert.equal(
        merged(dotless(bare(decoded(path)))),
        merged(bare(compared)),
        `without parameters: ${JSON.stringify(normal)}`,
      );
      for (const [i, reader] of READERS.entries()) {
        // URL writes bytes over ASCII as UTF-8 of their own.
        if (i === READERS.length - 1 && /[^\x20-\x7e]/.test(path)) continue;
        assert.equal(reader(path), compared, `reader ${i} of ${JSON.stringify(normal)}`);
      }
    }),
    { numRuns: 10_000 },
  );
  assert(forms > 500, "too few paths had a form");
});

test("a path without tricks is forwarded byte for byte", () => {
  const plain = fc
    .array(fc.stringMatching(/^[A-Za-z0-9_~:@!$&'()*+,;=-]{1,8}$/), { maxLength: 6 })
    .map((segments) => `/${segments.join("/")}`);
  fc.assert(fc.property(plain, (path) => assert.equal(normalPath(path), path)));
});
