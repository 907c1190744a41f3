import assert from "node:assert/strict";
import test from "node:test";
import { latin1 } from "../latin1.ts";
import { CHUNK_TAIL, encodeChunk, encodeChunkHead, encodeLastChunk } from "./writer.ts";
import { encodeRequestHead, encodeResponseHead, isMethod, isRequestTarget, reasonOf } from "./writer.ts";

const text = (bytes: Uint8Array): string => latin1(bytes, 0, bytes.length);
const request = {
  method: "GET",
  target: "/a",
  version: "1.1",
  fields: ["Host", "a", "x-B", "\xe9"],
} as const;

test("writes heads as they are given: case, order and bytes", () => {
  assert.equal(
    text(encodeRequestHead({ ...request, fields: [...request.fields] })),
    "GET /a HTTP/1.1\r\nHost: a\r\nx-B: \xe9\r\n\r\n",
  );
  assert.equal(
    text(encodeResponseHead({ version: "1.0", status: 404, reason: "Not Found", fields: [] })),
    "HTTP/1.0 404 Not Found\r\n\r\n",
  );
  assert.equal(
    text(encodeResponseHead({ version: "1.1", status: 299, reason: "", fields: [] })),
    "HTTP/1.1 299 \r\n\r\n",
  );
});

test("writes chunks (RFC 9112 §7.1)", () => {
  assert.equal(text(encodeChunkHead(255)), "ff\r\n");
  assert.equal(text(CHUNK_TAIL), "\r\n");
  assert.equal(text(encodeChunk(Uint8Array.from([65, 66, 67, 68]), 1, 3)), "2\r\nBC\r\n");
  assert.equal(text(encodeLastChunk(null)), "0\r\n\r\n");
  assert.equal(text(encodeLastChunk(["X-Sum", "1"])), "0\r\nX-Sum: 1\r\n\r\n");
  assert.throws(() => encodeChunkHead(0), /empty chunk/);
});

test("a line cannot be broken from inside (header injection)", () => {
  const bad = ["a\r\nX: y", "a\n", "a\r", "\r", "\n", "a\0", "a\r\n\r\nGET / HTTP/1.1"];
  for (const value of bad) {
    assert.throws(
      () => encodeRequestHead({ ...request, fields: ["X", value] }),
      /break its line/,
      JSON.stringify(value),
    );
    assert.throws(
      () => encodeRequestHead({ ...request, fields: [value, "x"] }),
      /break its line/,
      JSON.stringify(value),
    );
    assert.throws(() => encodeLastChunk(["X", value]), /break its line/);
    assert.throws(() => encodeRequestHead({ ...request, target: value, fields: [] }), /request line/);
    assert.throws(() => encodeRequestHead({ ...request, method: value, fields: [] }), /no token/);
    assert.throws(
      () => encodeResponseHead({ version: "1.1", status: 200, reason: value, fields: [] }),
      /status line/,
    );
  }
  // Beyond latin1 the low bits would be written: U+010D as CR, U+010A as LF.
  assert.throws(() => encodeRequestHead({ ...request, fields: ["X", "\u010d\u010aY: z"] }), /break its line/);
  assert.throws(() => encodeRequestHead({ ...request, target: "/a b", fields: [] }), /request line/);
  assert.throws(
    () => encodeResponseHead({ version: "1.1", status: 20, reason: "", fields: [] }),
    /status 20/,
  );
});

test("says what can be sent, for requests that came by HTTP/2", () => {
  for (const good of ["/", "*", "/a?b=%20", "/\xe9"]) assert.ok(isRequestTarget(good), good);
  for (const bad of ["", "/a b", "/a\t", "/\n", "/#a", "/\u0120"]) assert.ok(!isRequestTarget(bad), bad);
  for (const good of ["GET", "x-y"]) assert.ok(isMethod(good), good);
  for (const bad of ["", "G T", "G\n", "G(", "\xe9"]) assert.ok(!isMethod(bad), bad);
  assert.equal(reasonOf(200), "OK");
  assert.equal(reasonOf(299), "");
});
