import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ByteWriter } from "./byte-writer.ts";

test("what was written is what is taken, in any rhythm, and never changes afterwards", () => {
  const step = fc.record({
    bytes: fc.integer({ min: 0, max: 300 }),
    isPassed: fc.boolean(),
    take: fc.constantFrom("no", "one", "list"),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const writer = new ByteWriter(512);
      const taken: Buffer[] = [];
      const copies: Buffer[] = [];
      let next = 0;
      let pending = 0;
      for (const { bytes, isPassed, take } of steps) {
        if (isPassed) {
          const own = Buffer.from(Array.from({ length: bytes + 2 }, (_, i) => next + i - 1));
          next += bytes;
          writer.pass(own, 1, bytes + 1);
        } else {
          writer.reserve(bytes);
          for (let i = 0; i < bytes; i++) writer.bytes[writer.at++] = next++;
        }
        pending += bytes;
        assert.equal(writer.pendingBytes, pending);
        if (take === "no") continue;
        const one = take === "one" ? writer.take() : null;
        const parts = take === "list" ? writer.takeAll() : one === null ? [] : [one];
        for (const part of parts) {
          taken.push(part);
          copies.push(Buffer.from(part));
        }
        pending = 0;
        assert.equal(writer.pendingBytes, 0);
      }
      const all = Buffer.concat(taken);
      assert.deepEqual(all, Buffer.concat(copies));
      for (let i = 0; i < all.length; i++) assert.equal(all[i], i & 0xff);
    }),
  );
});

test("a frame being written stays in one piece", () => {
  const writer = new ByteWriter(64);
  writer.reserve(4000);
  writer.at += 4000;
  const before = writer.reserve(50);
  writer.bytes.fill(7, writer.at, writer.at + 50);
  writer.at += 50;
  const moved = writer.reserve(5000, before);
  assert.deepEqual(writer.bytes.subarray(moved, writer.at), Buffer.alloc(50, 7));
  assert.equal(writer.take()!.length, 4050);
  assert.equal(writer.take(), null);
});

test("what is passed is not copied", () => {
  const writer = new ByteWriter(64);
  writer.reserve(3);
  writer.at += 3;
  const own = Buffer.alloc(20_000);
  writer.pass(own, 100, 20_000);
  writer.reserve(3);
  writer.at += 3;
  const [before, passed, after] = writer.takeAll();
  assert.deepEqual([before?.length, passed?.length, after?.length], [3, 19_900, 3]);
  assert.equal(passed?.buffer, own.buffer);
});
