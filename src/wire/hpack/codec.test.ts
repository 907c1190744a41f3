import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Fields } from "#/base/fields.ts";
import { ByteWriter } from "./byte-writer.ts";
import { Decoded, HpackDecoder } from "./decoder.ts";
import { HpackEncoder } from "./encoder.ts";
import { BAD_VALUE, FieldKind } from "./field-kind.ts";

function pair(tableBytes = 4096): { encoder: HpackEncoder; decoder: HpackDecoder } {
  return {
    encoder: new HpackEncoder({ tableBytesMax: tableBytes }),
    decoder: new HpackDecoder({ tableBytesMax: tableBytes, listBytesMax: 65536 }),
  };
}

function encode(encoder: HpackEncoder, fields: string[]): Buffer {
  const out = new ByteWriter();
  encoder.encode(fields, out, out.at);
  return out.take() ?? Buffer.alloc(0);
}

function decode(decoder: HpackDecoder, hex: string): number {
  const block = Buffer.from(hex, "hex");
  return decoder.decode(block, 0, block.length);
}

const name = fc.constantFrom(
  ":path",
  ":status",
  "date",
  "cookie",
  "x-a",
  "x-b",
  "authorization",
  "content-length",
  "te",
);
const value = fc.oneof(
  fc.constantFrom("", "200", "/", "same", "trailers", "a longer value that fills the table"),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
  fc.integer({ min: 0, max: 3000 }).map((length) => "z".repeat(length)),
);
const list = fc.array(fc.tuple(name, value), { maxLength: 12 }).map((pairs) => pairs.flat());

test("decoding undoes encoding, whatever the table sizes in between (RFC 7541 §4.2)", () => {
  const step = fc.oneof(
    list.map((fields) => ({ fields })),
    fc.constantFrom(0, 40, 100, 1000, 4096).map((limitBytes) => ({ limitBytes })),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.boolean(), (steps, huffman) => {
      const encoder = new HpackEncoder({ tableBytesMax: 4096, huffman });
      const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 1 << 20 });
      for (const each of steps) {
        if ("limitBytes" in each) {
          encoder.setLimit(each.limitBytes);
          decoder.setLimit(each.limitBytes);
          continue;
        }
        const block = encode(encoder, each.fields);
        assert.equal(decoder.decode(block, 0, block.length), Decoded.OK);
        assert.deepEqual([...decoder.fields], each.fields);
        assert.equal(decoder.tableBytes, encoder.tableBytes);
      }
    }),
  );
});

test("never throws and never exceeds its bounds, whatever the bytes (RFC 7541 §7.3)", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 120 }), { maxLength: 8 }), (blocks) => {
      const decoder = new HpackDecoder({ tableBytesMax: 256, listBytesMax: 500 });
      for (const block of blocks) {
        const result = decoder.decode(Buffer.from(block), 0, block.length);
        assert.ok(decoder.tableBytes <= 256);
        let listBytes = 0;
        for (let i = 0; i < decoder.fields.length; i += 2) {
          listBytes += decoder.fields[i]!.length + decoder.fields[i + 1]!.length + 32;
        }
        assert.ok(listBytes <= 500);
        if (result === Decoded.BROKEN) return;
      }
    }),
    { numRuns: 2000 },
  );
});

test("a repeated block becomes one byte a field", () => {
  const { encoder } = pair();
  const fields = [":method", "GET", ":authority", "catalogue.shop", ":path", "/items?x=1", "x-own", "value"];
  encode(encoder, fields);
  encode(encoder, fields);
  assert.equal(encode(encoder, fields).length, 4);
});

test("of values that never come back, a few enter the table", () => {
  const { encoder } = pair();
  for (let i = 10; i < 99; i++) {
    const block = encode(encoder, ["x-unique-id", `id-${i}`, ":path", `/${i}`]);
    if (i >= 14) assert.equal(block.length, 2 + 1 + 5 + 1 + 1 + 3);
  }
  assert.equal(encoder.tableBytes, 4 * (11 + 5 + 32) + 4 * (5 + 3 + 32));
});

