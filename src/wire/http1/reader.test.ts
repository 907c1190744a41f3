import assert from "node:assert/strict";
import test from "node:test";
import { latin1, latin1Bytes } from "../latin1.ts";
import { Event, Http1Reader } from "./reader.ts";
import { readAll, requestEvents, responseEvents } from "./testing.ts";

const GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_EVENTS = ["head GET / 1.1 none -1 keep-alive [Host: a]", "end"];

/** A request's head from its first line and its fields, Host included. */
const post = (...fields: string[]): string =>
  `POST / HTTP/1.1\r\nHost: a\r\n${fields.map((f) => `${f}\r\n`).join("")}\r\n`;
const lastOf = (events: readonly string[]): string => events.at(-1) ?? "";

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
  const head = post("Transfer-Encoding: Chunked");
  assert.deepEqual(
    requestEvents(`${head}5;a=b;c="d\\"e"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n${GET}`),
    [
      "head POST / 1.1 chunked -1 keep-alive [Host: a] [Transfer-Encoding: Chunked]",
      "body hello0123456789",
      "end [X-Sum: 1]",
      ...GET_EVENTS,
    ],
  );
});

test("persistence (RFC 9112 §9.3)", () => {
  const note = (version: string, ...fields: string[]): string =>
    / (keep-alive|close)( |$)/.exec(
      requestEvents(`GET / HTTP/${version}\r\nHost: a\r\n${fields.map((f) => `${f}\r\n`).join("")}\r\n`)[0] ??
        "",
    )?.[1] ?? "";
  assert.equal(note("1.1"), "keep-alive");
  assert.equal(note("1.0"), "close");
  assert.equal(note("1.0", "Connection: Keep-Alive"), "keep-alive");
  assert.equal(note("1.1", "Connection: x,\tClose"), "close");
  assert.equal(note("1.0", "Connection: keep-alive", "Connection: close"), "close");
});

test("after the last message nothing is read any more (RFC 9112 §9.6)", () => {
  const events = requestEvents(`GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n${GET}\0\0`);
  assert.deepEqual(events, ["head GET / 1.1 none -1 close [Host: a] [Connection: close]", "end"]);
});

test("upgrade and expectation (RFC 9110 §7.8, §10.1.1)", () => {
  const head =
    requestEvents(
      post("Connection: Upgrade", "Upgrade: websocket", "Expect: 100-Continue", "Content-Length: 0"),
    )[0] ?? "";
  assert.match(head, /keep-alive expects-100 upgrade=websocket /);
  assert.doesNotMatch(requestEvents(post("Upgrade: websocket"))[0] ?? "", /upgrade=/);
  const old = "POST / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\nExpect: 100-continue\r\n\r\n";
  assert.doesNotMatch(requestEvents(old)[0] ?? "", /upgrade=|expects/);
});

test("after 101 the connection is raw, from the byte after the request", () => {
  const reader = new Http1Reader({ role: "request" });
  const head = post("Connection: upgrade", "Upgrade: x");
  assert.equal(readAll(reader, [latin1Bytes(head)], "request").length, 2);
  reader.switchToRaw();
  assert.deepEqual(readAll(reader, [latin1Bytes("ab"), latin1Bytes("GET")], "request"), ["raw abGET"]);
});

test("CONNECT is a tunnel from its head on (RFC 9110 §9.3.6)", () => {
  assert.deepEqual(requestEvents("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03"), [
    "head CONNECT a:443 1.1 tunnel -1 close [Host: a:443]",
    "raw \x16\x03",
  ]);
  assert.deepEqual(requestEvents("CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n").slice(1), ["raw "]);
  for (const target of ["/", "a", "http://a:80/", "a:80/x", "a:", ":80", "a:b"]) {
    assert.match(
      lastOf(requestEvents(`CONNECT ${target} HTTP/1.1\r\nHost: a\r\n\r\n`)),
      /HEAD_INVALID 400: CONNECT needs/,
      target,
    );
  }
});

