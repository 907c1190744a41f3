import assert from "node:assert/strict";
import { test } from "node:test";
import { HttpCounters } from "./http-series.ts";
import { Registry, type Family } from "./registry.ts";

const family: Family = { name: "x_total", help: "X.", type: "counter" };

test("renders counters and histograms as Prometheus text", () => {
  const registry = new Registry();
  registry.counter(family, { a: 'q"\\\n', b: "2" }).add(3);
  const histogram = registry.histogram({ name: "h", help: "H.", type: "histogram", bounds: [1, 5] }, {});
  for (const value of [0.5, 1, 4, 9]) histogram.observe(value);
  assert.equal(
    registry.render(),
    [
      "# HELP x_total X.",
      "# TYPE x_total counter",
      'x_total{a="q\\"\\\\\\n",b="2"} 3',
      "# HELP h H.",
      "# TYPE h histogram",
      'h_bucket{le="1"} 2',
      'h_bucket{le="5"} 3',
      'h_bucket{le="+Inf"} 4',
      "h_sum 14.5",
      "h_count 4",
      "",
    ].join("\n"),
  );
});

test("counts what is beyond the bound of label sets together", () => {
  const registry = new Registry();
  for (let i = 0; i < 2500; i++) registry.count(family, { i: String(i) });
  assert.match(registry.render(), /x_total\{overflow="true"\} 500\n/);
});

test("drops an idle series only when nobody holds it", () => {
  const registry = new Registry();
  const held = registry.counter(family, { who: "held" });
  registry.count(family, { who: "free" });
  registry.expire(1, 100);
  registry.expire(101, 100);
  assert.equal(registry.render().includes("free"), false);
  assert.equal(registry.render().includes("held"), true);
  held.release();
  registry.expire(300, 100);
  assert.equal(registry.render().includes("held"), false);
});

test("counts answers by outcome under the classic names", () => {
  const registry = new Registry();
  const series = new HttpCounters(registry, { direction: "outbound", authority: "web:80" });
  series.request();
  series.request();
  series.response(200, -1, 3, true, "");
  series.response(200, -1, 7, true, "");
  series.response(0, -1, 1, false, "RESET");
  const text = registry.render();
  assert.match(text, /request_total\{direction="outbound",authority="web:80"\} 2\n/);
  assert.match(
    text,
    /response_total\{.*status_code="200",classification="success",grpc_status="",error=""\} 2\n/,
  );
  assert.match(
    text,
    /response_total\{.*status_code="0",classification="failure",grpc_status="",error="RESET"\} 1\n/,
  );
  assert.match(text, /response_latency_ms_bucket\{.*status_code="200",le="5"\} 1\n/);
});
