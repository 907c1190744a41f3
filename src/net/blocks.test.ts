import assert from "node:assert/strict";
import { test } from "node:test";
import { copyOf, giveBlock, join, takeBlock } from "./blocks.ts";

test("blocks are used again, and no more than 16 wait for it", () => {
  const given = Array.from({ length: 40 }, () => takeBlock());
  assert.equal(new Set(given).size, 40, "nobody shares a block");
  for (const block of given) giveBlock(block);
  const taken = Array.from({ length: 40 }, () => takeBlock());
  assert.equal(taken.filter((block) => given.includes(block)).length, 16);
  assert.equal(new Set(taken).size, 40);
});

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
  const both = Buffer.alloc(12);
  join([a, b], both);
  assert.equal(both.toString(), "side by side");
});
