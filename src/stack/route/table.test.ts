import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { HttpMatch, HttpRoute, HttpRule } from "#/model/route.ts";
import type { RequestHead } from "../http/exchange.ts";
import { isGrpc } from "../http/mesh-answer.ts";
import { consider, RouteTable } from "./table.ts";
import { callOf, headOf, matchOf, routeOf, ruleTo } from "./testing.ts";

/** Name of the backend that the winning rule leads to; "none" without a winner. */
function winner(routes: readonly HttpRoute[], head: RequestHead): string {
  const backend = new RouteTable(routes).find(head)?.rule.backends[0]?.backend;
  return backend?.kind === "balancer" ? backend.path.split(".")[0]! : "none";
}

const rule = (to: string, ...matches: HttpMatch[]): HttpRule => ruleTo(to, matches);

interface Case {
  readonly routes: readonly HttpRoute[];
  readonly rows: readonly (readonly [head: RequestHead, winner: string])[];
}

/** Expected answers of the conformance suite of Gateway API v1.6 for the objects of the same name. */
const CASES: Readonly<Record<string, Case>> = {
  "mesh/httproute-matching": {
    routes: [
      routeOf("mesh-matching", [
        rule("v1", matchOf("/*"), matchOf("/*", { headers: { version: "one" } })),
        rule("v2", matchOf("/v2*"), matchOf("/*", { headers: { version: "two" } })),
      ]),
    ],
    rows: [
      [headOf("/"), "v1"],
      [headOf("/example"), "v1"],
      [headOf("/", { fields: ["Version", "one"] }), "v1"],
      [headOf("/v2"), "v2"],
      [headOf("/v2example"), "v1"],
      [headOf("/foo/v2/example"), "v1"],
      [headOf("/", { fields: ["Version", "two"] }), "v2"],
      [headOf("/v2/", { fields: ["Version", "one"] }), "v2"],
      [headOf("/v2/example", { fields: ["Version", "three"] }), "v2"],
    ],
  },
  "mesh/mesh-split": {
    routes: [routeOf("mesh-split", [rule("v1", matchOf("/v1")), rule("v2", matchOf("/v2"))])],
    rows: [
      [headOf("/v1"), "v1"],
      [headOf("/v2?q=1"), "v2"],
      [headOf("/"), "none"],
      [headOf("/v1/"), "none"],
      [headOf("/V1"), "none"],
    ],
  },
  "mesh/httproute-query-param-matching": {
    routes: [
      routeOf("query-param-matching", [
        rule("v1", matchOf("/*", { query: { animal: "whale" } })),
        rule("v2", matchOf("/*", { query: { animal: "dolphin" } })),
        rule("v3", matchOf("/*", { query: { animal: "dolphin", color: "blue" } })),
        rule("v1", matchOf("/*", { query: { ANIMAL: "Whale" } })),
        rule("path5", matchOf("/path5*", { query: { animal: "whale" } })),
        rule("header6", matchOf("/*", { headers: { version: "one" }, query: { animal: "whale" } })),
        rule("path1", matchOf("/path1*")),
      ]),
    ],
    rows: [
      [headOf("/?animal=whale"), "v1"],
      [headOf("/?animal=dolphin"), "v2"],
      [headOf("/?animal=whale&otherparam=irrelevant"), "v1"],
      [headOf("/?animal=dolphin&color=yellow"), "v2"],
      [headOf("/?color=blue"), "none"],
      [headOf("/?animal=dog"), "none"],
      [headOf("/"), "none"],
      [headOf("/?animal=dolphin&color=blue"), "v3"],
      [headOf("/?ANIMAL=Whale"), "v1"],
      [headOf("/?animal=dolphin&animal=whale"), "v2"],
      [headOf("/?animal=Whale"), "none"],
      [headOf("/path5?animal=whale"), "path5"],
      [headOf("/?animal=whale", { fields: ["version", "one"] }), "header6"],
      [headOf("/path1?animal=dolphin"), "path1"],
    ],
  },
  "httproute-path-match-order": {
    routes: [
      routeOf("path-matching-order", [
        rule("v1", matchOf("/match")),
        rule("v2", matchOf("/match/exact")),
        rule("v3", matchOf("/match/exact/one")),
        rule("v3", matchOf("/match/prefix/*")),
        rule("v2", matchOf("/match/prefix/one*")),
        rule("v1", matchOf("/match*")),
      ]),
    ],
    rows: [
      [headOf("/match/exact/one"), "v3"],
      [headOf("/match/exact"), "v2"],
      [headOf("/match"), "v1"],
      [headOf("/match/prefix/one/any"), "v2"],
      [headOf("/match/prefix/any"), "v3"],
      [headOf("/match/any"), "v1"],
    ],
  },
  "httproute-method-matching": {
    routes: [
      routeOf("method-matching", [
        rule("post", matchOf("/*", { method: "POST" })),
        rule("get", matchOf("/*", { method: "GET" })),
        rule("path1", matchOf("/path1*", { method: "GET" })),
        rule("header2", matchOf("/*", { method: "PUT", headers: { version: "two" } })),
        rule("path3", matchOf("/path3*")),
        rule("patch", matchOf("/*", { method: "PATCH" })),
        rule("header4", matchOf("/*", { headers: { version: "four" } })),
      ]),
    ],
    rows: [
      [headOf("/", { method: "POST" }), "post"],
      [headOf("/"), "get"],
      [headOf("/", { method: "HEAD" }), "none"],
      [headOf("/path1"), "path1"],
      [headOf("/", { method: "PUT", fields: ["Version", "two"] }), "header2"],
      [headOf("/path3", { method: "PATCH" }), "path3"],
      [headOf("/", { method: "PATCH", fields: ["version", "four"] }), "patch"],
    ],
  },
  "httproute-header-matching": {
    routes: [
      routeOf("header-matching", [
        rule("v1", matchOf(null, { headers: { version: "one" } })),
        rule("v2", matchOf(null, { headers: { version: "two" } })),
        rule("v1", matchOf(null, { headers: { version: "two", color: "orange" } })),
        rule(
          "v2",
          matchOf(null, { headers: { color: "blue" } }),
          matchOf(null, { headers: { color: "green" } }),
        ),
      ]),
    ],
    rows: [
      [headOf("/", { fields: ["version", "one"] }), "v1"],
      [headOf("/", { fields: ["version", "two"] }), "v2"],
      [headOf("/", { fields: ["version", "two", "color", "orange"] }), "v1"],
      [headOf("/", { fields: ["Color", "orange"] }), "none"],
      [headOf("/", { fields: ["COLOR", "blue"] }), "v2"],
      [headOf("/", { fields: ["color", "Blue"] }), "none"],
      [headOf("/", { fields: ["color", "green"] }), "v2"],
      // All fields of the name count as one value.
      [headOf("/", { fields: ["color", "green", "color", "blue"] }), "none"],
    ],
  },
  "grpcroute-exact-method-matching": {
    routes: [
      routeOf(
        "calls",
        [rule("v1", matchOf("rpc gw.Echo/Echo")), rule("v2", matchOf("rpc gw.Echo/EchoTwo"))],
        {
          kind: "GRPCRoute",
        },
      ),
    ],
    rows: [
      [callOf("gw.Echo/Echo"), "v1"],
      [callOf("gw.Echo/EchoTwo"), "v2"],
      [callOf("gw.Echo/EchoThree"), "none"],
      [headOf("/gw.Echo/Echo"), "none"],
    ],
  },
  "grpcroute-header-matching": {
    routes: [
      routeOf(
        "calls",
        [
          rule("any", matchOf("rpc /")),
          rule("method", matchOf("rpc /Echo")),
          rule("service", matchOf("rpc gw.Echo/"), matchOf("rpc gw.Echo/", { headers: { version: "two" } })),
          rule("both", matchOf("rpc gw.Echo/Echo")),
          rule("two", matchOf("rpc gw.Echo/", { headers: { version: "two", color: "blue" } })),
        ],
        { kind: "GRPCRoute" },
      ),
    ],
    rows: [
      [callOf("other/Other"), "any"],
      [callOf("other/Echo"), "method"],
      [callOf("gw.Echo/Other"), "service"],
      [callOf("gw.Echo/Other", ["version", "two"]), "service"],
      [callOf("gw.Echo/Other", ["version", "two", "color", "blue"]), "two"],
      [callOf("gw.Echo/Echo", ["version", "two"]), "both"],
    ],
  },
  "httproute-listener-hostname-matching": {
    routes: [
      routeOf("any", [rule("any", matchOf("/exact"))]),
      routeOf("suffix", [rule("suffix", matchOf("/*"))], { hosts: ["*.example.com"] }),
      routeOf("longer", [rule("longer", matchOf("/*"))], { hosts: ["*.b.example.com"] }),
      routeOf("exact", [rule("exact", matchOf("/*", { method: "GET" }))], { hosts: ["a.b.example.com"] }),
    ],
    rows: [
      [headOf("/exact", { authority: "a.b.example.com" }), "exact"],
      [headOf("/", { authority: "A.b.Example.com:8080" }), "exact"],
      [headOf("/", { authority: "a.b.example.com", method: "POST" }), "longer"],
      [headOf("/", { authority: "x.y.b.example.com" }), "longer"],
      [headOf("/exact", { authority: "b.example.com" }), "suffix"],
      [headOf("/exact", { authority: "example.com" }), "any"],
      [headOf("/", { authority: ".example.com" }), "none"],
      [headOf("/exact", { authority: "[::1]:80" }), "any"],
    ],
  },
  "bytes as they are forwarded": {
    routes: [
      routeOf("paths", [
        rule("admin", matchOf("/admin*")),
        rule("file", matchOf("/file%2Fname")),
        rule("double", matchOf("//a*")),
        rule("utf8", matchOf("/größe")),
        rule("rest", matchOf("/rest/*")),
      ]),
    ],
    rows: [
      [headOf("/admin/x"), "admin"],
      [headOf("/admin?x"), "admin"],
      [headOf("/%61dmin"), "none"],
      [headOf("/x/../admin"), "none"],
      [headOf("/./admin"), "none"],
      [headOf("//admin"), "none"],
      [headOf("//a/b"), "double"],
      [headOf("/file/name"), "none"],
      [headOf("/file%2fname"), "none"],
      [headOf("/file%2Fname"), "file"],
      [headOf("/gr\u00c3\u00b6\u00c3\u009fe"), "utf8"],
      [headOf("/rest"), "rest"],
      [headOf("/resting"), "none"],
    ],
  },
  "query parameters, decoded as forms are": {
    routes: [
      routeOf("query", [
        rule("space", matchOf("/*", { query: { q: "a b" } })),
        rule("empty", matchOf("/*", { query: { e: "" } })),
        rule("odd", matchOf("/*", { query: { "ü&": "100%" } })),
      ]),
    ],
    rows: [
      [headOf("/?q=a+b"), "space"],
      [headOf("/?q=a%20b"), "space"],
      [headOf("/?%71=a b"), "space"],
      [headOf("/?q=a%2Bb"), "none"],
      [headOf("/?x=1&e"), "empty"],
      [headOf("/?e="), "empty"],
      [headOf("/?&"), "none"],
      [headOf("/?%c3%bc%26=100%"), "odd"],
      [headOf("/?q"), "none"],
    ],
  },
  "requests without a path": {
    routes: [
      routeOf("all", [rule("all", matchOf("/*", { headers: { x: "1" } })), rule("b", matchOf("/b*"))]),
    ],
    rows: [
      [headOf("*", { method: "OPTIONS", fields: ["x", "1"] }), "all"],
      [headOf("", { method: "CONNECT", fields: ["x", "1"] }), "all"],
      [headOf("*", { method: "OPTIONS" }), "none"],
    ],
  },
  "regular expressions, between prefixes and what takes everything": {
    routes: [
      routeOf("regexes", [
        rule("all", matchOf("/*")),
        rule("version", matchOf("~/v[0-9]+/.*")),
        rule("prefix", matchOf("/v2*")),
        rule("exact", matchOf("/v1/exact")),
        rule("header", matchOf("~/v[0-9]+/.*", { headers: { "user-agent": "~curl/8[.].*" } })),
        rule("never", matchOf("~/x(", { headers: { x: "1" } })),
        rule("query", matchOf("/q*", { query: { id: "~[0-9]{3}" } })),
      ]),
    ],
    rows: [
      [headOf("/v1/a?x=/v2"), "version"],
      [headOf("/v1"), "all"],
      [headOf("/v2/a"), "prefix"],
      [headOf("/v1/exact"), "exact"],
      [headOf("/v1/a", { fields: ["User-Agent", "curl/8.1"] }), "header"],
      [headOf("/v1/a", { fields: ["User-Agent", "curl/7.1"] }), "version"],
      [headOf("/x(", { fields: ["x", "1"] }), "all"],
      [headOf("/q?id=123"), "query"],
      [headOf("/q?id=1234"), "all"],
    ],
  },
  "the older route, then the first rule": {
    routes: [
      routeOf("older", [rule("first", matchOf("/a*")), rule("second", matchOf("/a/*"))]),
      routeOf("newer", [rule("third", matchOf("/a*")), rule("fourth", matchOf("/a*", { method: "GET" }))]),
    ],
    rows: [
      [headOf("/a", { method: "PUT" }), "first"],
      [headOf("/a"), "fourth"],
    ],
  },
  "a GRPCRoute goes before an HTTPRoute, for calls": {
    routes: [
      routeOf("web", [rule("http", matchOf("/gw.Echo/Echo"))]),
      routeOf("calls", [rule("grpc", matchOf("rpc gw.Echo/"))], { kind: "GRPCRoute" }),
    ],
    rows: [
      [callOf("gw.Echo/Echo"), "grpc"],
      [headOf("/gw.Echo/Echo"), "http"],
      [callOf("other/Echo"), "none"],
    ],
  },
};

