import assert from "node:assert/strict";
import { test } from "node:test";
import { claimText } from "./claim-fields.ts";

test("a claim is told where it can be read back for what it was, and cannot break out of its header", () => {
  const claims = {
    sub: "ada lovelace",
    n: 7,
    no: false,
    list: ["a", 1, true],
    comma: ["a,b", "c"],
    single: "a,b",
    lines: "ada\r\nx-admin: 1",
    tab: "a\tb",
    blank: " ada",
    none: "",
    umlaut: "Zoë",
    deep: { er: { x: "y" } },
    "https://example.com/roles": "admin",
    empty: [],
    mixed: ["a", {}],
    nothing: null,
    long: "x".repeat(5_000),
  };
  const told = Object.fromEntries(
    [...Object.keys(claims), "deep.er.x", "deep.er.y", "constructor", "list.0", "__proto__"].flatMap(
      (claim) => {
        const text = claimText(claims, claim);
        return text === null ? [] : [[claim, text]];
      },
    ),
  );
  assert.deepEqual(told, {
    sub: "ada lovelace",
    n: "7",
    no: "false",
    list: "a,1,true",
    single: "a,b",
    "https://example.com/roles": "admin",
    "deep.er.x": "y",
  });
});
