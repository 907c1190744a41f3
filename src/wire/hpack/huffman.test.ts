import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { huffmanDecode, huffmanDecodedBytesMax, huffmanEncode, huffmanEncodedBytes } from "./huffman.ts";

function encode(text: string): Buffer {
  const bytes = Buffer.alloc(huffmanEncodedBytes(text));
  assert.equal(huffmanEncode(text, bytes, 0), bytes.length);
  return bytes;
}

function decode(bytes: Uint8Array): string | null {
  const into = Buffer.alloc(huffmanDecodedBytesMax(bytes.length));
  const length = huffmanDecode(bytes, 0, bytes.length, into);
  return length < 0 ? null : into.toString("latin1", 0, length);
}

test("codes the examples (RFC 7541 §C.4.1)", () => {
  assert.equal(encode("www.example.com").toString("hex"), "f1e3c2e5f23a6ba0ab90f4ff");
  assert.equal(encode("no-cache").toString("hex"), "a8eb10649cbf");
  assert.equal(decode(Buffer.from("9d29ad171863c78f0b97c8e9ae82ae43d3", "hex")), "https://www.example.com");
});

test("decodes what it encodes, every byte (RFC 7541 §5.2)", () => {
  const every = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i));
  assert.equal(decode(encode(every)), every);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const text = Buffer.from(bytes).toString("latin1");
      assert.equal(decode(encode(text)), text);
    }),
  );
});

test("every accepted code is the canonical one (RFC 7541 §5.2)", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const text = decode(bytes);
      if (text !== null) assert.deepEqual(encode(text), Buffer.from(bytes));
    }),
    { numRuns: 2000 },
  );
});

test("refuses EOS, long padding and padding of zeros (RFC 7541 §5.2)", () => {
  assert.equal(decode(Buffer.from("ffffffff", "hex")), null, "EOS");
  assert.equal(decode(Buffer.from("1fff", "hex")), null, "a, then 11 bits of padding");
  assert.equal(decode(Buffer.from("ff", "hex")), null, "8 bits of padding");
  assert.equal(decode(Buffer.from("18", "hex")), null, "a, then zeros");
  assert.equal(decode(Buffer.from("1f", "hex")), "a");
  assert.equal(decode(Buffer.alloc(0)), "");
});
