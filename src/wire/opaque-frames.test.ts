import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { latin1, latin1Bytes } from "./latin1.ts";
import { OPAQUE_PAYLOAD_BYTES_MAX, OpaqueFound, OpaqueReader } from "./opaque-frames.ts";
import { encodeOpaqueEnd, encodeOpaqueHead, encodeOpaqueReset } from "./opaque-frames.ts";

/** Everything found, with neighbouring payload pieces joined. */
function readAll(chunks: readonly Uint8Array[], ended = true): string[] {
  const reader = new OpaqueReader();
  const found: string[] = [];
  const drain = (): void => {
    for (let kind = reader.next(); kind !== OpaqueFound.NOTHING; kind = reader.next()) {
      if (kind === OpaqueFound.DATA) {
        const text = latin1(reader.bytes, reader.start, reader.stop);
        if (found.at(-1)?.startsWith("data ") === true) found[found.length - 1] += text;
        else found.push(`data ${text}`);
      } else if (kind === OpaqueFound.ERROR) {
        found.push(`error ${reader.error?.message}`);
        return;
      } else found.push(kind === OpaqueFound.END ? "end" : "reset");
    }
  };
  for (const chunk of chunks) {
    if (reader.error !== null) break;
    reader.feed(chunk);
    drain();
  }
  if (ended && reader.error === null) {
    reader.end();
    drain();
  }
  return found;
}

const join = (...parts: (string | Uint8Array)[]): Uint8Array =>
  new Uint8Array(Buffer.concat(parts.map((p) => (typeof p === "string" ? latin1Bytes(p) : p))));
const frame = (text: string): Uint8Array => join(encodeOpaqueHead(text.length), text);
const each = (bytes: Uint8Array): Uint8Array[] => Array.from(bytes, (_, i) => bytes.slice(i, i + 1));

test("reads payloads and the end mark, at any split", () => {
  const bytes = join(frame("hello "), frame("world"), encodeOpaqueEnd());
  assert.deepEqual(readAll([bytes]), ["data hello world", "end"]);
  assert.deepEqual(readAll(each(bytes)), ["data hello world", "end"]);
  fc.assert(
    fc.property(fc.nat(bytes.length), fc.nat(bytes.length), (a, b) => {
      const [low, high] = [Math.min(a, b), Math.max(a, b)];
      const chunks = [bytes.slice(0, low), bytes.slice(low, high), bytes.slice(high)];
      assert.deepEqual(readAll(chunks), ["data hello world", "end"]);
    }),
  );
});

test("a reset mark is a reset", () => {
  assert.deepEqual(readAll([join(frame("x"), encodeOpaqueReset())]), ["data x", "reset"]);
});

test("an end of the transport without a mark is an error", () => {
  assert.deepEqual(readAll([frame("x")]), ["data x", "error the stream was cut off"]);
  assert.deepEqual(readAll([join(frame("x"), "\0\0")]), ["data x", "error the stream was cut off"]);
  assert.deepEqual(readAll([join(encodeOpaqueHead(9), "x")]), ["data x", "error the stream was cut off"]);
  assert.deepEqual(readAll([]), ["error the stream was cut off"]);
});

test("bytes after a mark are an error", () => {
  assert.deepEqual(readAll([join(encodeOpaqueEnd(), "x")]), [
    "end",
    "error bytes follow the end of the stream",
  ]);
});

test("payload is passed on before its frame is whole, and an absurd length is refused", () => {
  assert.deepEqual(readAll([join(encodeOpaqueHead(OPAQUE_PAYLOAD_BYTES_MAX), "abc")], false), ["data abc"]);
  assert.deepEqual(readAll([Uint8Array.of(1, 0, 0, 1)]), [
    "error a frame of 16777217 bytes is over the limit",
  ]);
});

test("an empty payload cannot be written: it would be the end mark", () => {
  assert.throws(() => encodeOpaqueHead(0), /payload/);
  assert.throws(() => encodeOpaqueHead(OPAQUE_PAYLOAD_BYTES_MAX + 1), /payload/);
});

test("feeding without draining loses nothing", () => {
  const reader = new OpaqueReader();
  for (const byte of each(join(frame("ab"), encodeOpaqueEnd()))) reader.feed(byte);
  assert.equal(reader.next(), OpaqueFound.DATA);
  assert.equal(latin1(reader.bytes, reader.start, reader.stop), "ab");
  assert.equal(reader.next(), OpaqueFound.END);
  assert.equal(reader.isOver, true);
  assert.equal(reader.next(), OpaqueFound.NOTHING);
});

test("random bytes never throw and end in one state", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 20 }), { maxLength: 10 }), (chunks) => {
      const found = readAll(chunks);
      assert.ok(found.filter((f) => !f.startsWith("data ")).length <= 2);
      assert.deepEqual(readAll(each(join(...chunks))), found);
    }),
  );
});
