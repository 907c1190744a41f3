/** What implementations of HTTP/1 are known to read differently, one text each. None of it is repaired, and none goes on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { requestEvents } from "./testing.ts";

const GET = "GET / HTTP/1.1\r\nHost: a\r\n";
const POST = "POST / HTTP/1.1\r\nHost: a\r\n";
const CHUNKED = `${POST}Transfer-Encoding: chunked\r\n\r\n`;
const to = (target: string): string => `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`;
const lengthOf = (value: string): string => `${POST}Content-Length: ${value}\r\n\r\nabcde`;
const coding = (value: string): string => `${POST}Transfer-Encoding:${value}\r\n\r\n`;
const host = (value: string): string => `GET / HTTP/1.1\r\nHost: ${value}\r\n\r\n`;

const REFUSED: Readonly<Record<string, readonly string[]>> = {
  "refuses NUL and other control characters (CVE-2020-8201)": [
    "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
    to("/\0"),
    `${GET}X\0: a\r\n\r\n`,
    ...["a\0b", "a\x0bb", "a\x7fb"].map((value) => `${GET}X: ${value}\r\n\r\n`),
  ],
  "refuses line ends other than CRLF, and folded lines (CVE-2022-32214)": [
    "GET / HTTP/1.1\nHost: a\n\n",
    `${GET}X: a\rb\r\n\r\n`,
    `${GET}X: a\nY: b\r\n\r\n`,
    `${GET}X: a\r\n b\r\n\r\n`,
    `${GET}X: a\r\n\tb\r\n\r\n`,
  ],
  "refuses field lines without a clear name": [
    `${GET}X\r\n\r\n`,
    `${GET}: a\r\n\r\n`,
    `${GET}X : a\r\n\r\n`,
    `${POST}Content-Length : 5\r\n\r\nabcde`,
    `${POST}Transfer-Encoding\t: chunked\r\n\r\n`,
    `GET / HTTP/1.1\r\n Host: a\r\n\r\n`,
  ],
  "refuses request lines with other blanks than two (RFC 9112 §3)": [
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    to("/a b"),
    to(""),
  ],
  "refuses versions that are none of ours, HTTP/0.9 among them": [
    "GET /\r\n\r\n",
    "GET / HTTP/1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
    "GET / http/1.1\r\nHost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  ],
  "refuses targets with a fragment, user information or no host (CVE-2021-39156)": [
    ...[
      "/a#b",
      "http://a/#b",
      "http://u@a/",
      "http://u:p@a/",
      "http://a^b/",
      "http:///x",
      "http://a:80000/",
      "a:80",
      "a",
    ].map(to),
  ],
  "refuses lengths that are no plain number (CVE-2024-27982)": [
    ...[
      "+5",
      "-5",
      "5 5",
      "5,5",
      "5, 5",
      "0x5",
      "5.0",
      "5e0",
      "",
      "99999999999999999999",
      "5;a",
      "\u00b25",
    ].map(lengthOf),
    `${POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde`,
    `${POST}Content-Length: 5\r\ncontent-length: 6\r\n\r\nabcde`,
  ],
  "refuses transfer codings other than one chunked (CVE-2021-22960, CVE-2022-32213, CVE-2022-32215)": [
    ...[
      " chunked, identity",
      " identity",
      " xchunked",
      ' "chunked"',
      " chunked;q=1",
      " ,chunked",
      " ",
      "\x0bchunked",
    ].map(coding),
    ...["\tchunked", " chunked\t", " gzip, chunked", " chunked, chunked", " chunke\u00e4"].map(coding),
    `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n`,
    `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n`,
    `${POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n`,
    `${POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\n",
  ],
  "refuses chunks with other than a plain size and CRLF (CVE-2021-22959)": [
    ...[
      "0x3",
      "3 ",
      " 3",
      "+3",
      "-3",
      "1_0",
      "",
      "fffffffffffffffff",
      "10000000000000003",
      "3;a\rb",
      "3;",
      "3; a",
    ].map((size) => `${CHUNKED}${size}\r\nabc\r\n0\r\n\r\n`),
    `${CHUNKED}3\nabc\r\n0\r\n\r\n`,
    `${CHUNKED}3;a\nabc\r\n0\r\n\r\n`,
    `${CHUNKED}3\r\nabc\n0\r\n\r\n`,
    `${CHUNKED}3\r\nabcd\r\n0\r\n\r\n`,
    `${CHUNKED}3\r\nabc\r\r\n0\r\n\r\n`,
  ],
  "refuses trailers that are malformed, or would frame or route (RFC 9110 §6.5.1)": [
    ...[
      "X: a\n",
      "X y: a\r\n",
      "X: a\r\n b\r\n",
      "Content-Length: 5\r\n",
      "Transfer-Encoding: chunked\r\n",
      "Host: b\r\n",
    ].map((trailer) => `${CHUNKED}0\r\n${trailer}\r\n`),
  ],
  "refuses hosts that are several, none, or more than a host (CVE-2021-39155)": [
    ...["u@a", "a/b", "a,b", "a b", "a#b", "a?b", "a:b", "a:80:80", "[::1", "a\\b"].map(host),
    "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
  ],
};

for (const [what, texts] of Object.entries(REFUSED)) {
  test(what, () => {
    for (const text of texts) {
      const events = requestEvents(text, {}, true);
      assert.match(events.at(-1) ?? "", /^error /, JSON.stringify(text));
      // Nothing of it passes for a message: neither this one's end nor another's beginning.
      assert.equal(
        events.some((event) => event.startsWith("end")),
        false,
        JSON.stringify(text),
      );
    }
  });
}

test("leading zeros of a length are digits, and nobody reads them as octal (RFC 9110 §8.6)", () => {
  assert.match(requestEvents(`${POST}Content-Length: 0010\r\n\r\nabcdefghij`)[0] ?? "", / length 10 /);
});
