import assert from "node:assert/strict";
import { test } from "node:test";
import { instancePaths } from "../instance-paths.ts";
import { diff } from "./diff.ts";
import type { Difference } from "./diff.ts";
import { app, route, Scratch } from "./testing.ts";

async function run(
  before: Readonly<Record<string, string>>,
  after: Readonly<Record<string, string>>,
): Promise<{ code: number; differences: readonly Difference[]; text: string }> {
  const [from, to] = [new Scratch(before), new Scratch(after)];
  try {
    const said: string[] = [];
    const paths = instancePaths("none", {});
    const ask = async (json: boolean): Promise<number> =>
      await diff(paths, { folder: to.path, from: from.path, json }, (text) => said.push(text));
    const code = await ask(true);
    assert.equal(await ask(false), code);
    const { differences } = JSON.parse(said[0]!) as { differences: Difference[] };
    return { code, differences, text: said[1]! };
  } finally {
    from.remove();
    to.remove();
  }
}

const BASE = app("web") + app("web-v2") + app("load") + app("other", "elsewhere");
const SPLIT = (a: number, b: number): string =>
  route(
    "split",
    `{backendRefs: [{name: web, port: 80, weight: ${a}}, {name: web-v2, port: 80, weight: ${b}}]}`,
  );

test("comments, other files, the order of objects and defaults written down change nothing", async () => {
  const exact =
    '{matches: [{headers: [{name: a, value: "1"}, {name: b, value: "2"}]}], backendRefs: [{name: web, port: 80}]}';
  const moved = exact.replace(
    '{name: a, value: "1"}, {name: b, value: "2"}',
    '{name: b, value: "2"}, {name: a, value: "1"}',
  );
  const defaults = `---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: t, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], balancing: {algorithm: PeakEWMA}}
`;
  const { code, text } = await run(
    { "all.yaml": BASE + route("r", exact) + SPLIT(1, 1) },
    { "b.yaml": `# Moved.\n${SPLIT(1, 1)}${route("r", moved)}${defaults}`, "a.yaml": BASE },
  );
  assert.equal(text, "nothing would change");
  assert.equal(code, 0);
});

test("a weight, a timeout and a retry are told for the clients that are told of them, field by field", async () => {
  const { code, differences, text } = await run(
    { "web.yaml": BASE + SPLIT(90, 10) },
    { "web.yaml": BASE + SPLIT(50, 50).replace("{backendRefs", "{timeouts: {request: 2s}, backendRefs") },
  );
  assert.equal(code, 1);
  const all = [
    "deployment/elsewhere/other",
    "deployment/shop/load",
    "deployment/shop/web",
    "deployment/shop/web-v2",
  ];
  assert.deepEqual(
    differences.map(({ kind, workloads, target }) => ({ kind, workloads, target })),
    [{ kind: "outbound", workloads: all, target: "web.shop:80" }],
  );
  assert.deepEqual(differences[0]!.changes, [
    {
      path: "http: HTTPRoute/shop/split: rules: rule 1: backends: Service/shop/web:80: weight",
      before: 90,
      after: 50,
    },
    {
      path: "http: HTTPRoute/shop/split: rules: rule 1: backends: Service/shop/web-v2:80: weight",
      before: 10,
      after: 50,
    },
    { path: "http: HTTPRoute/shop/split: rules: rule 1: timeouts: requestMs", before: null, after: 2000 },
  ]);
  assert.match(text, /-> web\.shop:80\n/);
  assert.match(text, /~ .*Service\/shop\/web:80: weight: 90 -> 50/);
});

test("a consumer's route is told for the clients of its namespace alone", async () => {
  const mine = route("mine", "{backendRefs: [{name: web, port: 80, namespace: shop}]}")
    .replace("namespace: shop}\nspec", "namespace: elsewhere}\nspec")
    .replace("name: web}]", "name: web, namespace: shop}]");
  const { differences } = await run({ "web.yaml": BASE }, { "web.yaml": BASE + mine });
  assert.deepEqual(
    differences.map(({ workloads }) => workloads),
    [["deployment/elsewhere/other"]],
  );
});

test("limits are told for the workload that keeps them; new Services and replicas for themselves", async () => {
  const limit = `---
apiVersion: pillion.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: l, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], rates: [{requests: 10}]}
`;
  const { differences, text } = await run(
    { "web.yaml": BASE },
    {
      "web.yaml":
        BASE.replace(
          "spec:\n  selector: {matchLabels: {app: load}}",
          "spec:\n  replicas: 3\n  selector: {matchLabels: {app: load}}",
        ) +
        limit +
        app("new"),
    },
  );
  assert.deepEqual(
    differences.map(({ kind, workloads, target }) => [kind, workloads.join(), target]),
    [
      ["service", "", "new.shop:80"],
      ["workload", "deployment/shop/load", ""],
      ["workload", "deployment/shop/new", ""],
      ["inbound", "deployment/shop/web", "port 8080"],
    ],
  );
  assert.deepEqual(differences[1]!.changes, [{ path: "replicas", before: 1, after: 3 }]);
  assert.match(text, /Service new\.shop:80: is new/);
  assert.match(text, /deployment\/shop\/web takes in on port 8080\n.*limits/);
});

test("a route that comes is told with where it leads", async () => {
  const { text } = await run({ "web.yaml": BASE }, { "web.yaml": BASE + SPLIT(1, 1) });
  assert.match(
    text,
    /\+ http: HTTPRoute\/shop\/split: 1 rule to Service\/shop\/web:80, Service\/shop\/web-v2:80$/m,
  );
  assert.match(text, /- http: Service\/shop\/web:80: 1 rule to Service\/shop\/web:80$/m);
});

test("a folder with problems is an error, not a difference", async () => {
  await assert.rejects(run({ "web.yaml": BASE }, { "web.yaml": "kind: Nothing\n" }), { exitCode: 2 });
});

test("without a mesh and another folder there is nothing to compare with", async () => {
  const folder = new Scratch({ "web.yaml": BASE });
  try {
    const paths = instancePaths("no-such-instance-of-a-test", {});
    await assert.rejects(
      diff(paths, { folder: folder.path, from: null, json: false }, () => {}),
      {
        exitCode: 2,
        message: /--from/,
      },
    );
  } finally {
    folder.remove();
  }
});
