import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { PAGE, withDiagram } from "./diagrams.ts";

test("the diagram of a stream's states is the table's (RFC 9113 §5.1): npm run diagrams", () => {
  const text = readFileSync(PAGE, "utf8");
  assert.equal(withDiagram(text), text);
  assert.match(text, /OPEN --> HALF_CLOSED_LOCAL : SEND_END/);
});

test("a page without its marks is refused, not overwritten", () => {
  assert.throws(() => withDiagram("# A page"), /the page lacks/);
});