test("a name whose values come back gets each into the table at once", () => {
  const { encoder } = pair();
  for (let i = 10; i < 30; i++) {
    encode(encoder, [":authority", `host-${i}`]);
    // Between two other blocks, so that it is looked up in the table.
    encode(encoder, [":authority", "other"]);
    assert.equal(encode(encoder, [":authority", `host-${i}`]).length, 1);
  }
});

test("what it remembers of values is bounded, and forgetting is no error", () => {
  const { encoder, decoder } = pair();
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 100; i++) {
      for (let j = 0; j < 8; j++) {
        const fields = [`x-${i}`, `${j}`.repeat(1000)];
        const block = encode(encoder, fields);
        assert.equal(decoder.decode(block, 0, block.length), Decoded.OK);
        assert.deepEqual([...decoder.fields], fields);
        assert.equal(decoder.tableBytes, encoder.tableBytes);
      }
    }
  }
});

test("secrets are never indexed (RFC 7541 §7.1.3)", () => {
  for (const [field, secret] of [
    ["authorization", "Bearer 0123456789"],
    ["proxy-authorization", "Basic x"],
    ["set-cookie", "session=0123456789abcdef"],
    ["cookie", "s=1"],
  ] as const) {
    const { encoder } = pair();
    for (let i = 0; i < 4; i++) {
      const block = encode(encoder, [field, secret]);
      assert.equal(block[0]! & 0xf0, 0x10, `${field} must be a never-indexed literal`);
    }
    assert.equal(encoder.tableBytes, 0);
  }
});

test("smaller and larger again is said as two updates (RFC 7541 §4.2)", () => {
  const { encoder } = pair();
  encoder.setLimit(100);
  encoder.setLimit(2000);
  assert.equal(encode(encoder, [":method", "GET"]).toString("hex"), "3f45" + "3fb10f" + "82");
});

test("refuses what is no valid block", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["80", "index 0 (RFC 7541 §6.1)"],
    ["be", "an empty table's first entry (RFC 7541 §2.3.3)"],
    ["ff80808080808080", "an endless integer (RFC 7541 §5.1)"],
    ["ff", "an integer cut short (RFC 7541 §5.1)"],
    ["4005616263", "a string cut short (RFC 7541 §5.2)"],
    ["400161", "a value that is missing"],
    ["823f00", "a size update after a field (RFC 7541 §4.2)"],
    ["3fe21f", "a size above the limit (RFC 7541 §6.3)"],
    ["7f8080808010", "an index beyond everything"],
  ];
  for (const [hex, what] of cases) {
    const { decoder } = pair();
    assert.equal(decode(decoder, hex), Decoded.BROKEN, what);
  }
});

test("after a lower limit the next block must begin with an update (RFC 7541 §4.2)", () => {
  const { decoder } = pair();
  decoder.setLimit(0);
  assert.equal(decode(decoder, "82"), Decoded.BROKEN);
  const { decoder: other } = pair();
  other.setLimit(0);
  assert.equal(decode(other, "2082"), Decoded.OK);
});

test("a list over the limit keeps the table in step (RFC 9113 §10.5.1)", () => {
  const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 80 });
  // x: 1, then y: 2, z: 3 with indexing: 34 counted bytes each, the third is over 80.
  assert.equal(decode(decoder, "400178013140017901324001" + "7a0133"), Decoded.TOO_LARGE);
  assert.deepEqual(decoder.fields, ["x", "1", "y", "2"]);
  assert.equal(decode(decoder, "be"), Decoded.OK);
  assert.deepEqual(decoder.fields, ["z", "3"]);
});

