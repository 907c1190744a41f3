import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Explanation, ExplainQuestion } from "#/model/explanation.ts";
import { app, route, Scratch } from "../change/testing.ts";
import { instancePaths } from "../instance-paths.ts";
import { explain, headerOf } from "./explain.ts";

const ROUTES = route(
  "web",
  "{name: canary, matches: [{headers: [{name: x-canary, value: 'yes'}], path: {value: /}}], backendRefs: [{name: web-v2, port: 80}]}",
  `{
      matches: [{path: {value: /old}}],
      filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301}}],
    }`,
  `{
      matches: [{path: {value: /api}}],
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}}}],
      backendRefs: [{name: web, port: 80, weight: 3}, {name: gone, port: 80, weight: 1}],
      timeouts: {request: 2s, backendRequest: 500ms},
      retry: {codes: [503], attempts: 2},
    }`,
);
const CALLS = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web-v2}]
  rules: [{matches: [{method: {service: shop.Cart, method: Add}}], backendRefs: [{name: web, port: 80}]}]
`;
const POLICIES = `---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: hashed, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  balancing: {algorithm: ConsistentHash, hashOn: [{header: x-user}]}
---
apiVersion: pillion.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: calm, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  rates:
    - {requests: 5, matches: [{path: {type: PathPrefix, value: /v1/items}}]}
    - {requests: 50, matches: [{path: {type: PathPrefix, value: /api}}]}
