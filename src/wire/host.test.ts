import assert from "node:assert/strict";
import { test } from "node:test";
import { isHost } from "./host.ts";

test("a host with an optional port, and nothing that some would read as more (RFC 9110 §4.2.4, §7.2)", () => {
  const good = [
    "",
    "a",
    "a.b",
    "a_b-c",
    "a:80",
    "a:",
    "10.0.0.1:65535",
    "[::1]",
    "[::1]:80",
    "[fe80::1%25eth0]",
    "%41",
  ];
  const bad = [
    ...[
      "u@a",
      "u:p@a",
      "a/b",
      "a\\b",
      "a?b",
      "a#b",
      "a,b",
      "a b",
      " a",
      "a ",
      "a\tb",
      "a\0",
      "\u00e4",
      "\u2028",
    ],
    ...[
      "a:b",
      "a:80:80",
      "a:65536",
      "a:000080",
      "a:-1",
      ":80",
      "[::1",
      "::1",
      "[]",
      "[::1]a",
      "a[",
      "[a]b:80",
    ],
  ];
  assert.deepEqual(
    good.filter((value) => !isHost(value)),
    [],
  );
  assert.deepEqual(
    bad.filter((value) => isHost(value)),
    [],
  );
});
