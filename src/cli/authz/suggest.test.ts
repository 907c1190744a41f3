import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAllDocuments } from "yaml";
import { ANY_METHOD, ANY_PATH } from "#/model/flow.ts";
import { suggest } from "./suggest.ts";
import { suggestionsYaml } from "./suggest-yaml.ts";
import { file, flow, server } from "./testing.ts";

const NETWORK = { namespace: null, level: "network" } as const;
const REQUESTS = { namespace: null, level: "requests" } as const;

test("clients that use the same ports alike are one rule; probes and what was refused are none", () => {
  const seen = file(
    server("web", [
      flow("front", "GET /a"),
      flow("front", "GET /b", { would: { verdict: "would_deny", rule: "x" } }),
      flow("load", "POST /c"),
      flow("admin.ops", "GET /a", { port: 9000 }),
      flow("10.211.0.1", "GET /healthz", { rule: "default/probe" }),
      flow("stranger", "GET /a", { verdict: "denied" }),
    ]),
    server("idle", []),
  );
  const { policies, left } = suggest(seen, NETWORK);
  assert.deepEqual(
    policies.map(({ name, target, rules, refused }) => ({
      name,
      target,
      rules: rules.map((rule) => ({
        name: rule.name,
        sources: rule.sources,
        ports: rule.ports,
        requests: rule.requests,
      })),
      refused: refused.length,
    })),
    [
      {
        name: "web",
        target: { kind: "Pod", selector: { matchLabels: { app: "web" } } },
        rules: [
          {
            name: "front-and-load",
            sources: [
              { type: "ServiceAccount", serviceAccount: { name: "front" } },
              { type: "ServiceAccount", serviceAccount: { name: "load" } },
            ],
            ports: [8080],
            requests: null,
          },
          {
            name: "ops-admin",
            sources: [{ type: "ServiceAccount", serviceAccount: { namespace: "ops", name: "admin" } }],
            ports: [9000],
            requests: null,
          },
        ],
        refused: 1,
      },
    ],
  );
  assert.deepEqual(
    left.map(({ server: { workload } }) => workload),
    ["deployment/idle"],
  );
});

test("who shows no identity is allowed by address, with a warning; who is of another trust domain by SPIFFE ID", () => {
  const foreign = flow("web", "GET /");
  const seen = file(
    server("web", [
      flow("192.0.2.7", "GET /"),
      flow("192.0.3.0/24", "GET /"),
      {
        ...foreign,
        client: { ...foreign.client, identity: "web.shop.serviceaccount.identity.linkerd.other.example" },
      },
    ]),
  );
  const { policies } = suggest(seen, NETWORK);
  assert.deepEqual(policies[0]!.rules[0]!.sources, [
    { type: "SPIFFE", spiffe: "spiffe://other.example/ns/shop/sa/web" },
    { type: "Unauthenticated", cidrs: ["192.0.2.7/32"] },
    { type: "Unauthenticated", cidrs: ["192.0.3.0/24"] },
  ]);
  assert.match(
    suggestionsYaml({ policies, left: [] }, { mode: "Audit", heading: [] }),
    /# WARNING: 192\.0\.2\.7\/32 shows no identity/,
  );
});

test("level requests: methods and paths, ids as patterns, gRPC by service and method", () => {
  const seen = file(
    server("orders", [
      flow("front", "GET /orders"),
      flow("front", "POST /orders"),
      flow("front", "GET /orders/{number}/lines"),
      flow("front", "GET /a.b/{uuid}"),
      flow("front", "gRPC shop.Orders/Quote"),
      flow("front", "gRPC shop.Orders/List"),
    ]),
  );
  assert.deepEqual(suggest(seen, REQUESTS).policies[0]!.rules[0]!.requests, [
    {
      methods: ["GET"],
      paths: [
        { type: "RegularExpression", value: "/a\\.b/[^/]+" },
        { type: "RegularExpression", value: "/orders/[^/]+/lines" },
      ],
    },
    { methods: ["GET", "POST"], paths: [{ type: "Exact", value: "/orders" }] },
    {
      grpc: [
        { service: "shop.Orders", method: "List" },
        { service: "shop.Orders", method: "Quote" },
      ],
    },
  ]);
});

