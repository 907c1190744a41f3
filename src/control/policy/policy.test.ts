import assert from "node:assert/strict";
import { test } from "node:test";
import { gatewayObject, parent, PolicyWorld, service } from "./testing.ts";

const route = (name: string, parents: string, rules: string, namespace = "shop", more = ""): string =>
  gatewayObject("HTTPRoute", name, `{parentRefs: [${parents}], rules: [${rules}]}`, namespace, more);
const grantTo = (namespace: string, kinds: readonly string[], of: string): string => {
  const from = kinds.map((kind) => `{group: gateway.networking.k8s.io, kind: ${kind}, namespace: ${of}}`);
  return gatewayObject(
    "ReferenceGrant",
    "g",
    `{from: [${from.join(", ")}], to: [{group: "", kind: Service}]}`,
    namespace,
  );
};
const to = (name: string, more = ""): string => `{backendRefs: [{name: ${name}, port: 80${more}}]}`;

test("a Service without routes is forwarded to, with one it is routed (GEP-1294)", () => {
  const world = new PolicyWorld(service("web") + service("api") + route("r", parent("web"), to("api")));
  const plain = world.ask("shop/api");
  assert.equal(plain.http[0]!.rules[0]!.matches.length, 0);
  assert.equal(plain.http[0]!.rules[0]!.backends[0]!.backend.kind, "balancer");
  const [rule] = world.ask("shop/web").http[0]!.rules;
  assert.deepEqual(rule!.matches, [
    { path: { kind: "prefix", value: "/" }, headers: [], query: [], method: null },
  ]);
  const { backend } = rule!.backends[0]!;
  assert.equal(backend.kind === "balancer" && backend.path, "api.shop.svc.cluster.local:80");
  assert.deepEqual(world.conditions("HTTPRoute", "shop/r"), [""]);
  assert.deepEqual(world.problems, []);
});

test("a consumer's route is for clients of its namespace, and goes before producers' there (GEP-1294)", () => {
  const world = new PolicyWorld(
    service("web") +
      route("producer", parent("web"), to("web")) +
      route("consumer", parent("web", ", namespace: shop"), to("web", ", namespace: shop"), "desk"),
  );
  assert.deepEqual(world.routes("shop/web", 80, "shop"), ["HTTPRoute/shop/producer"]);
  assert.deepEqual(world.routes("shop/web", 80, "elsewhere"), ["HTTPRoute/shop/producer"]);
  assert.deepEqual(world.routes("shop/web", 80, "desk"), ["HTTPRoute/desk/consumer"]);
  assert.deepEqual(world.problems, [], "no grant is needed to send back to the Service that is routed");
});

test("parentRef.port and sectionName choose ports; without them all are meant (GEP-1294)", () => {
  const world = new PolicyWorld(
    service("web", "shop", "{name: http, port: 80}, {name: alt, port: 8080}, {name: third, port: 81}") +
      route("by-port", parent("web", ", port: 80"), to("web")) +
      route("by-name", parent("web", ", sectionName: alt"), to("web")) +
      route("nowhere", parent("web", ", port: 80, sectionName: alt"), to("web")),
  );
  assert.deepEqual(world.routes("shop/web", 80), ["HTTPRoute/shop/by-port"]);
  assert.deepEqual(world.routes("shop/web", 8080), ["HTTPRoute/shop/by-name"]);
  assert.deepEqual(world.ask("shop/web", 81).http[0]!.source.kind, "Service");
  assert.deepEqual(world.conditions("HTTPRoute", "shop/nowhere"), ["Accepted=False (NoMatchingParent)"]);
});

test("a question is answered from what was compiled once", () => {
  const world = new PolicyWorld(service("web") + route("r", parent("web"), to("web")));
  assert.equal(world.ask("shop/web").http, world.ask("shop/web", 80, "desk").http);
});

