import type { Step } from "./http1-script.ts";

/** One conversation, played directly and through two sidecars. */
export interface Case {
  readonly name: string;
  readonly client: readonly Step[];
  /** One script for each connection that the server gets. */
  readonly server: readonly Step[][];
  /** What the mesh changes here beyond `ALWAYS`: in what the server or the client hears, from, to, and why. */
  readonly changes?: readonly (readonly [who: "server" | "client", from: string, to: string, why: string])[];
  /** How the client's connection ends is part of the case. Default: only what it hears. */
  readonly endMatters?: boolean;
  /** The server's connection is not used again with the mesh, so that its script may stay unfinished. */
  readonly isSpent?: boolean;
  /** The same for the server's connection: a tunnel keeps half-close. */
  readonly serverEndMatters?: boolean;
}

/** What the mesh changes in every conversation, and why. `normal` in the test takes these out before it compares. */
export const ALWAYS: readonly string[] = [
  "Connection, Keep-Alive and Proxy-Connection belong to each hop, which writes its own (RFC 9110 §7.6.1)",
  "l5d-client-id tells the server who asks",
  "blanks around a value are written as one before it and none behind (RFC 9112 §5.1)",
  "chunks are cut anew, and their extensions end here (RFC 9112 §7.1.1)",
];

const get = (path: string, ...more: string[]): string =>
  `GET ${path} HTTP/1.1\r\n${["Host: web", ...more].map((line) => `${line}\r\n`).join("")}\r\n`;
const answer = (body: string, ...more: string[]): string =>
  `HTTP/1.1 200 OK\r\n${[...more, `Content-Length: ${body.length}`].map((line) => `${line}\r\n`).join("")}\r\n${body}`;
const HEAD_END = "\r\n\r\n";
const OK = answer("ok");
/** One request, one answer. */
const exchange = (request: string, reply: string, until = "ok"): Pick<Case, "client" | "server"> => ({
  client: [
    ["send", request],
    ["await", until],
  ],
  server: [
    [
      ["await", HEAD_END],
      ["send", reply],
    ],
  ],
});

const SPELLED = [
  "GET /a?b=%2F%2f;c HTTP/1.1",
  "x-lower: 1",
  "X-REQUEST-ID: Ab",
  "hOsT: web",
  "ETag-Like: w",
  "accept: */*",
  "Accept: text/html",
  "cookie: a=1",
  "Cookie: b=2",
  "X-Empty:",
  "x_under: \u00fc\u00ff",
  "",
  "",
].join("\r\n");
const SPELLED_ANSWER = [
  "HTTP/1.1 200 Sch\u00f6n   gut",
  "set-cookie: a=1",
  "SET-COOKIE: b=2",
  'eTaG: "x"',
  "x-Fault: none",
  "content-LENGTH: 2",
  "Zuletzt: ja",
  "",
  "ok",
].join("\r\n");