test("level requests: names of things become patterns, words and versions stay", () => {
  const paths = [
    ...["customer1", "customer2", "customer17"].map((name) => `/cart/${name}/items`),
    "/cart/all",
    ...["v1", "v2", "v3"].map((version) => `/api/${version}`),
    ...Array.from({ length: 21 }, (_, i) => `/articles/${"abcdefghijklmnopqrstu"[i]}-story`),
  ];
  const seen = file(
    server(
      "web",
      paths.map((path) => flow("front", `GET ${path}`)),
    ),
  );
  assert.deepEqual(suggest(seen, REQUESTS).policies[0]!.rules[0]!.requests, [
    {
      methods: ["GET"],
      paths: [
        { type: "Exact", value: "/api/v1" },
        { type: "Exact", value: "/api/v2" },
        { type: "Exact", value: "/api/v3" },
        { type: "RegularExpression", value: "/articles/[^/]+" },
        { type: "Exact", value: "/cart/all" },
        { type: "RegularExpression", value: "/cart/[^/]+/items" },
      ],
    },
  ]);
});

test("level requests: what cannot be listed is allowed as a whole, and that is said", () => {
  const any = flow("noisy", "GET /", { method: ANY_METHOD, path: ANY_PATH });
  const seen = file(server("web", [flow("noisy", "GET /a"), any, flow("db", "")]));
  const { rules } = suggest(seen, REQUESTS).policies[0]!;
  assert.deepEqual(
    rules.map(({ name, requests, doubts }) => [name, requests, doubts.length]),
    [["db-and-noisy", null, 1]],
  );
});

test("level requests: a path with several readings is told of, for no rule can allow it", () => {
  const seen = file(server("web", [flow("front", "GET /a%2Fb"), flow("front", "GET //a/./b")]));
  const { rules } = suggest(seen, REQUESTS).policies[0]!;
  assert.deepEqual(rules[0]!.requests, [{ methods: ["GET"], paths: [{ type: "Exact", value: "/a/b" }] }]);
  assert.match(rules[0]!.doubts.join(), /^GET \/a%2Fb has several readings/);
});

test("the bounds of the schema are kept", () => {
  const clients = Array.from({ length: 300 }, (_, i) => flow(`client-${i}`, "GET /"));
  const apart = Array.from({ length: 150 }, (_, i) => flow(`odd-${i}`, `GET /${i}-x`));
  const { policies } = suggest(file(server("web", clients), server("api", apart)), REQUESTS);
  for (const { rules } of policies) {
    assert.ok(rules.length <= 128);
    for (const rule of rules) assert.ok(rule.sources.length <= 128 && rule.name.length <= 63, rule.name);
  }
  assert.deepEqual(
    policies.map(({ name, rules }) => [name, rules.length]),
    [
      ["web", 3],
      ["api", 128],
      ["api-2", 22],
    ],
  );
});

test("the YAML says what was learned from what, and is the same each time", () => {
  const seen = file(
    server("web", [flow("front", "GET /a", { count: 5 }), flow("stranger", "GET /", { verdict: "denied" })]),
    server("idle", []),
  );
  const text = (): string =>
    suggestionsYaml(suggest(seen, REQUESTS), { mode: "Audit", heading: ["From what was seen."] });
  assert.equal(text(), text());
  assert.equal(
    text(),
    `# From what was seen.
# shop/deployment/idle: nobody was let in, so nothing is suggested for it
---
# Who may use shop/deployment/web.
# Was refused, and is not allowed here:
#   stranger: 10 × GET / on port 8080, 2026-01-02T12:00:00Z to 2026-01-02T12:01:00Z (denied by default/all-unauthenticated)

apiVersion: pillion.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Pod, selector: {matchLabels: {app: web}}}]
  action: ALLOW
  mode: Audit
  rules:
    #   front: 5 × GET /a on port 8080, 2026-01-02T12:00:00Z to 2026-01-02T12:01:00Z
    - name: front
      sources:
        - {type: ServiceAccount, serviceAccount: {name: front}}
      networkAttributes: {ports: [8080]}
      requests:
        - {methods: [GET], paths: [{type: Exact, value: /a}]}
`,
  );
  const documents = parseAllDocuments(text()).map((document) => document.toJS() as unknown);
  assert.equal(documents.filter((each) => each !== null).length, 1);
});
