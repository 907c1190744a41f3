import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "./registry.ts";
import { RetryCounters } from "./retry-series.ts";

const GROUP = "gateway.networking.k8s.io";
const PARENT = { group: "core", kind: "Service", namespace: "shop", name: "web", section: "", port: 80 };

function labelsOf(kind: string): string {
  return (
    'parent_group="core",parent_kind="Service",parent_namespace="shop",parent_name="web",parent_port="80",parent_section_name="",' +
    `route_group="${GROUP}",route_kind="${kind}",route_namespace="shop",route_name="r",route_port="",route_section_name=""`
  );
}

test("retries and timeouts are counted by parent and route, under Linkerd's names for HTTP and gRPC (facts §17.2)", () => {
  for (const [kind, protocol] of [
    ["HTTPRoute", "http"],
    ["GRPCRoute", "grpc"],
  ] as const) {
    const registry = new Registry();
    const route = { group: GROUP, kind, namespace: "shop", name: "r", section: "", port: 0 };
    const counters = new RetryCounters(registry, PARENT, route);
    counters.retried();
    counters.retried();
    counters.retrySucceeded();
    counters.retryLimitExceeded();
    counters.retryOverflowed("budget");
    counters.timedOut("request");
    const labels = labelsOf(kind);
    const lines = registry.render().split("\n");
    for (const line of [
      `outbound_${protocol}_route_retry_requests_total{${labels}} 2`,
      `outbound_${protocol}_route_retry_successes_total{${labels}} 1`,
      `outbound_${protocol}_route_retry_limit_exceeded_total{${labels}} 1`,
      `outbound_${protocol}_route_retry_overflow_total{${labels},reason="budget"} 1`,
      `pillion_request_timeouts_total{${labels},timeout="request"} 1`,
    ])
      assert.ok(lines.includes(line), `${line}\n${lines.join("\n")}`);
  }
});
