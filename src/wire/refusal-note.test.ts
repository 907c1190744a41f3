import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeRefusalNote, readRefusalNote } from "./refusal-note.ts";

const NOTE = { reason: "expired", detail: 'it ended at 2026-01-01 (certificate of "web")' };

test("what is written is read", () => {
  assert.deepEqual(readRefusalNote(encodeRefusalNote(NOTE)), NOTE);
});

test("HTTP/2 does not begin like a note", () => {
  // RFC 9113 §3.4: a server's first frame is SETTINGS; as one of HTTP/2 the note's would be 16 MiB long.
  assert.ok((0xff << 16) + (0x50 << 8) + 0x52 > 16_384);
  assert.equal(readRefusalNote(Uint8Array.of(0, 0, 0, 4, 0, 0, 0, 0, 0)), null);
});

test("control characters are left out, and no bytes throw", () => {
  const note = readRefusalNote(encodeRefusalNote({ reason: "a\n", detail: "\x1b[2J\0é" }));
  assert.deepEqual(note, { reason: "a?", detail: "?[2J??" });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (rest) => {
      const read = readRefusalNote(Uint8Array.of(0xff, 0x50, 0x52, 0x31, ...rest));
      assert.ok(read !== null && /^[ -~]{0,40}$/.test(read.reason) && /^[ -~]{0,400}$/.test(read.detail));
    }),
  );
  for (let length = 0; length < 60; length++) readRefusalNote(encodeRefusalNote(NOTE).subarray(0, length));
});