test("routes come by age, then by name (Gateway API, HTTPRouteRule)", () => {
  const world = new PolicyWorld(
    service("web") +
      route("z", parent("web"), to("web")) +
      route("a", parent("web"), to("web")) +
      route("b", parent("web"), to("web"), "shop", ", creationTimestamp: 2026-01-02T00:00:00Z") +
      route("c", parent("web"), to("web"), "shop", ", creationTimestamp: 2026-01-01T00:00:00Z"),
  );
  assert.deepEqual(world.routes("shop/web"), [
    "HTTPRoute/shop/c",
    "HTTPRoute/shop/b",
    "HTTPRoute/shop/a",
    "HTTPRoute/shop/z",
  ]);
});

test("one kind of route counts for a port: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute (GEP-1294)", () => {
  const refs = "rules: [{backendRefs: [{name: web, port: 80}]}]";
  const all = [
    ["GRPCRoute", `{parentRefs: [${parent("web", ", port: 80")}], ${refs}}`],
    ["HTTPRoute", `{parentRefs: [${parent("web", ", port: 80")}, ${parent("web", ", port: 81")}], ${refs}}`],
    ["TLSRoute", `{hostnames: [a.example], parentRefs: [${parent("web", ", port: 82")}], ${refs}}`],
    ["TCPRoute", `{parentRefs: [${parent("web")}], ${refs}}`],
  ].map(([kind, spec]) => gatewayObject(kind!, "r", spec!));
  const world = new PolicyWorld(
    service(
      "web",
      "shop",
      "{name: a, port: 80}, {name: b, port: 81}, {name: c, port: 82}, {name: d, port: 83}",
    ) + all.join(""),
  );
  assert.deepEqual(
    [80, 81, 82, 83].map((port) => world.routes("shop/web", port)),
    [["GRPCRoute/shop/r"], ["HTTPRoute/shop/r"], ["TLSRoute/shop/r"], ["TCPRoute/shop/r"]],
  );
  assert.deepEqual(world.conditions("HTTPRoute", "shop/r"), ["Accepted=False (Conflicted)", ""]);
  assert.deepEqual(world.conditions("TCPRoute", "shop/r"), [""], "a port is left");
  assert.deepEqual(world.ask("shop/web", 82).tcp[0]!.serverNames, [{ kind: "exact", host: "a.example" }]);
});

test("a backend that cannot be followed answers with an error in its share, and the status says why", () => {
  const world = new PolicyWorld(
    service("web") +
      route(
        "r",
        parent("web"),
        "{backendRefs: [{name: web, port: 80, weight: 3}, {name: gone, port: 80}, {name: web, port: 9}, {name: x, kind: Bucket, group: s3.example}]}",
      ),
  );
  const backends = world.ask("shop/web").http[0]!.rules[0]!.backends;
  assert.deepEqual(
    backends.map(({ weight, backend }) => [weight, backend.kind]),
    [
      [3, "balancer"],
      [1, "forbidden"],
      [1, "forbidden"],
      [1, "forbidden"],
    ],
  );
  assert.deepEqual(world.conditions("HTTPRoute", "shop/r"), ["ResolvedRefs=False (BackendNotFound)"]);
  assert.deepEqual(
    world.problems.map((line) => line.split(": ").slice(0, 3).join(": ")),
    [
      "f.yaml:10: HTTPRoute shop/r: spec.rules[0].backendRefs[1].name Service shop/gone does not exist; check the name and the namespace",
      "f.yaml:10: HTTPRoute shop/r: spec.rules[0].backendRefs[2].port Service shop/web has no TCP port 9; it has 80",
      "f.yaml:10: HTTPRoute shop/r: spec.rules[0].backendRefs[3].kind a backend must be a Service of the core group or an XBackend, not a Bucket",
    ],
  );
});

