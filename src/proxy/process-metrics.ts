import { readdirSync } from "node:fs";
import type { Registry } from "#/stack/metrics/registry.ts";

/** The `process_*` families that every Prometheus client has, and what was built. */
export function addProcessMetrics(registry: Registry, version: string): void {
  const startSeconds = Math.floor(Date.now() / 1000 - process.uptime());
  registry
    .gauge(
      {
        name: "process_start_time_seconds",
        help: "Time that the process started (in seconds since the UNIX epoch)",
        type: "gauge",
      },
      {},
    )
    .set(startSeconds);
  registry
    .gauge(
      { name: "proxy_build_info", help: "Proxy build info", type: "gauge" },
      { version, vendor: "pillion" },
    )
    .set(1);
  const cpu = registry.counter(
    {
      name: "process_cpu_seconds_total",
      help: "Total user and system CPU time spent in seconds.",
      type: "counter",
    },
    {},
  );
  const rss = registry.gauge(
    { name: "process_resident_memory_bytes", help: "Resident memory size in bytes.", type: "gauge" },
    {},
  );
  const fds = registry.gauge(
    { name: "process_open_fds", help: "Number of open file descriptors.", type: "gauge" },
    {},
  );
  registry.beforeReading(() => {
    const { user, system } = process.cpuUsage();
    cpu.set((user + system) / 1e6);
    rss.set(process.memoryUsage.rss());
    try {
      fds.set(readdirSync("/proc/self/fd").length);
    } catch {
      // No /proc in this mount view: the gauge stays as it was.
    }
  });
}
