import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "./registry.ts";
import { TransportMetrics } from "./transport.ts";

test("server names that clients choose do not multiply without end", () => {
  const registry = new Registry();
  const metrics = new TransportMetrics(registry);
  for (let i = 0; i < 1000; i++) metrics.passedTls("inbound", 443, `host-${i}.example`);
  metrics.passedTls("inbound", 443, "host-0.example");
  const series = registry
    .render()
    .split("\n")
    .filter((line) => line.startsWith("pillion_passed_tls_connections_total{"));
  const of = (name: string): number =>
    Number(
      series
        .find((line) => line.includes(`server_name="${name}"`))
        ?.split(" ")
        .at(-1),
    );
  assert.equal(series.length, 64 + 1);
  assert.equal(of("host-0.example"), 2);
  assert.equal(of("other"), 1000 - 64);
});
