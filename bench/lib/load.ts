import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import type { GrpcLoadResult, GrpcLoadSettings } from "./grpc-load.ts";
import type { DialledPeer, HandshakeLoadResult, HandshakeLoadSettings } from "./handshake-load.ts";
import { SIDECAR_UID, type Namespaces } from "./namespaces.ts";
import type { OpenLoopResult, OpenLoopSettings } from "./open-loop.ts";
import type { Subject } from "../subjects/subject.ts";
import { existsInPath } from "./programs.ts";
import type { Shape } from "./shapes.ts";
import type { TcpLoadResult, TcpLoadSettings } from "./tcp-load.ts";

/** What the load generator saw of one burst. */
export interface Burst {
  /** Of the shape's unit. */
  done: number;
  failed: number;
  perSecond: number;
  /** 0 where nothing was timed. */
  p50Us: number;
  p99Us: number;
  p999Us: number;
}

/** The core of load generator and application; proxies have `PROXY_CORE` to themselves. */
export const LOAD_CORE = 0;
export const PROXY_CORE: number = Math.min(1, availableParallelism() - 1);

/** Why a shape cannot be run on this machine; null where it can. */
export function missingFor(shape: Shape): string | null {
  const program = shape.kind === "wrk" || shape.kind === "h2load" ? shape.kind : null;
  return program === null || existsInPath(program) ? null : `${program} is not installed`;
}

/**
 * One burst; null where the subject takes no load of this shape. `capacityPerSecond`: of the reference, for open loops of a share.
 */
export async function runBurst(
  { world, places, peer }: Pick<Subject, "world" | "places" | "peer">,
  shape: Shape,
  seconds: number,
  capacityPerSecond: number,
): Promise<Burst | null> {
  if (shape.kind === "handshake")
    return peer === undefined ? null : await runHandshakes(world, peer, shape, seconds);
  const place = places[shape.speech];
  if (place === undefined) return null;
  switch (shape.kind) {
    case "wrk":
      return runWrk(world, place, shape, seconds);
    case "h2load":
      return runH2load(world, place, shape, seconds);
    case "open":
      return runOpenLoop(world, place, shape, seconds, capacityPerSecond);
    case "tcp":
      return runTcp(world, place, shape, seconds);
    case "grpc-stream":
      return runGrpcStream(world, place, shape, seconds);
  }
}

type Of<Kind extends Shape["kind"]> = Extract<Shape, { kind: Kind }>;

export function wrkCommand(shape: Of<"wrk">, place: string, seconds: number): string[] {
  const script = join(import.meta.dirname, shape.isConnectionPerRequest ? "wrk-close.lua" : "wrk-report.lua");
  const sized = ["-t1", `-c${shape.connections}`, `-d${seconds}`, "-s", script];
  return ["wrk", ...sized, `http://${place}${shape.path}`];
}

async function runWrk(world: Namespaces, place: string, shape: Of<"wrk">, seconds: number): Promise<Burst> {
  const out = await world.run("client", wrkCommand(shape, place, seconds), { core: LOAD_CORE });
  const report = /^REPORT (.*)$/m.exec(out)?.[1];
  if (report === undefined) throw new Error(`wrk printed no report: ${out}`);
  const said = JSON.parse(report) as {
    requests: number;
    failed: number;
    us: number;
    p50: number;
    p99: number;
    p999: number;
  };
  return {
    done: said.requests,
    failed: said.failed,
    perSecond: (said.requests / said.us) * 1e6,
    p50Us: said.p50,
    p99Us: said.p99,
    p999Us: said.p999,
  };
}

async function runH2load(
  world: Namespaces,
  place: string,
  { connections, streams, messageBytes }: Of<"h2load">,
  seconds: number,
): Promise<Burst> {
  const sized = ["-c", String(connections), "-m", String(streams), "-D", String(seconds), "-t", "1"];
  const call: string[] = [];
  const message = join(tmpdir(), `pillion-bench-message-${process.pid}`);
  if (messageBytes !== null) {
    const bytes = Buffer.alloc(5 + messageBytes, "m");
    bytes.writeUInt8(0, 0);
    bytes.writeUInt32BE(messageBytes, 1);
    writeFileSync(message, bytes);
    call.push("-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers");
  }
  const path = messageBytes === null ? "/" : "/bench.Echo/Unary";
  const log = join(tmpdir(), `pillion-bench-h2load-${process.pid}`);
  await world.run("client", ["h2load", ...sized, ...call, `--log-file=${log}`, `http://${place}${path}`], {
    core: LOAD_CORE,
  });
  const out = readFileSync(log, "latin1");
  for (const file of [log, message]) rmSync(file, { force: true });
  // One line a request: start in µs, status, duration in µs.
  const durations = [...out.matchAll(/^\d{10,}\t(-?\d+)\t(\d+)$/gm)].map((m) => ({
    ok: m[1] === "200",
    us: Number(m[2]),
  }));
  const sorted = Float64Array.from(durations, (d) => d.us).toSorted();
  const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
  return {
    done: durations.length,
    failed: durations.filter((d) => !d.ok).length,
    perSecond: durations.length / seconds,
    p50Us: at(0.5),
    p99Us: at(0.99),
    p999Us: at(0.999),
  };
}

async function runOpenLoop(
  world: Namespaces,
  place: string,
  { connections, perSecond }: Of<"open">,
  seconds: number,
  capacityPerSecond: number,
): Promise<Burst> {
  const { hostname, port } = new URL(`http://${place}`);
  const settings: OpenLoopSettings = {
    host: hostname,
    port: Number(port || 80),
    connections,
    requestsPerSecond:
      typeof perSecond === "number" ? perSecond : Math.round(perSecond.ofCapacity * capacityPerSecond),
    seconds,
  };
  const result = await runOwn<OpenLoopResult>(world, "http", settings);
  return { ...result, done: result.answered, perSecond: result.answered / seconds };
}

async function runTcp(
  world: Namespaces,
  place: string,
  { what, connections, messageBytes }: Of<"tcp">,
  seconds: number,
): Promise<Burst> {
  const [host = "", port = ""] = place.split(":");
  const settings: TcpLoadSettings = { host, port: Number(port), what, connections, seconds, messageBytes };
  const result = await runOwn<TcpLoadResult>(world, "tcp", settings);
  return { ...result, perSecond: result.done / result.seconds };
}

async function runHandshakes(
  world: Namespaces,
  peer: DialledPeer,
  { connections }: Of<"handshake">,
  seconds: number,
): Promise<Burst> {
  const settings: HandshakeLoadSettings = { peer, connections, seconds };
  // As who is not redirected to the client's sidecar.
  const result = await runOwn<HandshakeLoadResult>(world, "handshake", settings, SIDECAR_UID);
  return { ...result, perSecond: result.done / result.seconds };
}

async function runGrpcStream(
  world: Namespaces,
  place: string,
  { streams, messageBytes }: Of<"grpc-stream">,
  seconds: number,
): Promise<Burst> {
  const settings: GrpcLoadSettings = { url: `http://${place}`, streams, seconds, messageBytes };
  const result = await runOwn<GrpcLoadResult>(world, "grpc", settings);
  return { ...result, perSecond: result.done / seconds };
}

async function runOwn<Result>(
  world: Namespaces,
  kind: string,
  settings: object,
  uid?: number,
): Promise<Result> {
  const program = join(import.meta.dirname, "../load.ts");
  const out = await world.run("client", [process.execPath, program, kind, JSON.stringify(settings)], {
    core: LOAD_CORE,
    ...(uid === undefined ? {} : { uid }),
  });
  return JSON.parse(out) as Result;
}
