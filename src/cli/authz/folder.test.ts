import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { AccessExplanation, AccessMatrix } from "#/model/access-explanation.ts";
import { app, Scratch } from "../change/testing.ts";
import { instancePaths } from "../instance-paths.ts";
import { explainWho, printMatrix, suggestPolicies, testFolder } from "./authz.ts";
import type { FlowsFile } from "./flows-file.ts";
import type { Replay } from "./replay.ts";
import { file, flow, server } from "./testing.ts";

const PATHS = instancePaths("none", {});
const NONE = (): void => {};

/** The Deployment of a name with a ServiceAccount of its own. */
function owned(name: string, namespace = "shop"): string {
  return `${app(name, namespace).replace("spec: {containers", `spec: {serviceAccountName: ${name}, containers`)}---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ${name}, namespace: ${namespace}}
`;
}

function policy(name: string, rest: string): string {
  return `---
apiVersion: pillion.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: ${name}, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
${rest}`;
}

const APPS = owned("web") + owned("front") + owned("load") + owned("desk", "other");
const ALLOW = policy(
  "reads",
  `  action: ALLOW
  rules:
    - name: front
      sources: [{type: ServiceAccount, serviceAccount: {name: front}}]
    - name: load-reads
      sources: [{type: ServiceAccount, serviceAccount: {name: load}}]
      requests: [{methods: [GET], paths: [{type: PathPrefix, value: /orders}]}]
`,
);

async function inFolder<T>(
  files: Readonly<Record<string, string>>,
  run: (folder: Scratch) => Promise<T>,
): Promise<T> {
  const folder = new Scratch(files);
  try {
    return await run(folder);
  } finally {
    folder.remove();
  }
}

async function said(run: (print: (text: string) => void) => Promise<unknown>): Promise<string> {
  const lines: string[] = [];
  await run((text) => lines.push(text));
  return lines.join("\n");
}

async function explained(
  yaml: string,
  client: string,
  asked: { method?: string; path?: string; server?: string; namespace?: string } = {},
): Promise<{ explanation: AccessExplanation; text: string }> {
  const { method = "GET", path, server: at = "web.shop", namespace = null } = asked;
  const request = path === undefined ? null : { method, path, headers: [] };
  const question = { client, namespace, server: at, port: null, request };
  return await inFolder({ "apps.yaml": APPS, "policies.yaml": yaml }, async ({ path: folder }) => {
    const json = await said((print) => explainWho(PATHS, { question, folder, json: true }, print, NONE));
    const text = await said((print) => explainWho(PATHS, { question, folder, json: false }, print, NONE));
    return { explanation: JSON.parse(json) as AccessExplanation, text };
  });
}

test("explain names the rule that decides with file and line, and what each step said", async () => {
  const allowed = await explained(ALLOW, "load", { path: "/orders/7" });
  const [web] = allowed.explanation.servers;
  assert.deepEqual(
    [web!.decision!.verdict, web!.decision!.rule, web!.decision!.from],
    [
      "allowed",
      "AuthorizationPolicy/shop/reads load-reads",
      { object: "AuthorizationPolicy shop/reads", file: "policies.yaml", line: 11 },
    ],
  );
  assert.deepEqual(
    web!.rules.map(({ action, rule, holds, requests }) => [action, rule, holds, requests]),
    [
      ["allow", "AuthorizationPolicy/shop/reads load-reads", true, "GET of /orders and below"],
      ["restrict", "AuthorizationPolicy/shop/reads", true, ""],
      ["default", "default/all-unauthenticated", true, ""],
    ],
  );
  assert.match(
    allowed.text,
    /^verdict {3}allowed by AuthorizationPolicy\/shop\/reads load-reads \[policies\.yaml:11\]$/m,
  );
  const denied = await explained(ALLOW, "load", { path: "/admin" });
  assert.equal(denied.explanation.servers[0]!.decision!.verdict, "denied");
  assert.match(denied.text, /^allow {5}does not hold: AuthorizationPolicy\/shop\/reads load-reads/m);
  assert.match(denied.text, /^ {10}load\.shop\..* was refused/m);
});

test("without a path explain lists what a client may do", async () => {
  const reach = async (client: string): Promise<unknown[]> => {
    const [web] = (await explained(ALLOW, client)).explanation.servers;
    return [
      web!.reach,
      web!.decision?.verdict ?? null,
      web!.rules.filter(({ action }) => action === "allow").length,
    ];
  };
  assert.deepEqual(await reach("front"), ["allowed", "allowed", 1]);
  assert.deepEqual(await reach("load"), ["partly", null, 1]);
  assert.deepEqual(await reach("desk"), ["denied", "denied", 0]);
  assert.deepEqual(await reach("192.0.2.9"), ["denied", "denied", 0]);
  assert.match((await explained(ALLOW, "load")).text, /depends on the request/);
});

test("explain tells what mode Audit would change, and takes a workload for a server", async () => {
  const audit = ALLOW.replace("  action", "  mode: Audit\n  action");
  const { explanation, text } = await explained(audit, "desk", { path: "/", server: "deployment/web" });
  const [web] = explanation.servers;
  assert.deepEqual(
    [web!.port, web!.decision!.verdict, web!.decision!.would!.verdict, web!.decision!.would!.rule],
    [8080, "allowed", "would_deny", "AuthorizationPolicy/shop/reads"],
  );
  assert.match(
    text,
    /were mode Audit enforced: denied by AuthorizationPolicy\/shop\/reads \[policies\.yaml:/,
  );
  await assert.rejects(explained(audit, "desk", { server: "gone" }), /there is no Service other\/gone/);
  await assert.rejects(explained(audit, "gone"), /there is no workload "gone"/);
});

test("the matrix has every identity against every port, as text, JSON and picture", async () => {
  const deny = policy(
    "no-desk",
    `  action: DENY\n  mode: Audit\n  rules: [{sources: [{type: ServiceAccount, serviceAccount: {name: front}}]}]\n`,
  );
  await inFolder({ "apps.yaml": APPS, "policies.yaml": ALLOW + deny }, async ({ path: folder }) => {
    const shown = (output: "text" | "json" | "svg"): Promise<string> =>
      said((print) => printMatrix(PATHS, { namespace: "shop", folder, output }, print, NONE));
    const matrix = JSON.parse(await shown("json")) as AccessMatrix;
    const web = matrix.servers.findIndex(({ workload }) => workload === "deployment/web");
    assert.deepEqual(
      matrix.clients.map(({ name }, i) => [name, ...Object.values(matrix.cells[i]![web]!)]),
      [
        ["other/desk", "denied", "denied"],
        ["shop/front", "allowed", "denied"],
        ["shop/load", "partly", "partly"],
        ["shop/web", "denied", "denied"],
        ["anybody outside", "denied", "denied"],
      ],
    );
    assert.deepEqual(matrix.servers[web]!.services, ["web:80"]);
    assert.match(await shown("text"), /^shop\/web:80 +- +yes \(-\) +some +- +-$/m);
    const svg = await shown("svg");
    assert.match(svg, /<title>shop\/load to shop\/web:80: partly<\/title>/);
    assert.match(svg, /^<svg [^]*<\/svg>$/);
  });
});

async function tried(
  yaml: string,
  seen: FlowsFile,
  enforced = false,
): Promise<{ code: number; now: Replay; later: Replay; text: string }> {
  return await inFolder({ "apps.yaml": APPS, "policies.yaml": yaml }, async ({ path: folder }) =>
    inFolder({}, async (scratch) => {
      const flows = join(scratch.path, "flows.json");
      writeFileSync(flows, JSON.stringify(seen));
      let code = -1;
      const run = (json: boolean): Promise<string> =>
        said(async (print) => {
          code = await testFolder(PATHS, { folder, flows: [flows], enforced, json }, print, NONE);
        });
      const { now, enforced: later } = JSON.parse(await run(true)) as { now: Replay; enforced: Replay };
      return { code, now, later, text: await run(false) };
    }),
  );
}

const SEEN = file(
  server("web", [
    flow("front", "POST /anything"),
    flow("load", "GET /orders/{number}"),
    flow("load", "PUT /orders/{number}", { count: 3 }),
    flow("desk.other", "GET /", { count: 7 }),
    flow("10.211.0.9", "", { port: 9000 }),
    flow("gone", "GET /", { verdict: "denied" }),
  ]),
  server("away", [flow("front", "GET /")]),
);

test("test tells what a folder would deny of what works, with counts, rule and line, and ends with 1", async () => {
  const { code, now, text } = await tried(ALLOW, SEEN);
  assert.equal(code, 1);
  assert.deepEqual(
    now.changes.map(({ becomes, flow: { client, method, path, count }, rule, from }) => [
      becomes,
      client.identity.split(".")[0],
      `${method} ${path}`,
      count,
      rule,
      `${from.file}:${from.line}`,
    ]),
    [
      ["denied", "load", "PUT /orders/{number}", 3, "AuthorizationPolicy/shop/reads", "policies.yaml:2"],
      ["denied", "desk", "GET /", 7, "AuthorizationPolicy/shop/reads", "policies.yaml:2"],
    ],
  );
  assert.deepEqual(now.gone, ["shop/deployment/away"]);
  assert.match(
    text,
    /^would be denied:\n {2}load -> shop\/deployment\/web port 8080: 3 × PUT \/orders\/\{number\}, by AuthorizationPolicy\/shop\/reads \[policies\.yaml:2\]$/m,
  );
});

test("mode Audit denies nothing, and test tells what enforcing would", async () => {
  const audit = ALLOW.replace("  action", "  mode: Audit\n  action");
  const audited = await tried(audit, SEEN);
  assert.equal(audited.code, 0);
  assert.deepEqual(
    audited.now.changes.map(({ becomes }) => becomes),
    ["allowed"],
  );
  assert.equal(audited.later.changes.filter(({ becomes }) => becomes === "denied").length, 2);
  assert.match(audited.text, /^would be denied, were mode Audit enforced:$/m);
  assert.equal((await tried(audit, SEEN, true)).code, 1);
});

test("what hangs on what is not recorded is not guessed", async () => {
  const byHeader = policy(
    "keyed",
    `  action: ALLOW
  rules: [{requests: [{methods: [GET], headers: [{name: x-key, value: a}]}]}]
`,
  );
  const { code, now } = await tried(
    byHeader,
    file(server("web", [flow("front", "GET /"), flow("front", "PUT /")])),
  );
  assert.deepEqual(
    now.changes.map(({ becomes, flow: { method } }) => [method, becomes]),
    [
      ["PUT", "denied"],
      ["GET", "unknown"],
    ].toReversed(),
  );
  assert.equal(code, 1);
});

test("what was asked under several policies counts as it was decided last", async () => {
  const before = flow("desk.other", "GET /", { verdict: "allowed", lastSeenMs: 10 });
  const after = flow("desk.other", "GET /", { verdict: "denied", lastSeenMs: 20 });
  const { code, now } = await tried(ALLOW, file(server("web", [before, after])));
  assert.deepEqual([code, now.changes, now.flowCount], [0, [], 1]);
});

test("what is suggested is taken by the folder, allows all that was learned, and nobody else", async () => {
  const learned = [
    flow("front", "POST /anything"),
    flow("load", "GET /orders/{number}"),
    flow("load", "GET /caf%C3%A9/{hex}/x.y%20z"),
    ...Array.from({ length: 30 }, (_, i) => flow("load", `PUT /cart/customer${i}`)),
    flow("load", "OPTIONS *"),
    flow("desk.other", "gRPC shop.Web/Get"),
    flow("10.211.0.9", "", { port: 9000 }),
  ];
  const seen = file(server("web", learned));
  const others = [
    flow("web", "GET /orders/{number}"),
    flow("front", "", { port: 9000 }),
    flow("10.211.0.10", "", { port: 9000 }),
  ];
  const refusedByRequest = [
    flow("load", "POST /orders/{number}"),
    flow("load", "GET /orders"),
    flow("load", "GET /caf%C3%A9/{hex}/xyyz"),
    flow("load", "PUT /cart/customer1/x"),
    flow("desk.other", "gRPC shop.Web/Put"),
  ];
  await inFolder({ "flows.json": JSON.stringify(seen) }, async ({ path }) => {
    for (const level of ["network", "requests"] as const) {
      const options = { namespace: null, from: [join(path, "flows.json")], level, mode: "Enforce" } as const;
      const yaml = await said((print) => suggestPolicies(PATHS, options, print, NONE));
      assert.deepEqual((await tried(yaml, seen)).now.changes, [], yaml);
      const more = [...others, ...(level === "requests" ? refusedByRequest : [])];
      const { now } = await tried(yaml, file(server("web", more)));
      assert.deepEqual(
        now.changes.map(({ becomes, flow: { client, method, path: asked } }) => [
          client,
          method,
          asked,
          becomes,
        ]),
        more.map(({ client, method, path: asked }) => [client, method, asked, "denied"]),
        yaml,
      );
    }
  });
});