test("forms of the target (RFC 9112 §3.2)", () => {
  assert.match(requestEvents("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n")[0] ?? "", / absolute /);
  assert.match(requestEvents("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")[0] ?? "", /^head OPTIONS \* /);
  assert.match(
    requestEvents('GET /\xe9|"<{ HTTP/1.1\r\nHost: a\r\n\r\n')[0] ?? "",
    /^head GET \/\xe9\|"<\{ /,
  );
  for (const target of [
    "a",
    "a:80",
    "http:/a",
    "http:///a",
    "http://user@a/",
    "http://a,b/",
    "*x",
    "?a",
    "/#a",
    "/a\x7f",
    "/a\0",
    "/a\tb",
  ]) {
    assert.match(
      lastOf(requestEvents(`GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`)),
      /^error HTTP1_HEAD_INVALID 400/,
      target,
    );
  }
});

test("Host: exactly one, and a host (RFC 9112 §3.2)", () => {
  const error = (fields: string, version = "1.1"): string =>
    lastOf(requestEvents(`GET / HTTP/${version}\r\n${fields}\r\n`));
  assert.match(error(""), /no Host/);
  assert.equal(error("", "1.0"), "end");
  assert.equal(error("Host:\r\n"), "end");
  assert.equal(error("hOsT: [::1]:80\r\n"), "end");
  assert.match(error("Host: a\r\nhost: a\r\n"), /more than one Host/);
  assert.match(error("Host: a\r\nHost: b\r\n", "1.0"), /more than one Host/);
  for (const host of ["a b", "a/b", "a,b", "u@a", "a#b", "a?b", "a\\b", "\xe9"])
    assert.match(error(`Host: ${host}\r\n`), /not a host/, host);
});

test("versions (RFC 9112 §2.3)", () => {
  for (const version of ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/9.9"]) {
    assert.match(
      lastOf(requestEvents(`GET / ${version}\r\nHost: a\r\n\r\n`)),
      /^error HTTP1_VERSION_UNSUPPORTED 505/,
      version,
    );
  }
  for (const version of [
    "http/1.1",
    "HTTP/1,1",
    "HTTP/1.1 ",
    "HTTP/1.10",
    "HTTP/11",
    "HTTPS/1.1",
    "HTTP/1.1\t",
    "HTTP/ 1.1",
  ]) {
    assert.match(
      lastOf(requestEvents(`GET / ${version}\r\nHost: a\r\n\r\n`)),
      /^error HTTP1_HEAD_INVALID 400/,
      version,
    );
  }
});

