import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { detectHttp, isHttp2ServerPreface, type HttpDetection } from "./detect.ts";
import { latin1Bytes } from "./latin1.ts";

const detect = (text: string): HttpDetection => detectHttp(latin1Bytes(text));

/** Each row: what the client sends, the answer, and at how many bytes it is given. */
const TABLE: readonly [sent: string, answer: HttpDetection, atBytes: number][] = [
  ["GET / HTTP/1.1\r\n", "http1", 5],
  ["POST /a?b HTTP/1.0\r\n", "http1", 6],
  ["OPTIONS * HTTP/1.1\r\n", "http1", 15],
  ["GET http://web/ HTTP/1.1\r\n", "http1", 21],
  ["CONNECT web:443 HTTP/1.1\r\n", "http1", 21],
  ["PURGE /x HTTP/1.1\r\n", "http1", 14],
  ["m-search x HTTP/1.1\r\n", "http1", 16],
  ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2", 12],
  ["PRI * HTTP/1.1\r\n", "http1", 12],
  ["PRINT x\r\n", "opaque", 8],
  ["SSH-2.0-OpenSSH_9.2\r\n", "opaque", 4],
  ["EHLO x\r\n", "opaque", 7],
  ["EHLO mail.example.com\r\n", "opaque", 22],
  ["*1\r\n$4\r\nPING\r\n", "opaque", 3],
  ["PING\r\n", "opaque", 5],
  ["a001 LOGIN user HTTP\r\n", "opaque", 12],
  ["OPTIONS rtsp://cam/ RTSP/1.0\r\n", "opaque", 21],
  ["REGISTER sip:a@b SIP/2.0\r\n", "opaque", 18],
  ['CONNECT {"verbose":false}\r\n', "opaque", 26],
  ["CONNECT\naccept-version:1.2\n\n\0", "opaque", 8],
  ["AMQP\0\0\x09\x01", "opaque", 5],
  ["\0\0\0\x08\x04\xd2\x16\x2f", "opaque", 1],
  ["\x16\x03\x01", "opaque", 1],
  ["\x10\x0c\0\x04MQTT", "opaque", 1],
  [" GET / HTTP/1.1\r\n", "opaque", 1],
];

for (const [sent, answer, atBytes] of TABLE) {
  test(`${JSON.stringify(sent)} is ${answer} at byte ${atBytes}`, () => {
    const bytes = latin1Bytes(sent);
    for (let stop = 0; stop < atBytes; stop++)
      assert.equal(detectHttp(bytes, 0, stop), "more", `${stop} bytes`);
    for (let stop = atBytes; stop <= bytes.length; stop++) assert.equal(detectHttp(bytes, 0, stop), answer);
  });
}

test("takes for HTTP/1 whatever a lenient server may take for a request (RFC 9112 §2.2, §3)", () => {
  for (const text of [
    "\r\nGET / HTTP/1.1\r\n",
    "\n\n\nGET / HTTP/1.1\n",
    "GET\t/ HTTP/1.1\r\n",
    "GET  /a",
    "GET /admin\r\n",
  ]) {
    assert.equal(detect(text), "http1", JSON.stringify(text));
  }
  assert.equal(detect("PURGE\t/x \x0b HTTP/1.1\n"), "http1");
  assert.equal(detect("\r\n"), "more");
});

test("no bytes and a first segment of one byte wait", () => {
  for (const text of ["", "G", "P", "PRI ", "PRI * HTTP/", "X"]) assert.equal(detect(text), "more", text);
});

test("a line that never ends is decided at its bound", () => {
  assert.equal(detect(`PURGE /${"a".repeat(9000)}`), "http1");
  assert.equal(detect(`PURGE ${"a".repeat(9000)}`), "opaque");
  assert.equal(detect("\r\n".repeat(5000)), "opaque");
  assert.equal(detect("A".repeat(33)), "opaque");
});

test("an answer never changes when more bytes come", () => {
  const word = fc.constantFrom(
    "GET",
    "PRI",
    " ",
    "/",
    "*",
    "\r\n",
    "\n",
    "HTTP/",
    "HTTP/2.0",
    "1.1",
    "SSH-",
    "x",
    "\0",
    "\xff",
    "\t",
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 12 }), (words) => {
      const bytes = latin1Bytes(words.join(""));
      let before: HttpDetection = "more";
      for (let stop = 0; stop <= bytes.length; stop++) {
        const now = detectHttp(bytes, 0, stop);
        if (before !== "more") assert.equal(now, before);
        before = now;
      }
    }),
  );
});

test("a server's SETTINGS frame is told at each byte (RFC 9113 §3.4)", () => {
  const settings = Uint8Array.of(0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0);
  for (let stop = 0; stop < 9; stop++) assert.equal(isHttp2ServerPreface(settings, 0, stop), "more");
  assert.equal(isHttp2ServerPreface(settings), "yes");
  const wrong: readonly [index: number, value: number][] = [
    [0, 1],
    [1, 0x41],
    [2, 13],
    [3, 6],
    [4, 1],
    [5, 1],
    [6, 1],
    [7, 1],
    [8, 1],
  ];
  for (const [index, value] of wrong) {
    const other = settings.slice();
    other[index] = value;
    assert.equal(isHttp2ServerPreface(other, 0, index + 1), "no", `byte ${index}`);
  }
  // MySQL's greeting, PostgreSQL's answer, SMTP's banner.
  for (const text of ["\x4a\0\0\0\x0a8.0", "R\0\0\0\x08", "220 mail ESMTP\r\n", "SSH-2.0-x"]) {
    assert.equal(isHttp2ServerPreface(latin1Bytes(text)), "no");
  }
});
