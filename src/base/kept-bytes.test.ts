import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { KeptBytes } from "./kept-bytes.ts";

test("keeps every byte in order, whatever is taken from the front meanwhile", () => {
  const steps = fc.array(
    fc.oneof(
      fc.integer({ min: 1, max: 3_000 }).map((bytes) => ({ push: bytes })),
      fc.integer({ min: 1, max: 30 }).map((bytes) => ({ push: bytes })),
      fc.integer({ min: 1, max: 5_000 }).map((bytes) => ({ take: bytes })),
    ),
    { maxLength: 200 },
  );
  fc.assert(
    fc.property(steps, (all) => {
      const kept = new KeptBytes();
      const wanted: number[] = [];
      const got: number[] = [];
      let next = 0;
      for (const step of all) {
        if ("push" in step) {
          const bytes = Uint8Array.from({ length: step.push + 2 }, () => next++ & 255);
          kept.push(bytes, 1, bytes.length - 1);
          wanted.push(...bytes.subarray(1, bytes.length - 1));
          continue;
        }
        for (let left = step.take; left > 0 && !kept.isEmpty;) {
          const head = kept.chunks[0]!;
          const bytes = Math.min(left, head.length);
          got.push(...head.subarray(0, bytes));
          if (bytes === head.length) kept.chunks.shift();
          else kept.chunks[0] = head.subarray(bytes);
          left -= bytes;
        }
      }
      for (const chunk of kept.take()) got.push(...chunk);
      assert.deepEqual(got, wanted);
      assert.ok(kept.isEmpty);
    }),
    { numRuns: 200 },
  );
});

test("single bytes share memory and do not keep what they came in", () => {
  const kept = new KeptBytes();
  const big = new Uint8Array(65_536);
  for (let i = 0; i < 50_000; i++) kept.push(big, i, i + 1);
  assert.ok(kept.chunks.length < 20, `${kept.chunks.length} chunks`);
  assert.ok(kept.chunks.filter((chunk) => chunk.buffer === big.buffer).length <= 4);
});

test("pieces of memory that many share keep little of it, and none where it is for long", () => {
  for (const [viewsMax, sharedMax] of [
    [undefined, 4],
    [0, 0],
  ] as const) {
    for (const size of [1_100, 8_192]) {
      const kept = new KeptBytes(viewsMax);
      for (let i = 0; i < 100; i++) kept.push(new Uint8Array(65_536).fill(i), i, i + size);
      const buffers = new Set(kept.chunks.map(({ buffer }) => buffer));
      const shared = [...buffers].filter(({ byteLength }) => byteLength === 65_536);
      assert.ok(shared.length <= sharedMax, `${shared.length} of ${size} bytes`);
      const heldBytes = [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0);
      assert.ok(heldBytes - 65_536 * sharedMax <= 2 * 100 * size, `${heldBytes} for 100 times ${size}`);
      const got = kept.take().flatMap((chunk) => [...chunk]);
      assert.deepEqual(
        got,
        Array.from({ length: 100 * size }, (_, at) => Math.floor(at / size)),
      );
    }
  }
});

test("pieces that follow each other in memory are one", () => {
  const kept = new KeptBytes();
  const memory = Uint8Array.from({ length: 30 }, (_, at) => at);
  kept.push(memory, 2, 10);
  kept.push(memory, 10, 20);
  kept.push(memory.subarray(20, 25), 0, 5);
  kept.push(memory, 26, 30);
  assert.deepEqual(
    kept.take().map((chunk) => [...chunk].join()),
    [[...memory.subarray(2, 25)].join(), [...memory.subarray(26)].join()],
  );
});