for (const [name, { routes, rows }] of Object.entries(CASES)) {
  test(`finds the rule: ${name}`, () => {
    for (const [head, expected] of rows)
      assert.equal(
        winner(routes, head),
        expected,
        `${head.method} ${head.authority} ${head.path} ${head.fields.join(" ")}`,
      );
  });
}

test("a target without routes of its own has nothing to look up", () => {
  assert.notEqual(new RouteTable([routeOf("default", [ruleTo("web")])]).only, null);
  assert.notEqual(new RouteTable([routeOf("default", [ruleTo("web", [matchOf("/*")])])]).only, null);
  for (const some of [matchOf("/a*"), matchOf(null, { method: "GET" }), matchOf("/*", { query: { a: "1" } })])
    assert.equal(new RouteTable([routeOf("web", [ruleTo("web", [some])])]).only, null);
  assert.equal(new RouteTable([routeOf("web", [ruleTo("web")], { hosts: ["a.b"] })]).only, null);
});

test("a match that cannot be followed never holds, and the table says why", () => {
  const { problems } = new RouteTable([
    routeOf("web", [rule("a", matchOf("~/a(")), rule("b", matchOf("/b", { headers: { x: "~*" } }))]),
  ]);
  assert.deepEqual(problems, [
    "HTTPRoute/shop/web, rule 1, match 1 never holds: the regular expression /a( cannot be used: missing ), at character 4",
    "HTTPRoute/shop/web, rule 2, match 1 never holds: the regular expression * cannot be used: nothing to repeat before *, at character 1",
  ]);
});

