/** What HTTP/2 can carry and HTTP/1 would read as something else (RFC 9113 §10.3). All of it is malformed, and goes nowhere. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Event, Http2Connection } from "./connection.ts";
import { CLIENT_PREFACE, Flag, Frame } from "./frame.ts";

type Section = readonly (readonly [name: string, value: string])[];

const LINE = { ":method": "GET", ":scheme": "http", ":path": "/", ":authority": "a" };
const line = (over: Readonly<Record<string, string>>): Section => Object.entries({ ...LINE, ...over });
const withField = (name: string, value: string): Section => [...line({}), [name, value]];

const MALFORMED: Readonly<Record<string, readonly Section[]>> = {
  "refuses line ends, NUL and blanks at the edge of values (RFC 9113 §8.2.1)": [
    "a\rb",
    "a\nb",
    "a\r\nX: b",
    "a\0b",
    " a",
    "a ",
  ].map((value) => withField("x", value)),
  "refuses names with upper-case letters or other than token characters (RFC 9113 §8.2.1)": [
    ...["X", "x y", "x:", "", "x\x01", "x\u00e4", "x\r", "x\n", "transfer-encoding "],
  ].map((name) => withField(name, "a")),
  "refuses a :path that is no request target": [
    "",
    "a",
    "*",
    "http://b/",
    "/a b",
    "/a#b",
    "/a\tb",
    "/a\r\nX: b",
    "/\x01",
    "/ HTTP/1.1",
  ].map((path) => line({ ":path": path })),
  "refuses a :method that is no token": ["", "GET /x", "GE:T", "GET\r\n", "G\0T"].map((method) =>
    line({ ":method": method }),
  ),
  "refuses a :scheme that is none": ["", "http://x", "ht tp", "1http"].map((scheme) =>
    line({ ":scheme": scheme }),
  ),
  "refuses an :authority that is more than a host (RFC 9113 §8.3.1)": [
    "u@a",
    "a/b",
    "a b",
    "a,b",
    "a?b",
    "a#b",
    "a:b",
    "a:80:80",
  ].map((authority) => line({ ":authority": authority })),
  "refuses a host beside :authority that says something else, or twice": [
    withField("host", "b"),
    withField("host", "u@a"),
    [...withField("host", "a"), ["host", "a"]],
  ],
  "refuses fields of one connection (RFC 9113 §8.2.2)": [
    ...["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"].map((name) =>
      withField(name, "x"),
    ),
    withField("te", "gzip"),
    withField("te", "trailers, gzip"),
  ],
  "refuses lengths that are none, or not those of the body (RFC 9113 §8.1.1)": [
    ...["+5", "5,5", "-1", "0x5", "5 5", "", "5"].map((value) => withField("content-length", value)),
    [...withField("content-length", "0"), ["content-length", "0"]],
  ],
  "refuses pseudo-header fields twice, late, unknown or of an answer (RFC 9113 §8.3)": [
    [...line({}), [":path", "/b"]],
    [["x", "y"], ...line({})],
    withField(":foo", "x"),
    withField(":status", "200"),
    withField(":protocol", "websocket"),
  ],
};

/** Each name and value as a literal, whatever it holds (RFC 7541 §6.2.2). */
function literals(section: Section): Buffer {
  const text = (value: string): Buffer =>
    Buffer.concat([Buffer.from([value.length]), Buffer.from(value, "latin1")]);
  return Buffer.concat(section.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

function frame(type: number, flags: number, streamId: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

function requestsSeen(section: Section): number {
  const machine = new Http2Connection({ role: "server" });
  const head = frame(Frame.HEADERS, Flag.END_STREAM | Flag.END_HEADERS, 1, literals(section));
  machine.feed(Buffer.concat([CLIENT_PREFACE, frame(Frame.SETTINGS, 0, 0, new Uint8Array(0)), head]));
  let seen = 0;
  for (let event = machine.next(); event !== Event.NOTHING; event = machine.next())
    if (event === Event.HEADERS) seen++;
  return seen;
}

for (const [what, sections] of Object.entries(MALFORMED)) {
  test(what, () => {
    for (const section of sections) assert.equal(requestsSeen(section), 0, JSON.stringify(section));
  });
}

test("takes what only looks odd", () => {
  const odd: Section[] = [
    line({}),
    line({ ":path": '/\u00e4"{}|\\%00' }),
    line({ ":method": "M-SEARCH", ":authority": "[::1]:80" }),
    line({ ":scheme": "coap+tcp", ":authority": "" }),
    withField("te", "trailers"),
    withField("host", "A"),
    withField("x", ""),
  ];
  for (const section of odd) assert.equal(requestsSeen(section), 1, JSON.stringify(section));
});