---
apiVersion: pillion.dev/v1alpha1
kind: FaultPolicy
metadata: {name: trouble, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  from: [{serviceAccount: default}]
  faults: [{percent: 10, headers: [{name: x-chaos, value: "1"}], abort: {httpStatus: 500}}]
`;
const folder = new Scratch({
  "apps.yaml":
    app("web").replace("spec:\n  selector", "spec:\n  replicas: 3\n  selector") +
    app("web-v2") +
    app("load") +
    app("bare").replace("metadata: {labels", "metadata: {annotations: {linkerd.io/inject: disabled}, labels"),
  "routes.yaml": ROUTES,
  "calls.yaml": CALLS,
  "policies.yaml": POLICIES,
});
after(() => folder.remove());

const PATHS = instancePaths("none", {});

async function ask(
  over: Partial<ExplainQuestion>,
): Promise<{ told: Explanation; text: string; warned: string }> {
  const question: ExplainQuestion = {
    client: "deployment/load",
    namespace: null,
    service: "web",
    method: "GET",
    path: "/",
    headers: [],
    isHttp2: false,
    ...over,
  };
  const said: string[] = [];
  const warned: string[] = [];
  for (const json of [true, false])
    await explain(
      PATHS,
      { question, folder: folder.path, json },
      (text) => said.push(text),
      (text) => warned.push(text),
    );
  return { told: JSON.parse(said[0]!) as Explanation, text: said[1]!, warned: warned.join("\n") };
}

test("the rule that takes a request is told with its line, and why each other one does not", async () => {
  const { told, text } = await ask({ path: "/api/items?x=1" });
  assert.equal(told.client.workload, "deployment/load");
  assert.equal(told.target.name, "web.shop.svc.cluster.local:80");
  const { why, ...verdict } = told.route as Extract<Explanation["route"], { kind: "http" }>;
  assert.match(why, /prefix "\/api"/);
  assert.deepEqual(verdict, {
    kind: "http",
    route: "HTTPRoute/shop/web",
    rule: 3,
    ruleName: "",
    match: 1,
    from: { object: "HTTPRoute shop/web", file: "routes.yaml", line: lineIn(ROUTES, "value: /api") },
  });
  assert.deepEqual(
    told.others.map((each) => [each.rule, each.ruleName, each.why]),
    [
      [1, "canary", "header x-canary is missing"],
      [2, "", 'path "/api/items" is not prefix "/old"'],
    ],
  );
  assert.match(
    text,
    /^route {5}HTTPRoute\/shop\/web rule 3 match 1: .*\[HTTPRoute shop\/web, routes\.yaml:\d+\]$/m,
  );
  assert.match(text, /not HTTPRoute\/shop\/web rule 1 \(canary\) match 1: header x-canary is missing/);
});

test("backends come with their shares, one that does not exist with its error, timeouts and retries with their lines", async () => {
  const { told, warned } = await ask({ path: "/api/items" });
  assert.deepEqual(
    told.backends.map(({ name, share, refusal }) => [name, share, refusal !== ""]),
    [
      ["web.shop.svc.cluster.local:80", 0.75, false],
      ["Service/shop/gone", 0.25, true],
    ],
  );
  assert.match(warned, /routes\.yaml:\d+: HTTPRoute shop\/web: .*gone does not exist/);
  assert.equal(told.timeouts!.requestMs, 2000);
  assert.equal(told.timeouts!.attemptMs, 500);
  assert.equal(told.timeouts!.from.line, lineIn(ROUTES, "timeouts:"));
  assert.equal(told.retry!.policy.retriesMax, 2);
  assert.equal(told.retry!.from.line, lineIn(ROUTES, "retry:"));
});

test("limits are asked of the request as the server gets it, after the rewrite", async () => {
  const { told, text } = await ask({ path: "/api/items" });
  const [inbound] = told.backends[0]!.inbound;
  assert.equal(inbound!.authorization.allowed, true);
  assert.deepEqual(
    inbound!.rates.map(({ limit, applies, from }) => [limit.requests, applies, from.line]),
    [
      [5, true, lineIn(POLICIES, "requests: 5,")],
      [50, false, lineIn(POLICIES, "requests: 50,")],
    ],
  );
  assert.match(text, /at most 50 .*which does not count this request \[RateLimitPolicy shop\/calm/);
  assert.match(text, /rewrite => web\/v1\/items/);
});

test("the endpoint that a hashed header belongs to is named, the same each time", async () => {
  const seen = new Set<string>();
  for (let user = 0; user < 20; user++) {
    const header = ["x-user", `u${user}`] as const;
    const { told } = await ask({ path: "/api", headers: [header] });
    const { endpoint, reason, members } = told.backends[0]!.endpoints;
    assert.match(reason, /the key header x-user belongs to it/);
    assert.equal(members.length, 3);
    assert.equal(
      (await ask({ path: "/api", headers: [header] })).told.backends[0]!.endpoints.endpoint,
      endpoint,
    );
    seen.add(endpoint!);
  }
  assert.equal(seen.size, 3);
  const { told } = await ask({ path: "/api" });
  assert.equal(told.backends[0]!.endpoints.endpoint, null);
  assert.equal(told.backends[0]!.trafficFrom[0]!.object, "TrafficPolicy shop/hashed");
});

test("a redirect tells where it leads, a fault whether it is meant for the request", async () => {
  const { told } = await ask({ path: "/old/x" });
  const redirect = told.filters.find(({ filter }) => filter.kind === "redirect");
  assert.equal(redirect!.note, "http://web/new/x");
  assert.equal(redirect!.from.line, lineIn(ROUTES, "RequestRedirect"));
  const faultOf = ({ filters }: Explanation): boolean =>
    filters.find(({ filter }) => filter.kind === "fault")!.applies;
  assert.equal(faultOf(told), false);
  assert.equal(faultOf((await ask({ path: "/api", headers: [["X-Chaos", "1"]] })).told), true);
});

test("what no rule takes is refused; a client without a sidecar is told to have no policy", async () => {
  const none = await ask({ path: "/" });
  assert.equal(none.told.route.kind, "none");
  assert.match(none.text, /answered with 404/);
  const bare = await ask({ client: "bare", path: "/api" });
  assert.equal(bare.told.client.isMeshed, false);
  assert.match(bare.text, /the client has no sidecar/);
});

test("a Service without routes has the default one; a server without a sidecar limits nobody", async () => {
  const { told, text } = await ask({ service: "bare.shop:80" });
  assert.equal((told.route as { route: string }).route, "default/http");
  assert.equal(told.backends[0]!.share, 1);
  assert.match(text, /deployment\/bare \(shop\) port 8080 has no sidecar/);
});

test("a gRPC call goes by GRPCRoutes and its own deadline, other requests do not (GEP-1426)", async () => {
  const call = { service: "web-v2", method: "POST", path: "/shop.Cart/Add" };
  const { told } = await ask({
    ...call,
    headers: [
      ["Content-Type", "application/grpc+proto"],
      ["grpc-timeout", "100m"],
    ],
  });
  assert.equal((told.route as { route: string }).route, "GRPCRoute/shop/calls");
  assert.equal(told.timeouts!.callMs, 100);
  assert.equal(told.backends[0]!.name, "web.shop.svc.cluster.local:80");
  const other = await ask(call);
  assert.equal(other.told.route.kind, "none");
  assert.match(other.text, /it is a GRPCRoute, and this is no gRPC call/);
});

test("names that mean nothing are refused with what there is", async () => {
  await assert.rejects(ask({ client: "nobody" }), /no workload "nobody"; there are: .*deployment\/load/);
  await assert.rejects(ask({ service: "nothing" }), /no Service shop\/nothing/);
  await assert.rejects(ask({ service: "web:81" }), /no TCP port 81; it has 80/);
  assert.throws(() => headerOf("no header"), /write it as 'name: value'/);
  assert.deepEqual(headerOf("X-Test:  a: b "), ["X-Test", "a: b"]);
});

function lineIn(text: string, part: string): number {
  const lines = text.split("\n");
  const at = lines.findIndex((line) => line.includes(part));
  assert.ok(at >= 0, part);
  return at + 1;
}
