import assert from "node:assert/strict";
import { test } from "node:test";
import { describeProblem, loadFolder } from "#/kube/folder.ts";
import { reportOf } from "../report.ts";
import { simulate } from "../simulate.ts";
import { checkExpectations } from "./expectations.ts";
import { parseDurationMs } from "./field-reader.ts";
import { readScenario } from "./scenario.ts";
import { worldPlanOf } from "./world-plan.ts";

const FOLDER = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: front, namespace: shop }
spec:
  replicas: 3
  selector: { matchLabels: { app: front } }
  template:
    metadata: { labels: { app: front } }
    spec: { containers: [{ name: c, command: [front] }] }
---
apiVersion: v1
kind: Service
metadata: { name: front, namespace: shop }
spec: { selector: { app: front }, ports: [{ name: web, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Pod
metadata: { name: load, namespace: shop }
spec: { containers: [{ name: c, command: [load] }] }
`;

/** What is wrong with a scenario for the folder above, as people read it. */
function problemsOf(text: string): string[] {
  const { objects, problems: bad } = loadFolder([{ path: "shop.yaml", text: FOLDER }], new Map());
  assert.deepEqual(bad, []);
  const { problems, scenario } = readScenario({ path: "s.yaml", text });
  const made = scenario === null ? [] : worldPlanOf(objects, scenario).problems;
  return [...problems, ...made].map(describeProblem);
}

const LOAD = `
load:
  - { from: load, to: http://front/, rate: 50 }
`;

test("a scenario says what the folder's workloads do, and its expectations are held against the report", () => {
  const { objects } = loadFolder([{ path: "shop.yaml", text: FOLDER }], new Map());
  const { problems, scenario } = readScenario({
    path: "s.yaml",
    text: `
run: 12s
seed: 3
workloads:
  shop/front: { latency: { median: 4ms, p99: 20ms }, workers: 8, zones: [a, b], replicas: 4 }
load:
  - { from: load, to: "http://front.shop:80/x", rate: 50, timeout: 1s }
failures:
  - { at: 4s, for: 4s, workload: front, errors: 50% }
expect:
  - { phase: before, success: 100%, p99: 100ms }
  - { phase: during, success: 90% }
  - { to: nowhere, success: 1% }
`,
  });
  assert.deepEqual(problems, []);
  const { plan } = worldPlanOf(objects, scenario!);
  assert.equal(plan.workloads.find(({ name }) => name === "shop/front")!.pods.length, 4);
  const report = reportOf(simulate(plan));
  assert.deepEqual(
    report.flows.map(({ from, to }) => [from, to]),
    [["shop/load", "front.shop.svc.cluster.local:80"]],
  );
  assert.deepEqual(
    report.services[0]!.endpoints.map(({ zone }) => zone),
    ["a", "b", "a", "b"],
  );
  const findings = checkExpectations(report, scenario!.expectations);
  assert.deepEqual(
    findings.map(({ isMet }) => isMet),
    [true, true, false, false],
  );
  assert.match(findings[2]!.line, /^s\.yaml:12: .*during: success [45]\d(\.\d+)?%, at least 90% expected$/);
  assert.match(findings[3]!.line, /^s\.yaml:13: is about requests that there were none of$/);
});

test("what is wrong in a scenario is named with file, line and what to do, all of it at once", () => {
  const problems = problemsOf(`
run: soon
workloads:
  shop/front:
    latency: { median: 9ms, p99: 3ms }
    worker: 3
load:
  - from: load
    to: http://front/
  - { from: load, to: http://front/, rate: 1, users: 2 }
failures:
  - { at: 1s, workload: front, errors: 130%, slow: 2 }
`);
  assert.deepEqual(problems, [
    's.yaml:2: run must be a duration of at most an hour, such as "250ms", "1.5s" or "1m30s"',
    's.yaml:5: workloads["shop/front"].latency must be a duration, or { median, p99 } with 0 < median <= p99, or { mean }',
    's.yaml:6: workloads["shop/front"].worker unknown field; known here are calls, errors, latency, noticesAbort, replicas, waiting, workers, zones',
    "s.yaml:8: load[0] must have one of rate (requests a second), steps (of rates over time) and users",
    "s.yaml:10: load[1] must have one of rate (requests a second), steps (of rates over time) and users",
    "s.yaml:12: failures[0] must be one of slow (so many times), errors (a share), capacity (a share of workers left), death (true) and zone (its name)",
    "s.yaml:12: failures[0].errors must be a share such as 30%, or a number from 0 to 1",
    "s.yaml:12: failures[0] for is missing: how long it lasts",
  ]);
});

test("names that the folder does not have are named with what there is", () => {
  assert.deepEqual(problemsOf(LOAD), []);
  assert.deepEqual(problemsOf(LOAD.replace("front/", "cart/")), [
    "s.yaml:3: load[0].to no Service cart.shop has a port 80; there are front.shop:80",
  ]);
  assert.deepEqual(problemsOf(LOAD.replace("load, to", "loads, to")), [
    "s.yaml:3: load[0].from the folder has no workload loads; there are shop/front, shop/load",
  ]);
  assert.match(problemsOf(`${LOAD}failures: [{ at: 0s, for: 1s, zone: z }]`).join(), /no pod is in zone z/);
  assert.match(problemsOf("").join(), /s\.yaml:1: is empty/);
  assert.match(problemsOf("load: {").join(), /s\.yaml:1: is no valid YAML/);
});

test("durations are those of Kubernetes, and may have parts of a unit", () => {
  const texts = ["0s", "250us", "1.5s", "1m30s", "1h", "5", "", "-1s", "1d"];
  assert.deepEqual(texts.map(parseDurationMs), [0, 0.25, 1_500, 90_000, 3_600_000, null, null, null, null]);
});