export const CASES: readonly Case[] = [
  { name: "case, order and repeats of fields; a reason in any bytes", ...exchange(SPELLED, SPELLED_ANSWER) },
  {
    name: "the same spelling again with other values, on one connection",
    client: [
      ["send", SPELLED],
      ["await", "\r\n\r\nok"],
      ["send", SPELLED.replace("Ab", "Cd")],
      ["await", "\r\n\r\nok"],
      ["send", SPELLED.replace("x-lower", "X-Lower")],
      ["await", "\r\n\r\nok"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", SPELLED_ANSWER],
        ["await", HEAD_END],
        ["send", SPELLED_ANSWER.replace("none", "some")],
        ["await", HEAD_END],
        ["send", SPELLED_ANSWER],
      ],
    ],
  },
  { name: "an empty reason", ...exchange(get("/"), "HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\nok") },
  {
    name: "no reason and no blank before it",
    ...exchange(get("/"), "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
    changes: [["client", "200\r\n", "200 \r\n", "the blank before the reason is not optional (RFC 9112 §4)"]],
  },
  {
    name: "a status that nobody knows",
    ...exchange(get("/"), "HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok"),
  },
  { name: "an empty Host", ...exchange("GET / HTTP/1.1\r\nAccept: x\r\nHost:\r\n\r\n", OK) },
  { name: "blanks around values", ...exchange("GET / HTTP/1.1\r\nHost:web\r\nX:  a\tb \t\r\n\r\n", OK) },
  {
    name: "HTTP/1.0 without Host, answered in HTTP/1.0 to the end of the connection",
    client: [["send", "GET /x HTTP/1.0\r\nX-a: 1\r\n\r\n"], ["await-end"]],
    server: [[["await", HEAD_END], ["send", "HTTP/1.0 200 Fine\r\nServer: Old\r\n\r\nbody"], ["end"]]],
    endMatters: true,
  },
  {
    name: "HTTP/1.0 with keep-alive, twice",
    client: [
      ["send", "GET /1 HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: web\r\n\r\n"],
      ["await", "ok"],
      ["send", "GET /2 HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: web\r\n\r\n"],
      ["await", "ok"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"],
        ["await", HEAD_END],
        ["send", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"],
      ],
    ],
  },
  {
    name: "an HTTP/1.0 server and an HTTP/1.1 client",
    client: [["send", get("/")], ["await-end"]],
    server: [[["await", HEAD_END], ["send", "HTTP/1.0 200 OK\r\nDate: now\r\n\r\nto the end"], ["end"]]],
    endMatters: true,
  },
  {
    name: "an HTTP/1.1 answer to the end of the connection",
    client: [["send", get("/")], ["await-end"]],
    server: [[["await", HEAD_END], ["send", "HTTP/1.1 200 OK\r\nDate: now\r\n\r\nto the end"], ["end"]]],
    endMatters: true,
  },
  {
    name: "such an answer that is reset is no complete one",
    client: [["send", get("/")], ["await-end"]],
    server: [[["await", HEAD_END], ["send", "HTTP/1.1 200 OK\r\nDate: now\r\n\r\nto the end"], ["reset"]]],
    endMatters: true,
  },
  {
    name: "HTTP/1.0 with a body",
    ...exchange(
      "POST /old HTTP/1.0\r\nContent-length: 4\r\nX-a: 1\r\n\r\nbody",
      "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
  },
  {
    name: "bodies of 300 KB both ways, in chunks and by length",
    client: [
      [
        "send",
        `POST /up HTTP/1.1\r\nHost: web\r\nTRANSFER-Encoding: chunked\r\n\r\n${chunk(300_000)}0\r\nX-End: 1\r\n\r\n`,
      ],
      ["await", "X-eND: 2\r\n\r\n"],
      ["send", `PUT /up HTTP/1.1\r\ncontent-LENGTH: 300000\r\nHost: web\r\n\r\n${"u".repeat(300_000)}`],
      ["await", `${"d".repeat(1_000)}.`],
    ],
    server: [
      [
        ["await", "X-End: 1\r\n\r\n"],
        [
          "send",
          `HTTP/1.1 200 OK\r\nTransfer-encoding: chunked\r\n\r\n${chunk(300_000)}0\r\nX-eND: 2\r\n\r\n`,
        ],
        ["await", HEAD_END],
        ["await", "u".repeat(300_000)],
        ["send", `HTTP/1.1 200 OK\r\nContent-length: 300001\r\n\r\n${"d".repeat(300_000)}.`],
      ],
    ],
  },
  {
    name: "pipelined requests, answered in order",
    client: [
      ["send", get("/1") + get("/2", "X: y") + get("/3")],
      ["await", "three"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", answer("one")],
        ["await", HEAD_END],
        ["send", answer("two")],
        ["await", HEAD_END],
        ["send", answer("three")],
      ],
    ],
  },
  {
    name: "chunks both ways, with extensions and trailers",
    client: [
      [
        "send",
        "POST /c HTTP/1.1\r\nX-First: 1\r\ntransfer-encoding: Chunked\r\nTrailer: X-Sum\r\nHost: web\r\n\r\n",
      ],
      ["send", '5;ext=1\r\nhello\r\n3;q="a b"\r\n wo\r\n0\r\nX-Sum: 8\r\nx-SUM: 9\r\n\r\n'],
      ["await", "Y-sum: 3\r\n\r\n"],
    ],
    server: [
      [
        ["await", "x-SUM: 9\r\n\r\n"],
        ["send", "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: chunked\r\nTrailer: Y-sum\r\nLast: 1\r\n\r\n"],
        ["send", "3;a\r\nabc\r\n0\r\nY-sum: 3\r\n\r\n"],
      ],
    ],
  },
  {
    name: "an empty body in chunks, both ways",
    client: [
      ["send", "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n0\r\n\r\n"],
      ["await", "0\r\n\r\n"],
    ],
    server: [
      [
        ["await", "0\r\n\r\n"],
        ["send", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n0\r\n\r\n"],
      ],
    ],
  },
  {
    name: "an empty body by length, and an empty answer",
    ...exchange(
      "PUT / HTTP/1.1\r\nhost: web\r\nContent-Length: 0\r\nX: y\r\n\r\n",
      "HTTP/1.1 201 Created\r\ncontent-length: 0\r\nX: ok\r\n\r\n",
      "ok\r\n\r\n",
    ),
  },
  {
    name: "100 (Continue) is the server's, and is waited for",
    client: [
      ["send", "POST / HTTP/1.1\r\nHost: web\r\nEXPECT: 100-Continue\r\nContent-Length: 4\r\n\r\n"],
      ["await", "Go on\r\nX-Seen: 1\r\n\r\n"],
      ["send", "body"],
      ["await", "ok"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", "HTTP/1.1 100 Go on\r\nX-Seen: 1\r\n\r\n"],
        ["await", "body"],
        ["send", OK],
      ],
    ],
  },
  {
    name: "a final answer instead of 100",
    client: [
      ["send", "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"],
      ["await", "no"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"],
      ],
    ],
  },
  {
    name: "a client that expects 100 and does not wait for it",
    client: [
      ["send", "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody"],
      ["await", "ok"],
    ],
    server: [
      [
        ["await", "body"],
        ["send", OK],
      ],
    ],
  },
  {
    name: "early hints and other interim answers before the final one",
    ...exchange(
      get("/"),
      `HTTP/1.1 103 Early Hints\r\nLINK: </a>; rel=preload\r\nLink: </b>\r\n\r\nHTTP/1.1 102 \r\n\r\n${OK}`,
    ),
  },
  {
    name: "a final answer while the body is still being sent, which goes on",
    client: [
      ["send", "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 8\r\n\r\nfour"],
      ["await", "ok"],
      ["send", "more"],
      ["send", get("/2")],
      ["await", "ok"],
    ],
    server: [
      [
        ["await", "four"],
        ["send", OK],
        ["await", "more"],
        ["await", HEAD_END],
        ["send", OK],
      ],
    ],
  },
  {
    name: "a refusal while the body is still being sent, and the end",
    client: [
      ["send", "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 80\r\n\r\nfour"],
      ["await", "no"],
      ["await-end"],
    ],
    server: [
      [
        ["await", "four"],
        ["send", "HTTP/1.1 413 Too Much\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"],
        ["end"],
      ],
    ],
    endMatters: true,
  },
  {
    name: "HEAD with a length, with a coding, and with neither; then GET on the same connection",
    client: [
      ["send", "HEAD /1 HTTP/1.1\r\nHost: web\r\n\r\n"],
      ["await", HEAD_END],
      ["send", "HEAD /2 HTTP/1.1\r\nHost: web\r\n\r\n"],
      ["await", HEAD_END],
      ["send", "HEAD /3 HTTP/1.1\r\nHost: web\r\n\r\n"],
      ["await", HEAD_END],
      ["send", get("/4")],
      ["await", "ok"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX: y\r\n\r\n"],
        ["await", HEAD_END],
        ["send", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"],
        ["await", HEAD_END],
        ["send", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n"],
        ["await", HEAD_END],
        ["send", OK],
      ],
    ],
  },
  {
    name: "204, 304 with the length of what it stands for, 205, and GET on the same connection",
    client: [
      ["send", get("/1")],
      ["await", HEAD_END],
      ["send", get("/2")],
      ["await", HEAD_END],
      ["send", get("/3")],
      ["await", HEAD_END],
      ["send", get("/4")],
      ["await", "ok"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"],
        ["await", HEAD_END],
        ["send", 'HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\nETag: "a"\r\n\r\n'],
        ["await", HEAD_END],
        ["send", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"],
        ["await", HEAD_END],
        ["send", OK],
      ],
    ],
  },
  {
    name: "204 with a length of nothing",
    ...exchange(get("/"), "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX: y\r\n\r\n", "y\r\n\r\n"),
  },
  {
    name: "a target in absolute form",
    ...exchange("GET http://web:80/p?q HTTP/1.1\r\nX: y\r\nHost: web:80\r\n\r\n", OK),
  },
  {
    name: "a target in absolute form, and another Host",
    ...exchange("GET http://web/p HTTP/1.1\r\nHost: other\r\nX: y\r\n\r\n", OK),
    changes: [["server", "Host: other", "Host: web", "the target names the host (RFC 9112 §3.2.2)"]],
  },
  { name: "OPTIONS of the server as a whole", ...exchange("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n", OK) },
  { name: "a method that nobody knows", ...exchange("BREW /pot HTTP/1.1\r\nHost: web\r\n\r\n", OK) },
  {
    name: "CONNECT, granted: bytes both ways, and each half ends by itself",
    client: [
      ["send", "CONNECT web:80 HTTP/1.1\r\nX-Proxy: a\r\nhost: web:80\r\n\r\n"],
      ["await", HEAD_END],
      ["send", "ping"],
      ["await", "pong"],
      ["end"],
      ["await", "bye"],
      ["await-end"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", "HTTP/1.1 200 Tunnel open\r\nX: y\r\n\r\n"],
        ["await", "ping"],
        ["send", "pong"],
        ["await-end"],
        ["send", "bye"],
        ["end"],
      ],
    ],
    endMatters: true,
    serverEndMatters: true,
  },
  {
    name: "CONNECT, refused",
    ...exchange(
      "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n",
      "HTTP/1.1 405 Not Here\r\nContent-Length: 2\r\n\r\nno",
      "no",
    ),
  },
  {
    name: "WebSocket: fields as they came, then bytes, then the server's end first",
    client: [
      [
        "send",
        "GET /ws HTTP/1.1\r\nupgrade: WebSocket\r\nHost: web\r\nCONNECTION: keep-alive, Upgrade\r\nSec-WebSocket-Key: a\r\n\r\n",
      ],
      ["await", HEAD_END],
      ["send", "\x81\x02hi"],
      ["await", "\x88\x00"],
      ["await-end"],
      ["send", "late"],
      ["end"],
    ],
    server: [
      [
        ["await", HEAD_END],
        [
          "send",
          "HTTP/1.1 101 Switching\r\nUPGRADE: websocket\r\nconnection: Upgrade\r\nSec-WebSocket-Accept: b\r\n\r\n\x82\x01x",
        ],
        ["await", "hi"],
        ["send", "\x88\x00"],
        ["end"],
        ["await", "late"],
        ["await-end"],
      ],
    ],
    endMatters: true,
    serverEndMatters: true,
  },
  {
    name: "an upgrade to something unknown, declined, and the next request",
    client: [
      ["send", get("/1", "Connection: Upgrade", "Upgrade: foo/2")],
      ["await", "ok"],
      ["send", get("/2")],
      ["await", "ok"],
    ],
    server: [
      [
        ["await", HEAD_END],
        ["send", OK],
        ["await", HEAD_END],
        ["send", OK],
      ],
    ],
    isSpent: true,
  },
  {
    name: "an offer of h2c goes no further (CVE-2022-41721)",
    ...exchange(
      get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "X: y"),
      OK,
    ),
    changes: [
      [
        "server",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "",
        "RFC 9113 §3.1: h2c is no protocol any more; an offer may be ignored",
      ],
    ],
  },
  {
    name: "an offer of TLS, which some clients send with every request, goes no further",
    ...exchange(get("/", "Upgrade: TLS/1.2", "Connection: Upgrade", "X: y"), OK),
    changes: [
      [
        "server",
        "Upgrade: TLS/1.2\r\n",
        "",
        "the mesh speaks TLS already; an offer may be ignored (RFC 9110 §7.8)",
      ],
    ],
  },
  {
    name: "a client that ends its half after its request still gets the answer",
    client: [["send", get("/")], ["end"], ["await", "ok"]],
    server: [
      [
        ["await", HEAD_END],
        ["send", OK],
      ],
    ],
  },
  {
    name: "TE says that trailers are wanted",
    ...exchange(get("/", "TE: deflate, trailers", "Connection: TE", "X: y"), OK),
    changes: [
      [
        "server",
        "TE: deflate, trailers",
        "TE: trailers",
        "what it says of codings ends at each hop (RFC 9110 §10.1.4)",
      ],
    ],
  },
  {
    name: "a field that Connection names",
    ...exchange(get("/", "X-Hop: 1", "Connection: X-Hop", "X: y"), OK),
    changes: [["server", "X-Hop: 1\r\n", "", "it was for this hop only (RFC 9110 §7.6.1)"]],
  },
  { name: "a target of 64 KiB", ...exchange(get(`/${"a".repeat(65_535)}`), OK) },
  { name: "a request with 60 KiB of fields", ...exchange(get("/", `X-Long: ${"b".repeat(61_000)}`), OK) },
  { name: "a request with hundreds of fields", ...exchange(get("/", ...many("X-n")), OK) },
  {
    name: "an answer with 60 KiB of fields",
    ...exchange(get("/"), answer("ok", `X-LONG: ${"c".repeat(61_000)}`)),
  },
  { name: "an answer with hundreds of fields", ...exchange(get("/"), answer("ok", ...many("set-COOKIE"))) },
  {
    name: "trailers of 60 KiB",
    ...exchange(
      get("/"),
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Long: ${"d".repeat(61_000)}\r\nEnd: ok\r\n\r\n`,
      "End: ok\r\n\r\n",
    ),
  },
  {
    name: "an answer that is cut is not complete",
    client: [["send", get("/")], ["await-end"]],
    server: [[["await", HEAD_END], ["send", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"], ["reset"]]],
    endMatters: true,
  },
];

function chunk(bytes: number): string {
  return `${bytes.toString(16)}\r\n${"z".repeat(bytes)}\r\n`;
}

function many(name: string): string[] {
  return Array.from({ length: 480 }, (_, i) => `${name}: ${i}`);
}
