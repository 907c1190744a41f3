import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnError } from "#/base/errors.ts";
import { Registry } from "./registry.ts";
import { ConnLabels, TransportMetrics, type MeteredConn } from "./transport.ts";

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

test("series are held until the last connection with their labels has closed", () => {
  const registry = new Registry();
  const metrics = new TransportMetrics(registry);
  const labels = new ConnLabels({ peer: "a" });
  const [one, two] = [0, 1].map(() => ({ bytesRead: 1, bytesWritten: 1, closed: null })) as unknown as [
    MeteredConn,
    MeteredConn,
  ];
  const isCounted = (): boolean => {
    for (const nowMs of [1, 2, 10_000]) registry.expire(nowMs, 5_000);
    return registry.render().includes('tcp_open_connections{peer="a"}');
  };
  metrics.opened(one, labels);
  metrics.opened(two, labels);
  one.closed?.(null);
  assert.equal(isCounted(), true);
  two.closed?.(null);
  assert.equal(isCounted(), false);
  metrics.opened(one, labels);
  assert.equal(isCounted(), true, "and counted anew after that");
});

test("connections that share their labels count in the same series, by how each closed", () => {
  const registry = new Registry();
  const metrics = new TransportMetrics(registry);
  const labels = new ConnLabels({ peer: 'a"b' });
  const conns = [0, 1, 2].map(
    () => ({ bytesRead: 5, bytesWritten: 7, closed: null }) as unknown as MeteredConn,
  );
  for (const conn of conns) metrics.opened(conn, labels);
  metrics.opened({ bytesRead: 0, bytesWritten: 0 } as MeteredConn, new ConnLabels({ peer: 'a"b' }));
  const [one, two, three] = conns as [MeteredConn, MeteredConn, MeteredConn];
  one.closed?.(null);
  two.closed?.(new ConnError("ABORTED", "by us"));
  three.closed?.(new ConnError("RESET", "by them"));
  const text = registry.render();
  for (const line of [
    'tcp_open_total{peer="a\\"b"} 4',
    'tcp_open_connections{peer="a\\"b"} 1',
    'tcp_read_bytes_total{peer="a\\"b"} 15',
    'tcp_write_bytes_total{peer="a\\"b"} 21',
    'tcp_close_total{peer="a\\"b",errno=""} 2',
    'tcp_close_total{peer="a\\"b",errno="RESET"} 1',
  ])
    assert(text.includes(`\n${line}\n`), `${line} is not in:\n${text}`);
});
