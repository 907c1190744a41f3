import assert from "node:assert/strict";
import test from "node:test";
import { latin1Bytes } from "../latin1.ts";
import { Event, Http1Reader } from "./reader.ts";
import { readAll, requestEvents, responseEvents } from "./testing.ts";

const GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_EVENTS = ["head GET / 1.1 none -1 keep-alive [Host: a]", "end"];

test("a request without content", () => {
  assert.deepEqual(requestEvents("GET /a?b HTTP/1.1\r\nHost: web\r\nX-Two:  b \t\r\nx-two:\r\n\r\n"), [
    "head GET /a?b 1.1 none -1 keep-alive [Host: web] [X-Two: b] [x-two: ]",
    "end",
  ]);
});

test("content of a known length, then the next request", () => {
  assert.deepEqual(requestEvents(`POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello${GET}`), [
    "head POST / 1.1 length 5 keep-alive [host: a] [content-length: 5]",
    "body hello",
    "end",
    ...GET_EVENTS,
  ]);
});

test("chunked content with trailers (RFC 9112 §7.1)", () => {
  const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
  assert.deepEqual(
    requestEvents(`${head}5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n${GET}`),
    [
      "head POST / 1.1 chunked -1 keep-alive [Host: a] [Transfer-Encoding: Chunked]",
      "body hello0123456789",
      "end [X-Sum: 1]",
      ...GET_EVENTS,
    ],
  );
});

test("persistence (RFC 9112 §9.3)", () => {
  const kept = (version: string, connection: string): string =>
    requestEvents(`GET / HTTP/${version}\r\nHost: a\r\n${connection}\r\n`)[0]?.includes("keep-alive") === true
      ? "kept"
      : "closed";
  assert.equal(kept("1.1", ""), "kept");
  assert.equal(kept("1.0", ""), "closed");
  assert.equal(kept("1.0", "Connection: Keep-Alive\r\n"), "kept");
  assert.match(
    requestEvents("GET / HTTP/1.1\r\nHost: a\r\nConnection: x,\tClose\r\n\r\n")[0] ?? "",
    / close /,
  );
  assert.match(
    requestEvents("GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n")[0] ?? "",
    / close /,
  );
});
