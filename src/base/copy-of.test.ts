import assert from "node:assert/strict";
import { test } from "node:test";
import { copyOf } from "./copy-of.ts";

test("copies stay as they are, whatever is copied after them, and small ones lie side by side", () => {
  const sizes = [1, 5, 1024, 1025, 8192, 8193, 100, 70_000, 16_000, 8000];
  const wanted: Buffer[] = [];
  const copies: Uint8Array[] = [];
  for (let round = 0; round < 30; round++)
    for (const size of sizes) {
      const bytes = Buffer.alloc(size, round * 10 + sizes.indexOf(size));
      copies.push(copyOf(bytes));
      wanted.push(Buffer.from(bytes));
      bytes.fill(0xee);
    }
  copies.forEach((copy, at) => assert.ok(wanted[at]!.equals(copy)));
  const a = copyOf(Buffer.from("side by "));
  const b = copyOf(Buffer.from("side"));
  assert.equal(a.buffer, b.buffer);
  assert.equal(a.byteOffset + a.length, b.byteOffset);
  assert.equal(Buffer.from(a.buffer, a.byteOffset, a.length + b.length).toString(), "side by side");
  assert.equal(Buffer.from(copyOf(Buffer.from("a part of it"), 2, 6)).toString(), "part");
});
