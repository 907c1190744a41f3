import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Namespaces } from "./namespaces.ts";
import type { OpenLoopResult, OpenLoopSettings } from "./open-loop.ts";

/** What the load generator saw of one burst. */
export interface Burst {
  requests: number;
  failed: number;
  perSecond: number;
  p50Us: number;
  p99Us: number;
}

/** A kind of load. */
export interface Shape {
  readonly name: string;
  /** Closed loop by wrk, or by h2load for HTTP/2 with prior knowledge; open loop by our own generator. */
  readonly kind: "closed" | "closed-h2" | "open";
  readonly connections: number;
  /** HTTP/2: streams at once on each connection. */
  readonly streams?: number;
  readonly requestsPerSecond?: number;
  /** One request per connection. */
  readonly isConnectionPerRequest?: boolean;
}

/** The core of load generator and application; proxies have `PROXY_CORE` to themselves. */
export const LOAD_CORE = 0;
export const PROXY_CORE: number = Math.min(1, availableParallelism() - 1);

export function runBurst(world: Namespaces, url: URL, shape: Shape, seconds: number): Promise<Burst> {
  switch (shape.kind) {
    case "closed":
      return runWrk(world, url, shape, seconds);
    case "closed-h2":
      return runH2load(world, url, shape, seconds);
    case "open":
      return runOpenLoop(world, url, shape, seconds);
  }
}

async function runWrk(world: Namespaces, url: URL, shape: Shape, seconds: number): Promise<Burst> {
  const script = join(
    import.meta.dirname,
    shape.isConnectionPerRequest === true ? "wrk-close.lua" : "wrk-report.lua",
  );
  const sized = ["-t1", `-c${shape.connections}`, `-d${seconds}`, "-s", script];
  const out = await world.run("client", ["wrk", ...sized, url.href], { core: LOAD_CORE });
  const report = /^REPORT (.*)$/m.exec(out)?.[1];
  if (report === undefined) throw new Error(`wrk printed no report: ${out}`);
  const said = JSON.parse(report) as {
    requests: number;
    failed: number;
    us: number;
    p50: number;
    p99: number;
  };
  return {
    requests: said.requests,
    failed: said.failed,
    perSecond: (said.requests / said.us) * 1e6,
    p50Us: said.p50,
    p99Us: said.p99,
  };
}

async function runH2load(world: Namespaces, url: URL, shape: Shape, seconds: number): Promise<Burst> {
  const sized = ["-c", String(shape.connections), "-m", String(shape.streams ?? 1), "-D", String(seconds)];
  const log = "/dev/stdout";
  const out = await world.run("client", ["h2load", ...sized, "-t", "1", `--log-file=${log}`, url.href], {
    core: LOAD_CORE,
  });
  // One line a request: start in µs, status, duration in µs.
  const durations = [...out.matchAll(/^\d{10,}\t(\d{3})\t(\d+)$/gm)].map((m) => ({
    ok: m[1] === "200",
    us: Number(m[2]),
  }));
  const sorted = Float64Array.from(durations, (d) => d.us).toSorted();
  const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
  return {
    requests: durations.length,
    failed: durations.filter((d) => !d.ok).length,
    perSecond: durations.length / seconds,
    p50Us: at(0.5),
    p99Us: at(0.99),
  };
}

async function runOpenLoop(world: Namespaces, url: URL, shape: Shape, seconds: number): Promise<Burst> {
  const settings: OpenLoopSettings = {
    host: url.hostname,
    port: Number(url.port || 80),
    connections: shape.connections,
    requestsPerSecond: shape.requestsPerSecond ?? 100,
    seconds,
  };
  const program = join(import.meta.dirname, "../load.ts");
  const out = await world.run("client", [process.execPath, program, JSON.stringify(settings)], {
    core: LOAD_CORE,
  });
  const result = JSON.parse(out) as OpenLoopResult;
  return {
    requests: result.answered,
    failed: result.failed,
    perSecond: result.answered / seconds,
    p50Us: result.p50Us,
    p99Us: result.p99Us,
  };
}
