import assert from "node:assert/strict";
import { test } from "node:test";
import { load, loadPod, noFailures, service, slowness, warmed } from "./fixtures/scene.ts";
import type { LoadReport } from "./fixtures/load.ts";
import { Mesh, NAMESPACE } from "./mesh.ts";

const CHANGES = 100;
/** Within so long the share of traffic is the new one, on a machine that is not busy with other things. */
const FOLLOW_MS = 1_000;
/** The share is counted over so long after that. */
const COUNT_MS = 2_000;

/** The Service that clients know; what answers is behind the routes. */
const WEB = `apiVersion: v1
kind: Service
metadata: { name: web, namespace: test }
spec:
  selector: { app: v1 }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
`;

interface Shape {
  readonly weights: readonly [v1: number, v2: number];
  /** YAML of more members of the rule for everything, and of more filters and rules. */
  readonly more?: string;
  readonly filters?: string;
  readonly rules?: string;
}

/** What a team changes in a route, one thing after the other, while requests for "/" must go on. */
const SHAPES: readonly Shape[] = [
  { weights: [9, 1] },
  { weights: [1, 9] },
  {
    weights: [1, 1],
    filters: "- { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: a, value: b }] } }",
  },
  { weights: [1, 1], more: "timeouts: { request: 50s }" },
  { weights: [1, 1], more: "timeouts: { request: 60s, backendRequest: 40s }" },
  { weights: [3, 1], more: "retry: { attempts: 2, codes: [500, 503], backoff: 20ms }" },
  {
    weights: [1, 3],
    rules: `- matches: [{ path: { type: PathPrefix, value: /old } }]
      filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /new }, statusCode: 301 } }]`,
  },
  {
    weights: [1, 0],
    rules: `- matches: [{ headers: [{ name: x-canary, value: "yes" }] }]
      backendRefs: [{ name: v2, port: 80 }]`,
  },
  {
    weights: [0, 1],
    rules: `- matches: [{ path: { type: Exact, value: /moved } }]
      filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: / } } }]
      backendRefs: [{ name: v1, port: 80 }]`,
  },
  {
    weights: [2, 3],
    rules:
      "- matches: [{ queryParams: [{ name: v, value: two }], method: GET }]\n      backendRefs: [{ name: v2, port: 80 }]",
  },
];

function route(change: number, { weights, more = "", filters = "", rules = "" }: Shape): string {
  return `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: test }
spec:
  parentRefs: [{ group: "", kind: Service, name: web, port: 80 }]
  rules:
    ${rules}
    - filters:
        - { type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: x-change, value: "${change}" }] } }
        ${filters}
      backendRefs:
        - { name: v1, port: 80, weight: ${weights[0]} }
        - { name: v2, port: 80, weight: ${weights[1]} }
      ${more}
`;
}

/** A route that is there every other time, at the same Service. */
const SECOND = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: second, namespace: test }
spec:
  parentRefs: [{ group: "", kind: Service, name: web }]
  rules:
    - matches: [{ path: { type: PathPrefix, value: /second } }]
      backendRefs: [{ name: v2, port: 80 }]
`;

test("a hundred changes of policy under load lose no request, and a new weight holds within a second", async (t) => {
  const mesh = new Mesh("policy-changes");
  try {
    const slow = await slowness(mesh);
    const perSecond = Math.round(1_000 / slow);
    const followMs = Math.round(FOLLOW_MS * slow);
    mesh.write("namespace.yaml", NAMESPACE);
    for (const name of ["v1", "v2"]) mesh.write(`${name}.yaml`, service(name));
    mesh.write("web.yaml", WEB);
    mesh.write("route.yaml", route(-1, SHAPES[0]!));
    mesh.write(
      "load.yaml",
      loadPod("load", {
        http: { url: "http://web/", connections: 16, perSecond },
        fresh: { url: "http://web/", perSecond: 10 },
        timelineMax: 200_000,
      }),
    );
    await mesh.up();
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["http", "fresh"]);

    const reports: LoadReport[] = [];
    /** Waits until a request has met the change, and says when the first did. */
    const met = async (change: number): Promise<number> =>
      await mesh.until(`change ${change} to hold`, async () => {
        const report = await load(mesh, loader, "mark");
        reports.push(report);
        return report.timeline.find(([, , header]) => header === String(change))?.[0];
      });
    const tookMs: number[] = [];
    for (let change = 0; change < CHANGES; change++) {
      if (change % 4 === 0) mesh.write("second.yaml", SECOND);
      else if (change % 4 === 2) mesh.remove("second.yaml");
      mesh.write("route.yaml", route(change, SHAPES[change % SHAPES.length]!));
      const writtenMs = Date.now();
      tookMs.push((await met(change)) - writtenMs);
    }
    const answered = reports.reduce((sum, { ok }) => sum + (ok["http"] ?? 0) + (ok["fresh"] ?? 0), 0);
    const seconds = reports.reduce((sum, report) => sum + report.seconds, 0);
    const failed = reports.reduce((sum, report) => sum + report.failed, 0);
    const sorted = tookMs.toSorted((x, y) => x - y);
    t.diagnostic(
      `${CHANGES} changes in ${seconds.toFixed(0)} s: ${answered} requests answered, ${failed} failed; from the file to the first request half within ${sorted[CHANGES / 2]} ms, all within ${sorted.at(-1)} ms`,
    );
    for (const report of reports) noFailures(report);

    mesh.write("route.yaml", route(CHANGES, { weights: [9, 1] }));
    await met(CHANGES);
    await elapsed(COUNT_MS);
    const newAtMs = Date.now();
    mesh.write("route.yaml", route(CHANGES + 1, { weights: [1, 9] }));
    await elapsed(followMs + COUNT_MS);
    const weighed = await load(mesh, loader, "stop");
    noFailures(weighed);
    const shareOf = (fromMs: number, toMs: number): { share: number; count: number } => {
      const counted = weighed.timeline.filter(([atMs]) => atMs >= fromMs && atMs < toMs);
      const { length: count } = counted;
      return { share: counted.filter(([, by]) => by.startsWith("v2")).length / count, count };
    };
    const { share: before } = shareOf(newAtMs - COUNT_MS, newAtMs);
    const { share: after, count } = shareOf(newAtMs + followMs, newAtMs + followMs + COUNT_MS);
    t.diagnostic(
      `v2's weight from 1 to 9 of 10: its share was ${before.toFixed(3)}, and is ${after.toFixed(3)} ${followMs} ms later (${perSecond} requests/s)`,
    );
    // Five standard deviations of so many draws.
    const tolerance = 5 * Math.sqrt((0.9 * 0.1) / count);
    assert.ok(
      Math.abs(after - 0.9) < tolerance,
      `the share is ${after} of ${count} requests, ${followMs} ms after the change`,
    );
  } finally {
    await mesh.close();
  }
});

/** Requests are counted for so long: nothing waits for anything here. */
function elapsed(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
