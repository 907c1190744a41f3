import { setTimeout as sleep } from "node:timers/promises";
import type { InstancePaths } from "../instance-paths.ts";
import { ask } from "../operator.ts";
import { isOrdinaryUser } from "../own-machine.ts";
import { bytesText, table } from "../table.ts";
import type { PodPage, WorkloadTraffic } from "./traffic.ts";
import { scrape, summarize } from "./traffic.ts";

export interface StatOptions {
  readonly json: boolean;
  readonly once: boolean;
  readonly intervalMs: number;
  /** Ends the loop. */
  readonly signal?: AbortSignal;
}

const SCRAPE_TIMEOUT_MS = 2_000;

/** Prints traffic by workload, again and again: in place on a terminal, line by line elsewhere. */
export async function stat(
  paths: InstancePaths,
  options: StatOptions,
  print: (text: string) => void,
): Promise<void> {
  let before = await read(paths);
  let beforeAtMs = performance.now();
  while (!(options.signal?.aborted ?? false)) {
    await sleep(
      options.intervalMs,
      undefined,
      options.signal === undefined ? {} : { signal: options.signal },
    ).catch(() => {});
    if (options.signal?.aborted ?? false) return;
    const after = await read(paths);
    const nowMs = performance.now();
    const rows = summarize(before, after, (nowMs - beforeAtMs) / 1000);
    before = after;
    beforeAtMs = nowMs;
    if (options.json) print(JSON.stringify(rows));
    else {
      if (process.stdout.isTTY) process.stdout.write("\x1b[H\x1b[J");
      print(trafficTable(rows));
    }
    if (options.once) return;
  }
}

/** Reads every pod's counters once. */
export async function read(paths: InstancePaths): Promise<PodPage[]> {
  const status = await ask(paths, { kind: "status" }, "status");
  const traffic = await ask(paths, { kind: "traffic" }, "traffic");
  // Pods of a mesh without root are on a network that only those inside it reach.
  const pages = isOrdinaryUser() ? (await ask(paths, { kind: "pages" }, "pages")).pages : null;
  return await scrape(status.pods, traffic.pods, pages, SCRAPE_TIMEOUT_MS);
}

export function trafficTable(rows: readonly WorkloadTraffic[]): string {
  return table(
    [
      "SERVICE",
      "PODS",
      "REQ/S",
      "SUCCESS",
      "P50",
      "P99",
      "IN",
      "OUT",
      "PROTOCOL",
      "INTERCEPT",
      "CLIENTS (mTLS)",
    ],
    rows.map((row) => [
      `${row.namespace}/${row.workload}`,
      `${row.podsReady}/${row.pods}`,
      row.requestsPerSecond.toFixed(1),
      row.successRate === null ? "-" : `${(100 * row.successRate).toFixed(row.successRate === 1 ? 0 : 2)}%`,
      milliseconds(row.p50Ms),
      milliseconds(row.p99Ms),
      bytesText(row.bytesIn),
      bytesText(row.bytesOut),
      row.protocols.length === 0 ? "-" : row.protocols.join("+"),
      interceptText(row),
      row.clients.length === 0 ? "-" : row.clients.join(" "),
    ]),
    [2, 3, 4, 5, 6, 7],
  );
}

function interceptText({ intercept, kernelConnections, kernelRefused }: WorkloadTraffic): string {
  const beside = [
    ...(kernelConnections > 0 ? [`+${kernelConnections} let through`] : []),
    ...(kernelRefused > 0 ? [`${kernelRefused} refused`] : []),
  ];
  return beside.length === 0 ? intercept : `${intercept} (${beside.join(", ")})`;
}

function milliseconds(value: number | null): string {
  return value === null ? "-" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}
