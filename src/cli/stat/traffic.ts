import type { PodStatus } from "#/model/pod-plan.ts";
import type { PodTrafficReport } from "#/model/operator-protocol.ts";
import type { Sample } from "./prometheus.ts";
import { parseSamples } from "./prometheus.ts";

/** What one pod said of itself at one moment: its sidecar's page and the kernel's counters. */
export interface PodPage {
  readonly pod: PodStatus;
  readonly samples: readonly Sample[];
  readonly kernel: PodTrafficReport["targets"];
}

/** One workload's traffic over an interval, seen at its own (inbound) side. */
export interface WorkloadTraffic {
  readonly namespace: string;
  readonly workload: string;
  readonly pods: number;
  readonly podsReady: number;
  readonly requestsPerSecond: number;
  /** 0..1; null without answers. */
  readonly successRate: number | null;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Identities that called it, short form "sa.ns". */
  readonly clients: readonly string[];
  readonly protocols: readonly string[];
  readonly intercept: string;
  /** Connections let through by the kernel without a sidecar. */
  readonly kernelConnections: number;
  /** … refused by the kernel for policy, before the sidecar, since the pods began. */
  readonly kernelRefused: number;
}

/** Reads each pod's metrics, unless they are given; a pod that does not answer within `timeoutMs` is shown without. */
export async function scrape(
  pods: readonly PodStatus[],
  traffic: readonly PodTrafficReport[],
  pages: readonly { readonly podUid: string; readonly text: string }[] | null,
  timeoutMs: number,
): Promise<PodPage[]> {
  const byUid = new Map(traffic.map((report) => [report.podUid, report]));
  return await Promise.all(
    pods.map(async (pod) => {
      const report = byUid.get(pod.uid);
      const kernel = report?.targets ?? [];
      if (report === undefined || report.metricsUrl === "" || pod.sidecar?.ready !== true)
        return { pod, samples: [], kernel };
      if (pages !== null) {
        const text = pages.find(({ podUid }) => podUid === pod.uid)?.text ?? "";
        return { pod, samples: parseSamples(text), kernel };
      }
      try {
        const answer = await fetch(report.metricsUrl, { signal: AbortSignal.timeout(timeoutMs) });
        return { pod, samples: parseSamples(await answer.text()), kernel };
      } catch {
        return { pod, samples: [], kernel };
      }
    }),
  );
}

/** Joins two readings into rates by workload. `before` empty: totals since the start, over `seconds`. */
export function summarize(
  before: readonly PodPage[],
  after: readonly PodPage[],
  seconds: number,
): WorkloadTraffic[] {
  const groups = new Map<string, PodPage[]>();
  for (const page of after) {
    const key = page.pod.owner;
    groups.set(key, [...(groups.get(key) ?? []), page]);
  }
  const old = new Map(before.map((page) => [page.pod.uid, index(page.samples)]));
  return [...groups.values()]
    .map((pages) => summarizeWorkload(pages, old, seconds))
    .toSorted((a, b) => `${a.namespace}/${a.workload}`.localeCompare(`${b.namespace}/${b.workload}`));
}

function summarizeWorkload(
  pages: readonly PodPage[],
  old: ReadonlyMap<string, ReadonlyMap<string, number>>,
  seconds: number,
): WorkloadTraffic {
  const first = (pages[0] as PodPage).pod;
  let requests = 0;
  let answers = 0;
  let successes = 0;
  let bytesIn = 0;
  let bytesOut = 0;
  let kernelConnections = 0;
  let kernelRefused = 0;
  const buckets = new Map<number, number>();
  const clients = new Set<string>();
  const protocols = new Set<string>();
  for (const { pod, samples, kernel } of pages) {
    const was = old.get(pod.uid);
    for (const sample of samples) {
      if (sample.labels.get("direction") !== "inbound") continue;
      const grown = sample.value - (was?.get(sampleKey(sample)) ?? 0);
      switch (sample.name) {
        case "request_total":
          requests += grown;
          if (sample.value > 0) noteClient(sample, clients);
          break;
        case "response_total":
          answers += grown;
          if (sample.labels.get("classification") === "success") successes += grown;
          if (sample.value > 0)
            protocols.add((sample.labels.get("grpc_status") ?? "") === "" ? "HTTP" : "gRPC");
          break;
        case "response_latency_ms_bucket": {
          const le = sample.labels.get("le") ?? "";
          const bound = le === "+Inf" ? Infinity : Number(le);
          buckets.set(bound, (buckets.get(bound) ?? 0) + grown);
          break;
        }
        case "tcp_open_total":
          if (sample.value > 0 && sample.labels.get("peer") === "src") noteClient(sample, clients);
          break;
        case "tcp_read_bytes_total":
          if (sample.labels.get("peer") === "src") bytesIn += grown;
          break;
        case "tcp_write_bytes_total":
          if (sample.labels.get("peer") === "src") bytesOut += grown;
          break;
      }
    }
    for (const target of kernel) {
      if (target.via === "refused") kernelRefused += target.connections;
      if (target.via !== "kernel") continue;
      kernelConnections += target.connections;
      bytesIn += target.direction === "in" ? target.bytesIn : 0;
      bytesOut += target.direction === "in" ? target.bytesOut : 0;
    }
  }
  if (protocols.size === 0 && bytesIn > 0) protocols.add("TCP");
  return {
    namespace: first.namespace,
    workload: first.owner.split("/").at(-1) ?? first.name,
    pods: pages.length,
    podsReady: pages.filter(({ pod }) => pod.ready).length,
    requestsPerSecond: requests / seconds,
    successRate: answers === 0 ? null : successes / answers,
    p50Ms: quantile(buckets, 0.5),
    p99Ms: quantile(buckets, 0.99),
    bytesIn,
    bytesOut,
    clients: [...clients].toSorted(),
    protocols: [...protocols].toSorted(),
    intercept: first.intercept,
    kernelConnections,
    kernelRefused,
  };
}

function noteClient(sample: Sample, clients: Set<string>): void {
  const id = sample.labels.get("client_id") ?? "";
  if (id === "") return;
  // `SA.NS.serviceaccount.identity.…` is long; a person needs its first two labels.
  clients.add(id.includes(".serviceaccount.") ? id.slice(0, id.indexOf(".serviceaccount.")) : id);
}

function index(samples: readonly Sample[]): Map<string, number> {
  return new Map(samples.map((sample) => [sampleKey(sample), sample.value]));
}

function sampleKey(sample: Sample): string {
  return `${sample.name} ${[...sample.labels].map(([key, value]) => `${key}=${value}`).join(",")}`;
}

/** Quantile of a cumulative histogram, linear inside its bucket; the last finite bound where it lies beyond. */
function quantile(buckets: ReadonlyMap<number, number>, q: number): number | null {
  const bounds = [...buckets].toSorted((a, b) => a[0] - b[0]);
  const total = bounds.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const rank = q * total;
  let lowBound = 0;
  let lowCount = 0;
  for (const [bound, count] of bounds) {
    if (count >= rank) {
      if (bound === Infinity) return lowBound;
      return count === lowCount
        ? bound
        : lowBound + ((bound - lowBound) * (rank - lowCount)) / (count - lowCount);
    }
    lowBound = bound;
    lowCount = count;
  }
  return lowBound;
}