test("every candidate says why it does not win, and the winner why it does", () => {
  const routes = [
    routeOf("web", [
      rule("a", matchOf("/a*", { method: "PUT" })),
      rule("b", matchOf("/a/b*", { headers: { version: "two" } })),
      rule("c", matchOf("/*")),
      rule("d", matchOf("/a/b*")),
    ]),
    routeOf("other", [rule("e")], { hosts: ["*.other"] }),
    routeOf("calls", [rule("f")], { kind: "GRPCRoute" }),
  ];
  const verdicts = consider(new RouteTable(routes), headOf("/a/b/c"));
  assert.deepEqual(
    verdicts.map(({ wins, why }) => `${wins ? "wins" : "loses"}: ${why}`),
    [
      "loses: method GET is not PUT",
      "loses: header version is missing",
      "loses: it holds, and HTTPRoute/shop/web, rule 4 is more specific",
      'wins: prefix "/a/b", of HTTPRoute/shop/web, rule 4',
      'loses: host "web.shop" is none of *.other',
      "loses: it is a GRPCRoute, and this is no gRPC call",
    ],
  );
});

// --- the index against a reader of the specification ---

const SEGMENTS = ["a", "b", "", "a%2Fb", "svc", "m"];
const paths = fc.array(fc.constantFrom(...SEGMENTS), { maxLength: 4 }).map((all) => `/${all.join("/")}`);
const hosts = fc.constantFrom("x", "a.x", "b.a.x", "*.x", "*.a.x", "other");
const few = <T>(of: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(of, { nil: undefined });
const values = fc.dictionary(fc.constantFrom("h", "i"), fc.constantFrom("1", "2"), { maxKeys: 2 });
const matches = fc
  .record({
    path: fc.oneof(
      fc.constant(null),
      paths,
      paths.map((path) => `${path}*`),
      fc.constantFrom("rpc svc/m", "rpc svc/", "rpc /m", "rpc /"),
    ),
    method: few(fc.constantFrom("GET", "POST")),
    headers: few(values),
    query: few(values),
  })
  .map(({ path, method, headers, query }) =>
    matchOf(path, {
      ...(method === undefined ? {} : { method }),
      ...(headers === undefined ? {} : { headers }),
      ...(query === undefined ? {} : { query }),
    }),
  );
const routesOf = fc
  .array(
    fc.record({
      hosts: fc.array(
        hosts.filter((host) => host !== "b.a.x"),
        { maxLength: 2 },
      ),
      kind: fc.constantFrom("HTTPRoute", "HTTPRoute", "GRPCRoute"),
      rules: fc.array(fc.array(matches, { maxLength: 3 }), { maxLength: 3 }),
    }),
    { maxLength: 4 },
  )
  .map((all) =>
    all.map(({ hosts: own, kind, rules }, at) =>
      routeOf(
        `r${at}`,
        rules.map((each, rank) => ruleTo(`r${at}-${rank}`, each)),
        { hosts: own, kind },
      ),
    ),
  );
const heads = fc
  .record({
    path: fc.oneof(paths, fc.constant("/svc/m")),
    query: fc.constantFrom("", "?h=1", "?i=2&h=2&h=1", "?%68=1"),
    authority: hosts.filter((host) => !host.startsWith("*")),
    isCall: fc.boolean(),
    fields: fc.array(fc.tuple(fc.constantFrom("h", "I", "i"), fc.constantFrom("1", "2")), { maxLength: 3 }),
  })
  .map(({ path, query, authority, isCall, fields }) => ({
    ...(isCall ? callOf("", fields.flat()) : headOf("", { fields: fields.flat() })),
    path: path + query,
    authority,
  }));

test("the index finds what a reader of the specification finds who looks at every match", () => {
  fc.assert(
    fc.property(routesOf, heads, (routes, head) => {
      const found = new RouteTable(routes).find(head);
      assert.equal(
        found === null ? null : `${found.route.source.name} ${found.ruleIndex} ${found.matchIndex}`,
        reference(routes, head),
      );
    }),
    { numRuns: 3_000 },
  );
});

/** Gives every match a rank as the specification words it, and takes the first of the highest. */
function reference(routes: readonly HttpRoute[], head: RequestHead): string | null {
  let best: { rank: number[]; name: string } | null = null;
  for (const route of routes) {
    const isCallRoute = route.source.kind === "GRPCRoute";
    if (isCallRoute && !isGrpc(head)) continue;
    for (const [ruleIndex, each] of route.rules.entries()) {
      for (const [matchIndex, match] of (each.matches.length === 0 ? [null] : each.matches).entries()) {
        for (const host of route.hosts.length === 0 ? [null] : route.hosts) {
          const hostRank =
            host === null
              ? 0
              : host.kind === "exact"
                ? head.authority === host.host
                  ? 1_000
                  : -1
                : head.authority.endsWith(`.${host.host}`)
                  ? host.host.length
                  : -1;
          const pathRank = rankOfPath(match?.path ?? null, head.path.split("?")[0]!);
          if (hostRank < 0 || pathRank < 0) continue;
          if (match !== null && match.method !== null && match.method !== head.method) continue;
          if (
            match !== null &&
            !match.headers.every(({ name, value }) => headerOf(head, name) === value.value)
          )
            continue;
          const asked = new URLSearchParams(head.path.split("?")[1] ?? "");
          if (match !== null && !match.query.every(({ name, value }) => asked.get(name) === value.value))
            continue;
          const rank = [
            isCallRoute ? 1 : 0,
            hostRank,
            pathRank,
            (match?.method ?? null) === null ? 0 : 1,
            match?.headers.length ?? 0,
            match?.query.length ?? 0,
          ];
          if (best === null || isHigher(rank, best.rank))
            best = { rank, name: `${route.source.name} ${ruleIndex} ${matchIndex}` };
        }
      }
    }
  }
  return best?.name ?? null;
}

function rankOfPath(match: HttpMatch["path"], path: string): number {
  if (match === null) return 0;
  if (match.kind === "exact") return match.value === path ? 10_000 : -1;
  if (match.kind === "prefix") {
    const asked = match.value.replace(/\/$/, "").split("/");
    return asked.every((segment, at) => path.split("/")[at] === segment) ? 10 * (asked.length - 1) : -1;
  }
  assert(match.kind === "rpc");
  const [, service = "", ...rest] = path.split("/");
  const method = path.split("/").length < 3 ? null : rest.join("/");
  if (match.service !== "" && match.service !== service) return -1;
  if (match.method !== "" && match.method !== method) return -1;
  if (match.service !== "") return match.method === "" ? 10 : 10_000;
  return match.method === "" ? 0 : 5;
}

function headerOf({ fields }: RequestHead, name: string): string | null {
  const all = fields.filter((_, at) => at % 2 === 1 && fields[at - 1]!.toLowerCase() === name);
  return all.length === 0 ? null : all.join(",");
}

function isHigher(a: readonly number[], b: readonly number[]): boolean {
  const at = a.findIndex((each, index) => each !== b[index]);
  return at !== -1 && a[at]! > b[at]!;
}