test("a backend of another namespace needs a ReferenceGrant there (Gateway API)", () => {
  const asking = service("web") + service("desk", "desk");
  const refused = route("r", parent("desk"), to("web", ", namespace: shop"), "desk");
  const without = new PolicyWorld(asking + refused);
  assert.deepEqual(without.conditions("HTTPRoute", "desk/r"), ["ResolvedRefs=False (RefNotPermitted)"]);
  assert.equal(without.ask("desk/desk").http[0]!.rules[0]!.backends[0]!.backend.kind, "forbidden");
  const from = (kind: string, namespace: string): string =>
    `{group: gateway.networking.k8s.io, kind: ${kind}, namespace: ${namespace}}`;
  for (const [where, asker, name, isGranted] of [
    ["shop", from("HTTPRoute", "desk"), "", true],
    ["shop", from("HTTPRoute", "desk"), ", name: web", true],
    ["shop", from("HTTPRoute", "desk"), ", name: api", false],
    ["shop", from("HTTPRoute", "other"), "", false],
    ["shop", from("GRPCRoute", "desk"), "", false],
    ["desk", from("HTTPRoute", "desk"), "", false],
  ] as const) {
    const spec = `{from: [${asker}], to: [{group: "", kind: Service${name}}]}`;
    const world = new PolicyWorld(asking + refused + gatewayObject("ReferenceGrant", "g", spec, where));
    const { kind } = world.ask("desk/desk").http[0]!.rules[0]!.backends[0]!.backend;
    assert.equal(kind, isGranted ? "balancer" : "forbidden", `${where} ${spec}`);
  }
});

test("a mirror into another namespace, and a connection's backend there, need a ReferenceGrant too", () => {
  const away = "{name: web, namespace: shop, port: 80}";
  const asking =
    service("web") +
    service("desk", "desk", "{name: http, port: 80}, {name: db, port: 81}") +
    gatewayObject(
      "HTTPRoute",
      "mirrors",
      `{parentRefs: [${parent("desk", ", port: 80")}], rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: ${away}}}], backendRefs: [{name: desk, port: 80}]}]}`,
      "desk",
    ) +
    gatewayObject(
      "TCPRoute",
      "bytes",
      `{parentRefs: [${parent("desk", ", port: 81")}], rules: [{backendRefs: [${away}]}]}`,
      "desk",
    );
  const grant = grantTo("shop", ["HTTPRoute", "TCPRoute"], "desk");
  const without = new PolicyWorld(asking);
  assert.deepEqual(without.conditions("HTTPRoute", "desk/mirrors"), ["ResolvedRefs=False (RefNotPermitted)"]);
  assert.deepEqual(without.conditions("TCPRoute", "desk/bytes"), ["ResolvedRefs=False (RefNotPermitted)"]);
  assert.deepEqual(without.ask("desk/desk").http[0]!.rules[0]!.filters, []);
  assert.equal(without.ask("desk/desk", 81).tcp[0]!.backends[0]!.backend.kind, "forbidden");
  const granted = new PolicyWorld(asking + grant);
  assert.deepEqual(granted.problems, []);
  assert.equal(granted.ask("desk/desk").http[0]!.rules[0]!.filters[0]!.kind, "mirror");
  assert.equal(granted.ask("desk/desk", 81).tcp[0]!.backends[0]!.backend.kind, "balancer");
});

test("a mirror that leads nowhere is left out, and told of", () => {
  const mirror =
    "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}], backendRefs: [{name: web, port: 80}]}";
  const world = new PolicyWorld(service("web") + route("r", parent("web"), mirror));
  assert.deepEqual(world.ask("shop/web").http[0]!.rules[0]!.filters, []);
  assert.deepEqual(world.conditions("HTTPRoute", "shop/r"), ["ResolvedRefs=False (BackendNotFound)"]);
});

test("a parent that is no Service, or none with an address, is told of", () => {
  const headless =
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\nspec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}\n";
  const world = new PolicyWorld(
    service("web", "shop", "{name: tcp-db, port: 80}") +
      headless +
      route("r", `{name: gw}, ${parent("gone")}, ${parent("db")}, ${parent("web")}`, to("web")),
  );
  assert.deepEqual(world.conditions("HTTPRoute", "shop/r"), [
    "Accepted=False (NoMatchingParent)",
    "Accepted=False (NoMatchingParent)",
    "Accepted=False (UnsupportedValue)",
    "Accepted=False (UnsupportedProtocol)",
  ]);
  assert.match(
    world.problems.join("\n"),
    /f\.yaml:\d+: HTTPRoute shop\/r: spec\.parentRefs\[0\]\.kind a Gateway is no parent here/,
  );
});