/** Each is known to make two implementations disagree on where a request ends or what it says. */
const SMUGGLING: readonly [name: string, bytes: string, error: RegExp][] = [
  [
    "both lengths (CL.TE)",
    post("Content-Length: 5", "Transfer-Encoding: chunked"),
    /FRAMING_AMBIGUOUS 400: both/,
  ],
  [
    "both lengths (TE.CL)",
    post("Transfer-Encoding: chunked", "Content-Length: 5"),
    /FRAMING_AMBIGUOUS 400: both/,
  ],
  ["two different lengths", post("Content-Length: 5", "Content-Length: 6"), /more than one Content-Length/],
  ["two equal lengths", post("Content-Length: 5", "content-length: 5"), /more than one Content-Length/],
  ["a list of lengths", post("Content-Length: 5, 5"), /not a number/],
  ["a signed length", post("Content-Length: +5"), /not a number/],
  ["a negative length", post("Content-Length: -5"), /not a number/],
  ["a hexadecimal length", post("Content-Length: 0x5"), /not a number/],
  ["a length in words", post("Content-Length: 5 5"), /not a number/],
  ["an empty length", post("Content-Length:"), /not a number/],
  ["a length past what is exact", post("Content-Length: 9007199254740993"), /not a number/],
  ["an overflowing length", post("Content-Length: 18446744073709551621"), /not a number/],
  ["a length in other digits", post("Content-Length: \xb2"), /not a number/],
  [
    "chunked twice",
    post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    /more than one Transfer-Encoding/,
  ],
  ["chunked twice in one field", post("Transfer-Encoding: chunked, chunked"), /twice/],
  ["chunked not last", post("Transfer-Encoding: chunked, gzip"), /does not end in chunked/],
  ["identity", post("Transfer-Encoding: identity"), /does not end in chunked/],
  [
    "chunked and identity in two fields",
    post("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    /more than one/,
  ],
  ["an empty coding", post("Transfer-Encoding:"), /does not end in chunked/],
  ["chunked in quotes", post('Transfer-Encoding: "chunked"'), /does not end in chunked/],
  ["chunked with a parameter", post("Transfer-Encoding: chunked;q=1"), /does not end in chunked/],
  ["chunked with something before", post("Transfer-Encoding: xchunked"), /does not end in chunked/],
  ["chunked with a tab before", post("Transfer-Encoding:\tchunked"), /a tab around/],
  ["chunked with a tab after", post("Transfer-Encoding: chunked \t"), /a tab around/],
  ["chunked with a vertical tab", post("Transfer-Encoding: \x0bchunked"), /control character/],
  ["a coding that we do not know", post("Transfer-Encoding: gzip, chunked"), /CODING_UNSUPPORTED 501/],
  ["chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", /in an HTTP\/1.0 message/],
  ["a blank before the colon", post("Transfer-Encoding : chunked"), /blank before the colon/],
  ["a tab before the colon", post("Content-Length\t: 5"), /blank before the colon/],
  ["a folded value", post("X: a", " b"), /folded/],
  ["a folded coding", post("Transfer-Encoding:", "\tchunked"), /folded/],
  ["a blank before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", /folded/],
  ["a bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", /LF without CR/],
  ["a bare CR in a value", post("X: a\rTransfer-Encoding: chunked"), /CR without LF/],
  ["a bare CR before the end", "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n", /CR without LF/],
  ["a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", /does not end in CRLF/],
  ["only bare LF", "GET / HTTP/1.1\nHost: a\n\n", /does not end in CRLF/],
  ["a bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n", /LF without CR/],
  ["NUL in a value", post("X: a\0b"), /control character/],
  ["NUL in a name", post("X\0: a"), /field name/],
  ["a name in other letters", post("Content-L\xe9ngth: 5"), /field name/],
  ["no name", post(": 5"), /without a name/],
  ["no colon", post("Content-Length"), /field name/],
  ["two blanks in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", /target/],
  ["a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", /begin with a method/],
  ["a blank in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", /no HTTP version/],
  ["a blank before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", /begin with a method/],
  [
    "CONNECT with content",
    "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    /CONNECT request with content/,
  ],
  [
    "a length in a trailer",
    `${post("Transfer-Encoding: chunked")}0\r\nContent-Length: 5\r\n\r\n`,
    /trailer Content-Length/,
  ],
  [
    "a coding in a trailer",
    `${post("Transfer-Encoding: chunked")}0\r\ntransfer-encoding: chunked\r\n\r\n`,
    /trailer transfer-encoding/,
  ],
  ["a host in a trailer", `${post("Transfer-Encoding: chunked")}0\r\nHost: b\r\n\r\n`, /trailer Host/],
  ["a folded trailer", `${post("Transfer-Encoding: chunked")}0\r\nX: a\r\n b\r\n\r\n`, /folded/],
];

for (const [name, bytes, error] of SMUGGLING) {
  test(`refuses ${name}, and says nothing of the request`, () => {
    const events = requestEvents(bytes + GET);
    assert.match(lastOf(events), error);
    assert.ok(events.length === (name.includes("trailer") ? 2 : 1), events.join("\n"));
  });
}

test("chunk sizes and line ends (RFC 9112 §7.1)", () => {
  const head = post("Transfer-Encoding: chunked");
  for (const body of [
    "\r\n",
    "g\r\n",
    "0x5\r\n",
    "-1\r\n",
    "+5\r\n",
    " 5\r\n",
    "5 \r\n",
    "5 ;a\r\n",
    "5\t\r\n",
    "5\nhello",
    "5\rhello",
    "5\r\r\n",
    "5;\r\n",
    "5;a\n",
    "5;a=\r\n",
    '5;a="b\r\n',
    '5;a="b"c\r\n',
    "5; a\r\n",
    "5;a \r\n",
    "5;\x01\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "1000000000000\r\n",
    "0000000000000\r\n",
    "ffffffffffffffff1\r\n",
    ";a\r\n",
  ]) {
    const events = requestEvents(head + body);
    assert.match(lastOf(events), /^error HTTP1_CHUNK_INVALID 400/, JSON.stringify(body));
  }
});

test("limits: head, target, fields, trailers, chunk extensions", () => {
  const long = "a".repeat(200);
  const settings = { headBytesMax: 100, trailerBytesMax: 20, chunkExtensionBytesMax: 10, fieldsMax: 3 };
  const errorOf = (text: string): string => lastOf(requestEvents(text, settings));
  assert.match(errorOf(`GET /${long}`), /^error HTTP1_HEAD_TOO_LARGE 414/);
  assert.match(errorOf(`GET / HTTP/1.1\r\nHost: a\r\nX: ${long}`), /^error HTTP1_HEAD_TOO_LARGE 431/);
  const exact = `GET / HTTP/1.1\r\nHost: ${"a".repeat(100 - GET.length + 1)}\r\n\r\n`;
  assert.equal(exact.length, 100);
  assert.equal(errorOf(exact), "end");
  assert.match(errorOf(exact.replace("/ ", "/b ")), /^error HTTP1_HEAD_TOO_LARGE 431/);
  assert.equal(errorOf("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n"), "end");
  assert.match(
    errorOf("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nE: f\r\n\r\n"),
    /431: more than 3 fields/,
  );
  assert.match(errorOf(`${"M".repeat(65)} / HTTP/1.1\r\n`), /^error HTTP1_HEAD_INVALID 501/);

  const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  assert.match(errorOf(`${head}0\r\nX: 12345678901\r\n\r\n`), /^end \[X/);
  assert.match(errorOf(`${head}0\r\nX: ${long}`), /^error HTTP1_HEAD_TOO_LARGE 431: trailers/);
  assert.match(errorOf(`${head}1;a=1234567\r\n`), /^head/);
  assert.match(errorOf(`${head}1;a=123456789\r\n`), /extensions are over/);
  // A little with each byte of data is too much in sum; as much as the data is not.
  assert.match(errorOf(head + "1;abc\r\nx\r\n".repeat(10)), /extensions are over/);
  assert.match(errorOf(head + "4;abc\r\nxxxx\r\n".repeat(100)), /^body/);
});

test("one bound counts a head as HTTP/2 does (RFC 9113 §6.5.2)", () => {
  const settings = { listBytesMax: 300 };
  const head = (target: string, value: string): string =>
    `GET ${target} HTTP/1.1\r\nHost: a\r\nX: ${value}\r\n\r\n`;
  // :method GET, :scheme http, :path /, :authority a, x v: 42 + 43 + 38 + 43 + 34.
  const room = 300 - 200;
  assert.equal(lastOf(requestEvents(head("/", "v".repeat(1 + room)), settings)), "end");
  assert.match(lastOf(requestEvents(head("/", "v".repeat(2 + room)), settings)), /TOO_LARGE 431/);
  assert.match(lastOf(requestEvents(head(`/${"p".repeat(room + 1)}`, "v"), settings)), /TOO_LARGE 431/);
  assert.match(lastOf(requestEvents(head(`/${"p".repeat(177)}`, "v"), settings)), /TOO_LARGE 414/);
  // Also when its fields are those of the head before.
  const twice = head("/", "v".repeat(room)) + head("/pp", "v".repeat(room));
  assert.match(lastOf(requestEvents(twice, settings)), /TOO_LARGE 431/);
  const many = "A:\r\n".repeat(5_000);
  const events = requestEvents(`GET / HTTP/1.1\r\nHost: a\r\n${many}\r\n`, { fieldsMax: 32_768 });
  assert.equal(lastOf(events), "end");
});

test("a few empty lines before a message are ignored (RFC 9112 §2.2)", () => {
  assert.deepEqual(requestEvents(`\r\n\r\n${GET}\r\n${GET}`), [...GET_EVENTS, ...GET_EVENTS]);
  assert.equal(requestEvents(`\r\n\r\n${GET}`.repeat(5)).length, 10);
  assert.match(lastOf(requestEvents(`${"\r\n".repeat(5)}${GET}`)), /too many empty lines/);
  assert.match(lastOf(requestEvents(`\n${GET}`)), /begin with a method/);
  assert.match(lastOf(requestEvents(`\r${GET}`)), /begin with a method/);
});

test("the transport's end: clean between messages, an error inside one (RFC 9112 §8)", () => {
  assert.deepEqual(requestEvents(GET, {}, true), GET_EVENTS);
  assert.deepEqual(requestEvents("", {}, true), []);
  for (const text of [
    "G",
    GET.slice(0, -1),
    `${post("Content-Length: 5")}hell`,
    `${post("Transfer-Encoding: chunked")}5\r\nhello\r\n`,
    `${post("Transfer-Encoding: chunked")}0\r\n`,
    `${post("Transfer-Encoding: chunked")}0\r\nX: a`,
  ]) {
    assert.match(lastOf(requestEvents(text, {}, true)), /^error HTTP1_TRUNCATED/, JSON.stringify(text));
  }
});

test("responses with each framing (RFC 9112 §6.3)", () => {
  assert.deepEqual(
    responseEvents(
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
      "GET GET",
    ),
    [
      'head 200 "OK" 1.1 length 2 keep-alive [Content-Length: 2]',
      "body hi",
      "end",
      'head 404 "Not Found" 1.1 length 0 keep-alive [Content-Length: 0]',
      "end",
    ],
  );
  assert.deepEqual(responseEvents("HTTP/1.0 200 OK\r\n\r\nhi", "GET", true), [
    'head 200 "OK" 1.0 close -1 close',
    "body hi",
    "end",
  ]);
  assert.deepEqual(responseEvents("HTTP/1.1 200\r\n\r\n", "GET", true), [
    'head 200 "" 1.1 close -1 close',
    "end",
  ]);
  assert.deepEqual(responseEvents("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD"), [
    'head 200 "OK" 1.1 none 9 keep-alive [Content-Length: 9]',
    "end",
  ]);
  assert.deepEqual(responseEvents("HTTP/1.1 304 \r\nTransfer-Encoding: chunked\r\n\r\n").length, 2);
  assert.match(
    lastOf(responseEvents("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "GET", true)),
    /^error HTTP1_TRUNCATED 502/,
  );
});

test("interim responses have no end, and are not endless (RFC 9110 §15.2)", () => {
  const final = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
  const early = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
  assert.deepEqual(responseEvents(`HTTP/1.1 100 Continue\r\n\r\n${early}${final}`), [
    'head 100 "Continue" 1.1 none -1 keep-alive',
    'head 103 "Early Hints" 1.1 none -1 keep-alive [Link: a]',
    'head 200 "OK" 1.1 length 0 keep-alive [Content-Length: 0]',
    "end",
  ]);
  assert.match(lastOf(responseEvents(early.repeat(33))), /more than 32 interim/);
});

test("tunnels: 101 and 2xx to CONNECT (RFC 9112 §6.3)", () => {
  assert.deepEqual(
    responseEvents("HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw").slice(1),
    ["raw raw"],
  );
  assert.deepEqual(responseEvents("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nraw", "CONNECT").slice(1), [
    "raw raw",
  ]);
  assert.deepEqual(responseEvents("HTTP/1.1 407 No\r\nContent-Length: 1\r\n\r\nx", "CONNECT").slice(1), [
    "body x",
    "end",
  ]);
  const reader = new Http1Reader({ role: "response" });
  reader.responseTo("GET", false);
  assert.match(
    lastOf(readAll(reader, [latin1Bytes("HTTP/1.1 101 S\r\n\r\n")], "response")),
    /101 without Upgrade/,
  );
});

test("what nobody asked for is refused, and so is what was there before the question", () => {
  const reader = new Http1Reader({ role: "response" });
  assert.match(
    lastOf(readAll(reader, [latin1Bytes("HTTP/1.1 408 T\r\n\r\n")], "response")),
    /RESPONSE_UNEXPECTED 502/,
  );

  // A server that says more than its length: the rest must not become the answer to the next request.
  const desync = new Http1Reader({ role: "response" });
  desync.responseTo("GET");
  desync.feed(
    latin1Bytes("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 EVIL\r\nContent-Length: 0\r\n\r\n"),
  );
  assert.equal(desync.next(), Event.HEAD);
  assert.equal(desync.next(), Event.END);
  desync.responseTo("GET");
  assert.equal(desync.next(), Event.ERROR);
  assert.equal(desync.error?.code, "HTTP1_RESPONSE_UNEXPECTED");
});

test("204 with content is believed to have none, and ends the connection", () => {
  assert.deepEqual(responseEvents("HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\nhello"), [
    'head 204 "N" 1.1 none 5 close [Content-Length: 5]',
    "end",
  ]);
  assert.match(responseEvents("HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n")[0] ?? "", /none 0 keep-alive/);
});

test("a connection that ends before the response says so, for a retry", () => {
  assert.match(lastOf(responseEvents("", "GET", true)), /^error HTTP1_CLOSED_BEFORE_RESPONSE 502/);
  assert.match(lastOf(responseEvents("HTTP/1.1 100 C\r\n\r\n", "GET", true)), /^error HTTP1_TRUNCATED 502/);
  assert.match(lastOf(responseEvents("H", "GET", true)), /^error HTTP1_TRUNCATED 502/);
  assert.deepEqual(responseEvents("HTTP/1.1 200 O\r\nContent-Length: 0\r\n\r\n", "GET", true).length, 2);
});

test("broken status lines, and smuggling in responses", () => {
  for (const text of [
    "HTTP/1.1 99 x\r\n",
    "HTTP/1.1 099 x\r\n",
    "HTTP/1.1 2000 x\r\n",
    "HTTP/1.1  200 x\r\n",
    "HTTP/1.1 200 a\0\r\n",
    "HTTP/1.1 200 a\n",
    "HTTP/1.1\r\n",
    "ICY 200 OK\r\n",
  ]) {
    assert.match(lastOf(responseEvents(text)), /^error HTTP1_HEAD_INVALID 502/, JSON.stringify(text));
  }
  for (const fields of [
    "Content-Length: 1\r\nTransfer-Encoding: chunked",
    "Content-Length: 1\r\nContent-Length: 1",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: gzip, chunked",
  ]) {
    assert.match(
      lastOf(responseEvents(`HTTP/1.1 200 OK\r\n${fields}\r\n\r\n`)),
      /^error HTTP1_(FRAMING|CODING)\w+ 502/,
      fields,
    );
  }
});

test("a repeated head is told, and means the same with the other line or fields", () => {
  const reader = new Http1Reader({ role: "request" });
  const seen: string[] = [];
  const other = GET.replace("/ ", "/b ");
  const fields = "GET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  // What a connection brings first is not remembered.
  for (const text of [GET, GET, GET, other, other, GET, fields]) {
    reader.feed(latin1Bytes(text));
    for (let kind = reader.next(); kind !== Event.NOTHING; kind = reader.next()) {
      if (kind === Event.HEAD)
        seen.push(`${reader.target} ${reader.headRepeated} ${reader.keepAlive} ${reader.fields.length}`);
    }
  }
  assert.deepEqual(seen, [
    "/ false true 2",
    "/ false true 2",
    "/ true true 2",
    "/b false true 2",
    "/b true true 2",
    "/ false true 2",
    "/b false false 4",
  ]);
});

test("a head is new although its line came back in pieces", () => {
  const reader = new Http1Reader({ role: "request" });
  const repeated: boolean[] = [];
  for (const text of [GET, "GET /b HTTP/1.1\r\nHo", "st: a\r\n\r\n"]) {
    reader.feed(latin1Bytes(text));
    for (let kind = reader.next(); kind !== Event.NOTHING; kind = reader.next())
      if (kind === Event.HEAD) repeated.push(reader.headRepeated);
  }
  assert.deepEqual(repeated, [false, false]);
});

test("fields that are no longer kept are not mistaken for the ones before", () => {
  const reader = new Http1Reader({ role: "request" });
  const seen: number[] = [];
  // After some that never repeat, sections are kept only now and then; then an early one comes back.
  const sections = [1, 2, 3, 4, 5, 4, 5, 6, 6, 4, 4];
  for (const size of sections) {
    reader.feed(latin1Bytes(`${post(`Content-Length: ${size}`)}${"x".repeat(size)}`));
    for (let kind = reader.next(); kind !== Event.NOTHING; kind = reader.next()) {
      assert.notEqual(kind, Event.ERROR);
      if (kind === Event.HEAD) seen.push(reader.contentLength);
    }
  }
  assert.deepEqual(seen, sections);
});

test("the fields of each head are the receiver's own", () => {
  const reader = new Http1Reader({ role: "request" });
  for (let i = 0; i < 3; i++) {
    reader.feed(latin1Bytes(GET));
    assert.equal(reader.next(), Event.HEAD);
    assert.deepEqual(reader.fields, ["Host", "a"]);
    reader.fields.push("x", "y");
    assert.equal(reader.next(), Event.END);
  }
});

test("unread bytes can be taken over", () => {
  const reader = new Http1Reader({ role: "request" });
  reader.feed(latin1Bytes(`${GET}rest`));
  reader.next();
  reader.next();
  const rest = reader.takeRest();
  assert.equal(latin1(rest, 0, rest.length), "rest");
  assert.equal(reader.next(), Event.NOTHING);
});

test("body bytes that were handed out stay as they are", () => {
  const reader = new Http1Reader({ role: "request" });
  reader.feed(latin1Bytes("POST / HTTP/1.1\r\nHost: a\r\nContent-"));
  reader.next();
  reader.feed(latin1Bytes("Length: 20\r\n\r\n0123456789"));
  assert.equal(reader.next(), Event.HEAD);
  assert.equal(reader.next(), Event.BODY);
  const view = reader.bytes.subarray(reader.start, reader.stop);
  for (let i = 0; i < 5; i++) {
    reader.feed(latin1Bytes("ab"));
    reader.next();
  }
  assert.equal(latin1(view, 0, view.length), "0123456789");
});

test("what was lent and is not read becomes the reader's own", () => {
  const reader = new Http1Reader({ role: "request" });
  const lent = Buffer.from(`${post("Content-Length: 5")}hel`);
  reader.feed(lent);
  assert.equal(reader.next(), Event.HEAD);
  assert.equal(reader.plainBodyBytes, 0, "a part of the body is not read yet");
  reader.own();
  lent.fill(0xee);
  assert.equal(reader.next(), Event.BODY);
  assert.equal(latin1(reader.bytes, reader.start, reader.stop), "hel");
  assert.equal(reader.next(), Event.NOTHING);
  assert.equal(reader.plainBodyBytes, 2);
});
