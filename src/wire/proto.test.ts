import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ProtoReader, ProtoWriter } from "./proto.ts";

test("reads back what it writes", () => {
  fc.assert(
    fc.property(
      fc.string(),
      fc.uint8Array(),
      fc.nat(0xffff_ffff),
      fc.bigInt(1n, 2n ** 64n - 1n),
      (text, bytes, number, big) => {
        const inner = new ProtoWriter().text(1, text).uint(200_000, number);
        const reader = new ProtoReader(
          new ProtoWriter().message(1, inner).bytes(2, bytes).fixed32(3, number).fixed64(4, big).finish(),
        );
        const seen: unknown[] = [];
        while (reader.next()) {
          if (reader.field === 1) {
            const nested = reader.message();
            while (nested.next()) seen.push(nested.field === 1 ? nested.text() : nested.uint());
          } else if (reader.field === 2) seen.push([...reader.bytes()]);
          else seen.push(reader.field === 3 ? reader.fixed32() : reader.fixed64());
        }
        assert.equal(reader.error, null);
        const wanted = [text, number, [...bytes], number, big].filter(
          (value, i) =>
            !(i === 0 && value === "") && !(i === 1 && value === 0) && !(i === 2 && bytes.length === 0),
        );
        assert.deepEqual(seen, wanted);
      },
    ),
  );
});

test("random bytes never throw and never hang", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const reader = new ProtoReader(bytes);
      for (let fields = 0; reader.next(); fields++) {
        assert.ok(fields <= bytes.length);
        reader.bytes();
      }
    }),
  );
});

test("skips fields that are not asked for, and refuses what is cut off", () => {
  const bytes = new ProtoWriter()
    .text(1, "a")
    .uint(2, 300)
    .fixed32(3, 7)
    .fixed64(4, 9n)
    .text(5, "b")
    .finish();
  const reader = new ProtoReader(bytes);
  let text = "";
  while (reader.next()) if (reader.field === 5) text = reader.text();
  assert.equal(text, "b");
  for (let stop = 1; stop < bytes.length; stop++) {
    const cut = new ProtoReader(bytes.subarray(0, stop));
    while (cut.next());
    const isAtFieldEnd = [3, 6, 11, 20].includes(stop);
    assert.equal(cut.error === null, isAtFieldEnd, `cut at ${stop}`);
  }
});

test("refuses groups, field 0 and a number that never ends", () => {
  for (const bytes of [[0x0b], [0x00, 0x01], [0x08, ...Array<number>(11).fill(0xff)]]) {
    const reader = new ProtoReader(Uint8Array.from(bytes));
    while (reader.next());
    assert.notEqual(reader.error, null, String(bytes));
  }
});

test("a negative int64 is read in two's complement", () => {
  const reader = new ProtoReader(
    Uint8Array.from([0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
  );
  assert.ok(reader.next());
  assert.equal(reader.int(), -2);
});
