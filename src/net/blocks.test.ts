import assert from "node:assert/strict";
import { test } from "node:test";
import { giveBlock, join, takeBlock } from "./blocks.ts";

test("blocks are used again, and no more than 16 wait for it", () => {
  const given = Array.from({ length: 40 }, () => takeBlock());
  assert.equal(new Set(given).size, 40, "nobody shares a block");
  for (const block of given) giveBlock(block);
  const taken = Array.from({ length: 40 }, () => takeBlock());
  assert.equal(taken.filter((block) => given.includes(block)).length, 16);
  assert.equal(new Set(taken).size, 40);
});

test("pieces are joined in their order", () => {
  const both = Buffer.alloc(12);
  join([Buffer.from("side by "), Buffer.from("side")], both);
  assert.equal(both.toString(), "side by side");
});
