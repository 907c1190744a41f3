import type { Field, OriginName } from "./case.ts";
import type { Cell } from "./grid.ts";

export interface Chance {
  int(below: number): number;
  chance(share: number): boolean;
  pick<T>(values: readonly T[]): T;
  shuffled<T>(values: readonly T[]): T[];
}

/** Fields of a kind of oddity, for requests and answers. All of them are allowed by RFC 9110 and 9112. */
export function drawFields(draw: Chance, oddity: Cell["oddity"], origin: OriginName): Field[] {
  switch (oddity) {
    case "plain":
    case "target":
      return [
        ["User-Agent", "differential/1"],
        ["Accept", "*/*"],
      ];
    case "names":
      return draw.shuffled<Field>([
        ["X-CamelCase", "1"],
        ["x-lower-case", "2"],
        ["X-UPPER-CASE", "3"],
        ["x_under_score", "4"],
        ["X.dot~tilde!#$%&'*+^`|", "5"],
        ["X-Twice", "first"],
        ["X-Twice", "second"],
        ["x-twice", "third, fourth"],
        ["Cookie", "a=1"],
        ["Cookie", "b=2; c=3"],
        ["Set-Cookie", "d=4; Path=/"],
        ["Set-Cookie", "e=5, f"],
        ["Authorization", "Basic dXNlcjpwYXNz"],
        ["accept-ENCODING", "gzip, br;q=0"],
        ["Via", "1.1 elsewhere"],
        ["X-Forwarded-For", "192.0.2.1"],
        ["Priority", "u=1, i"],
      ]);
    case "values":
      return draw.shuffled<Field>([
        ["X-Empty", ""],
        ["X-Spaces", "a  b   c"],
        ["X-Tab", "a\tb"],
        ["X-Padded", "  padded \t "],
        ["X-Latin", "caf\u00e9 \u00a0 \u00ff"],
        ["X-Utf8", Buffer.from("naïve ☃").toString("latin1")],
        ["X-Quoted", '"a, \\"b\\"; c=d"'],
        ["X-List", ",a,, b ,"],
        ["X-Colon", "::a:b: "],
        ["X-Json", '{"a":[1,"\\u0000"]}'],
        ["X-Percent", "%0d%0aX-Injected:%201"],
        ["X-Long", "long".repeat(500 + draw.int(1000))],
        ["If-None-Match", 'W/"no-such-tag", "x"'],
        ["X-Number", "0"],
      ]);
    case "many": {
      // HAProxy holds a head in 16 KiB, Apache and Python take 100 fields.
      const isGenerous = origin === "bytes" || origin === "go";
      const count = isGenerous && draw.chance(0.3) ? 300 : 70;
      return Array.from({ length: count }, (_, i): Field => [
        `X-Field-${draw.chance(0.1) ? i - (i % 10) : i}`,
        "v".repeat(1 + draw.int(60)),
      ]);
    }
    case "hop":
      return draw.pick<Field[]>([
        [
          ["Connection", "X-Hop"],
          ["X-Hop", "ends at the next hop"],
          ["X-End", "goes on"],
        ],
        [["Keep-Alive", "timeout=5, max=100"]],
        [["TE", "trailers"]],
        [["TE", "gzip;q=0.5, trailers"]],
        [
          ["Connection", "Upgrade"],
          ["Upgrade", "unheard-of/1"],
        ],
        [
          ["Connection", "Upgrade, HTTP2-Settings"],
          ["Upgrade", "h2c"],
          ["HTTP2-Settings", "AAMAAABkAAQAAP__"],
        ],
        [
          ["Connection", "upgrade"],
          ["Upgrade", "TLS/1.2"],
        ],
        [["Upgrade", "websocket"]],
      ]);
  }
}

export function drawTrailers(draw: Chance): Field[] {
  return draw.shuffled<Field>([
    ["X-Checksum", "abc"],
    ["x-lower", "1"],
    ["X-Empty-Trailer", ""],
    ["X-Trailer-Long", "t".repeat(1 + draw.int(2000))],
  ]);
}

/** Paths that parsers like to change, and the files of the servers that have some. */
const ODD_TARGETS = [
  "/a%2Fb/c%2f",
  "/%41%7a%20",
  "//double//slash//",
  "/./a/../b/.",
  "/?",
  "/x?",
  "/x?a=1&&b=;c;=d",
  "/x?q=%00%ff%C3%A9",
  "/semi;colon;v=1.1/x",
  "/~'!$&()*+,;=:@",
  "/x?url=http://other.test/a?b",
  "/with%0d%0aline",
  "/..%2f..%2fetc/passwd",
  "http://origin.test/absolute?x=1",
  "http://origin.test",
  "HTTP://Origin.Test/Case",
];
/** Not what Host says, which it overrules (RFC 9112 §3.2.2). HAProxy refuses that, and may close on a body that still comes. */
const OTHER_HOSTS = ["http://origin.test:8080", "http://other.test/elsewhere"];
const FILES = ["/files/0", "/files/1", "/files/5000", "/files/70000", "/files/none", "/files/", "/files"];

export function drawTarget(draw: Chance, oddity: Cell["oddity"], origin: OriginName, method: string): string {
  if (oddity === "target") {
    // Go's library answers that itself.
    if (method === "OPTIONS" && origin !== "go" && draw.chance(0.2)) return "*";
    // nginx and Apache take 8 KiB for a request line.
    if (draw.chance(0.1)) return `/long?${"q".repeat(3000 + draw.int(4000))}`;
    // Others refuse a broken escape, and some of those close on a body that still comes.
    if ((origin === "bytes" || origin === "node") && draw.chance(0.1)) return "/%zz%?%";
    const isHaproxy = origin === "haproxy" || origin === "haproxy-node";
    return draw.pick(isHaproxy ? ODD_TARGETS : [...ODD_TARGETS, ...OTHER_HOSTS]);
  }
  if (origin === "nginx" || origin === "apache") return draw.pick([...FILES, "/echo?x=1"]);
  return draw.pick(["/", "/path?x=1", "/a/b/c"]);
}
