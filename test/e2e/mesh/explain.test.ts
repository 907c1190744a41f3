/** What `explain` says a request will do is what its trace says it did: the same route, rule, backend and limits. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Explanation } from "#/model/explanation.ts";
import { service } from "./fixtures/scene.ts";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const DEBUG = { "config.pillion.dev/debug-requests": "enabled" };
const ROUTES = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: test }
spec:
  parentRefs: [{ group: "", kind: Service, name: web, port: 80 }]
  rules:
    - name: canary
      matches: [{ headers: [{ name: x-canary, value: "yes" }] }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - matches: [{ path: { type: PathPrefix, value: /slow } }, { path: { type: PathPrefix, value: /api } }]
      timeouts: { request: 5s }
      retry: { codes: [503], attempts: 2 }
      backendRefs: [{ name: web, port: 80 }]
    - matches: [{ method: DELETE, path: { type: PathPrefix, value: / } }]
      filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplaceFullPath, replaceFullPath: /gone } } }]
---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: keyed, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Service, name: web, sectionName: http }]
  balancing: { algorithm: ConsistentHash, hashOn: [{ header: x-user }] }
---
apiVersion: pillion.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: calm, namespace: test }
spec:
  targetRefs: [{ group: "", kind: Service, name: web, sectionName: http }]
  rates: [{ requests: 1000 }]
`;

interface Asked {
  readonly method?: string;
  readonly path: string;
  readonly headers?: readonly string[];
}

const REQUESTS: readonly Asked[] = [
  { path: "/api/items?x=1", headers: ["x-user: u1"] },
  { path: "/api", headers: ["x-user: u2"] },
  { path: "/slow", headers: ["x-user: u7", "x-canary: no"] },
  { path: "/anything", headers: ["x-canary: yes"] },
  { path: "/items", method: "DELETE" },
  { path: "/nowhere" },
];

/** Steps of a trace, each with its parameters as they stand there, strings without their quotes. */
function stepsOf(answer: string): { kind: string; of: Record<string, string> }[] {
  const text = /^x-pillion-trace: (.*?)\r?$/im.exec(answer)?.[1];
  assert.ok(text, answer);
  return [...text.matchAll(/(?:^|, )([a-z-]+)((?:;[a-z]+(?:=(?:"(?:[^"\\]|\\.)*"|[^;,]+))?)*)/g)].map(
    (step) => ({
      kind: step[1]!,
      of: Object.fromEntries(
        [...step[2]!.matchAll(/;([a-z]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^;,]+)))?/g)].map((each) => [
          each[1]!,
          (each[2] ?? each[3] ?? "yes").replace(/\\(.)/g, "$1"),
        ]),
      ),
    }),
  );
}

test("requests go as they were explained, and who may not ask for a trace gets none", async (t) => {
  const mesh = new Mesh("explain");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web", { replicas: 3, annotations: DEBUG }));
    mesh.write("web-v2.yaml", service("web-v2", { annotations: DEBUG }));
    const sleeper = ["sleep", "infinity"];
    mesh.write("client.yaml", workload({ name: "client", command: sleeper, annotations: DEBUG }));
    mesh.write("mute.yaml", workload({ name: "mute", command: sleeper }));
    mesh.write("routes.yaml", ROUTES);
    await mesh.up();

    const send = async (from: string, { method = "GET", path, headers = [] }: Asked): Promise<string> => {
      const flags = ["x-pillion-debug: 1", ...headers].flatMap((header) => ["-H", header]);
      const { stdout, stderr } = await mesh.exec(
        from,
        ...["curl", "-s", "-i", "--max-time", "10", "-X", method, ...flags, `http://web${path}`],
      );
      assert.notEqual(stdout, "", stderr);
      return stdout;
    };
    const explain = async ({ method = "GET", path, headers = [] }: Asked): Promise<Explanation> => {
      const flags = headers.flatMap((header) => ["-H", header]);
      const run = await mesh.pillion(
        "explain",
        "deployment/client",
        "web",
        method,
        path,
        ...flags,
        "-o",
        "json",
      );
      assert.equal(run.code, 0, run.stderr);
      return JSON.parse(run.stdout) as Explanation;
    };

    for (const [i, asked] of REQUESTS.entries()) {
      const told = await explain(asked);
      const steps = stepsOf(await send("client", asked));
      const route = steps.find(({ kind }) => kind === "route")!.of;
      const attempts = steps.filter(
        ({ kind, of }) => kind === "attempt" && !of["backend"]!.startsWith("the application"),
      );
      t.diagnostic(`${asked.path}: ${JSON.stringify(steps)}`);
      if (told.route.kind !== "http") {
        assert.equal(told.route.kind, "none");
        assert.equal(route["none"], "yes");
        assert.equal(attempts.length, 0);
        continue;
      }
      assert.deepEqual(
        [route["policy"], route["rule"], route["name"] ?? "", route["match"], route["why"]],
        [
          told.route.route,
          String(told.route.rule),
          told.route.ruleName,
          String(told.route.match),
          told.route.why,
        ],
      );
      assert.equal(route["filters"] ?? "", told.filters.map(({ filter }) => filter.kind).join(" "));
      assert.deepEqual(
        attempts.map(({ of }) => of["backend"]),
        told.backends.map(({ name }) => name),
      );
      const [backend] = told.backends;
      if (backend === undefined) continue;
      if (backend.endpoints.endpoint !== null)
        assert.equal(attempts[0]!.of["endpoint"], backend.endpoints.endpoint);
      if (asked.headers?.some((header) => header.startsWith("x-user")) === true)
        assert.notEqual(backend.endpoints.endpoint, null, "the key decides");
      if (i > 0 && backend.name.startsWith("web.")) assert.equal(backend.endpoints.seenBy, "sidecar");
      const [inbound] = backend.inbound;
      assert.equal(inbound!.authorization.allowed, true);
      assert.equal(steps.find(({ kind }) => kind === "authorization")!.of["by"], inbound!.authorization.by);
      assert.deepEqual(
        steps.filter(({ kind }) => kind === "limit").map(({ of }) => of["requests"]),
        inbound!.rates.map(({ limit }) => String(limit.requests)),
      );
    }

    assert.doesNotMatch(await send("mute", REQUESTS[0]!), /x-pillion-trace/i);

    // A change that is looked at before it is made.
    const same = await mesh.pillion("diff", "-f", mesh.folder);
    assert.deepEqual([same.code, same.stdout], [0, "nothing would change\n"], same.stderr);
    const edited = `${mesh.dir}/edited`;
    await mesh.run("cp", "-r", mesh.folder, edited);
    await mesh.run("sed", "-i", "s/request: 5s/request: 2s/", `${edited}/routes.yaml`);
    const other = await mesh.pillion("diff", "-f", edited);
    assert.equal(other.code, 1, other.stderr);
    assert.match(
      other.stdout,
      /deployment\/test\/client.* -> web\.test:80\n +~ .*requestMs: 5000 -> 2000\n$/,
    );
  } finally {
    await mesh.close();
  }
});