test("kinds follow names and values into the table (RFC 9113 §8.2.1)", () => {
  const { decoder } = pair();
  const literal = (text: string): string =>
    Buffer.from(String.fromCharCode(text.length) + text).toString("hex");
  const indexed = (field: string, text: string): string => "40" + literal(field) + literal(text);
  assert.equal(
    decode(
      decoder,
      indexed("Upper", "v") + indexed("x", "a\nb") + indexed("connection", "close") + indexed(":new", "v"),
    ),
    Decoded.OK,
  );
  const expected = [FieldKind.BAD_NAME, BAD_VALUE, FieldKind.CONNECTION_SPECIFIC, FieldKind.UNKNOWN_PSEUDO];
  assert.deepEqual([...decoder.kinds.subarray(0, 4)], expected);
  assert.equal(decode(decoder, "c1c0bfbe"), Decoded.OK);
  assert.deepEqual([...decoder.kinds.subarray(0, 4)], expected);
  // The name of an entry with a bad value, with a good value.
  assert.equal(decode(decoder, "0f31" + literal("fine")), Decoded.OK);
  assert.deepEqual(decoder.fields, ["x", "fine"]);
  assert.equal(decoder.kinds[0], FieldKind.ORDINARY);
});

test("an upper-case name is our bug, and said so (RFC 9113 §8.2.1)", () => {
  const { encoder } = pair();
  assert.throws(() => encode(encoder, ["Accept", "*/*"]), /not one for HTTP\/2/);
});

test("a remembered block is forgotten when what it refers to changes (RFC 7541 §2.3.3)", () => {
  const { decoder } = pair();
  // x: 1 enters, then 62 alone, until it is remembered.
  assert.equal(decode(decoder, "4001780131"), Decoded.OK);
  let before: Fields = [];
  for (let i = 0; i < 4; i++) {
    assert.equal(decode(decoder, "be"), Decoded.OK);
    assert.deepEqual(decoder.fields, ["x", "1"]);
    assert.equal(decoder.isRepeat, i >= 2);
    assert.equal(decoder.fields === before, i >= 2, "the very same list");
    before = decoder.fields;
  }
  assert.equal(decode(decoder, "4001790132"), Decoded.OK);
  assert.equal(decode(decoder, "be"), Decoded.OK);
  assert.deepEqual(decoder.fields, ["y", "2"]);
  for (let i = 0; i < 3; i++) assert.equal(decode(decoder, "be"), Decoded.OK);
  assert.equal(decoder.isRepeat, true);
  // A size update drops the entries: the same block is an error now.
  assert.equal(decode(decoder, "203fe11f"), Decoded.OK);
  assert.equal(decode(decoder, "be"), Decoded.BROKEN);
});

test("a remembered block is forgotten when an entry too large for the table empties it (RFC 7541 §4.4)", () => {
  const { decoder } = pair();
  assert.equal(decode(decoder, "4001780131"), Decoded.OK);
  for (let i = 0; i < 3; i++) assert.equal(decode(decoder, "be"), Decoded.OK);
  assert.equal(decoder.isRepeat, true);
  // y: 4,096 letters, which with the name and what an entry costs is more than the table.
  assert.equal(decode(decoder, `4001797f811f${"61".repeat(4_096)}`), Decoded.OK);
  assert.equal(decoder.tableBytes, 0);
  assert.equal(decode(decoder, "be"), Decoded.BROKEN);
});

test("what came as never indexed goes on so, whatever the table holds (RFC 7541 §6.2.3)", () => {
  const encoder = new HpackEncoder({ tableBytesMax: 4096 });
  const decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 65536 });
  const fields: Fields = ["x-pin", "1234", "x-plain", "same"];
  const send = (): Fields => {
    const out = new ByteWriter();
    encoder.encode(fields, out, 0);
    const block = Buffer.from(out.take()!);
    assert.equal(decoder.decode(block, 0, block.length), Decoded.OK);
    assert.deepEqual([...decoder.fields], [...fields]);
    return decoder.fields;
  };
  // Both are in the table by now.
  for (let i = 0; i < 3; i++) assert.equal(send().neverIndexed, undefined);
  fields.neverIndexed = new Set(["x-pin"]);
  for (let i = 0; i < 3; i++) assert.deepEqual(send().neverIndexed, new Set(["x-pin"]));
});
