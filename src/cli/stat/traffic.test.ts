import assert from "node:assert/strict";
import { test } from "node:test";
import type { PodStatus } from "#/model/pod-plan.ts";
import { parseSamples } from "./prometheus.ts";
import { summarize } from "./traffic.ts";

function pod(name: string): PodStatus {
  return {
    uid: name,
    name,
    namespace: "shop",
    templateHash: "",
    owner: "Deployment/shop/web",
    ip: "10.0.0.1",
    phase: "Running",
    ready: true,
    terminating: false,
    message: "",
    startedAtMs: 0,
    intercept: "ebpf",
    containers: [],
    sidecar: null,
  };
}

const page = (requests: number, failures: number): string =>
  [
    "# TYPE request_total counter",
    `request_total{direction="inbound",client_id="front.shop.serviceaccount.identity.pillion.cluster.local"} ${requests}`,
    `request_total{direction="outbound"} 999`,
    `response_total{direction="inbound",classification="success",status_code="200"} ${requests - failures}`,
    `response_total{direction="inbound",classification="failure",status_code="502"} ${failures}`,
    `response_latency_ms_bucket{direction="inbound",le="1"} 0`,
    `response_latency_ms_bucket{direction="inbound",le="10"} ${requests}`,
    `response_latency_ms_bucket{direction="inbound",le="+Inf"} ${requests}`,
  ].join("\n");

test("rates are differences between two readings, summed over a workload's pods", () => {
  const before = [{ pod: pod("a"), samples: parseSamples(page(100, 0)), kernel: [] }];
  const after = [
    { pod: pod("a"), samples: parseSamples(page(200, 10)), kernel: [] },
    { pod: pod("b"), samples: parseSamples(page(50, 0)), kernel: [] },
  ];
  const [row] = summarize(before, after, 10);
  assert.equal(row?.requestsPerSecond, 15);
  assert.equal(row?.successRate, 140 / 150);
  assert.equal(row?.p50Ms, 1 + 9 / 2);
  assert.deepEqual(row?.clients, ["front.shop"]);
  assert.equal(row?.pods, 2);
});

test("label values with escapes, commas and braces are read as they were written", () => {
  const [sample] = parseSamples('x{a="q\\"uo,te}",b="back\\\\slash\\n"} 3 1700000000');
  assert.equal(sample?.labels.get("a"), 'q"uo,te}');
  assert.equal(sample?.labels.get("b"), "back\\slash\n");
  assert.equal(sample?.value, 3);
});