test("mirrors in a circle are left out and told of; another mirror stays", () => {
  const mirror = (name: string): string =>
    `{filters: [{type: RequestMirror, requestMirror: {percent: 10, backendRef: {name: ${name}, port: 80}}}], backendRefs: [{name: c, port: 80}]}`;
  const world = new PolicyWorld(
    ["a", "b", "c"].map((name) => service(name)).join("") +
      route("one", parent("a"), mirror("b")) +
      route("two", parent("b"), `${mirror("a")}, ${mirror("c")}`),
  );
  const filters = (name: string): number[] =>
    world.ask(name).http[0]!.rules.map((rule) => rule.filters.length);
  assert.deepEqual([filters("shop/a"), filters("shop/b")], [[0], [0, 1]]);
  assert.deepEqual(world.conditions("HTTPRoute", "shop/one"), ["ResolvedRefs=False (MirrorCycle)"]);
  assert.match(
    world.problems[0]!,
    /^f\.yaml:\d+: HTTPRoute shop\/one: .*in a circle \(shop\/a to shop\/b to shop\/a\)/,
  );
});

test("a mirror to a Service of the same name in another namespace is no circle, one back from there is", () => {
  const mirror = (namespace: string): string =>
    `{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, namespace: ${namespace}, port: 80}}}]}`;
  const services =
    service("a") +
    service("a", "desk") +
    grantTo("shop", ["HTTPRoute"], "desk") +
    grantTo("desk", ["HTTPRoute"], "shop");
  const there = route("r", parent("a"), mirror("desk"));
  assert.deepEqual(new PolicyWorld(services + there).problems, []);
  const both = new PolicyWorld(services + there + route("r", parent("a"), mirror("shop"), "desk"));
  assert.deepEqual(both.conditions("HTTPRoute", "desk/r"), ["ResolvedRefs=False (MirrorCycle)"]);
});

test("a filter that is not honoured is never skipped: its rule answers with an error", () => {
  const extension = "{type: ExtensionRef, extensionRef: {group: x.example, kind: Filter, name: f}}";
  const bad = `{filters: [${extension}], backendRefs: [{name: web, port: 80}]}`;
  const part = new PolicyWorld(service("web") + route("r", parent("web"), `${bad}, ${to("web")}`));
  assert.deepEqual(part.conditions("HTTPRoute", "shop/r"), ["PartiallyInvalid=True (UnsupportedValue)"]);
  assert.match(
    part.view.policy.statuses.get("HTTPRoute/shop/r")![0]!.conditions.at(-1)!.message,
    /^Dropped Rule 0: /,
  );
  const [first, second] = part.ask("shop/web").http[0]!.rules;
  assert.equal(first!.filters[0]!.kind, "fail");
  assert.deepEqual(second!.filters, []);
  const whole = new PolicyWorld(service("web") + route("r", parent("web"), bad));
  assert.deepEqual(whole.conditions("HTTPRoute", "shop/r"), ["Accepted=False (UnsupportedValue)"]);
  assert.equal(whole.ask("shop/web").http[0]!.rules[0]!.filters[0]!.kind, "fail");
});

test("Linkerd's own HTTPRoute is the same kind, beside one of the standard's with its name", () => {
  const linkerd = `---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: core, kind: Service, name: web, port: 80}], rules: [{backendRefs: [{group: core, kind: Service, name: web, port: 80}]}]}
`;
  const world = new PolicyWorld(service("web") + linkerd + route("r", parent("web"), to("web")));
  assert.deepEqual(world.problems, []);
  const sources = world.ask("shop/web").http.map((each) => each.source);
  assert.deepEqual(
    sources.map((source) => [source.group, world.view.policy.objectOf(source)?.lineOf([])]),
    [
      ["policy.linkerd.io", 7],
      ["gateway.networking.k8s.io", 12],
    ],
  );
});
