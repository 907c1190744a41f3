/**
 * One HTTP/2 connection to an endpoint against two and four, by the sidecar's own client and server: when one core of the far side
 * saturates, and over a wire that delays and loses. Without TLS. Needs root and /dev/net/tun.
 *
 *   scripts/run test bench/choices/http2-connections.ts [ROUNDS] [SECONDS] [cores|wire]
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { createServer, connect, type Socket } from "node:net";
import { join } from "node:path";
import { Histogram } from "#/base/histogram.ts";
import { SystemClock } from "#/net/clock.ts";
import { SocketConn } from "#/net/socket-conn.ts";
import type { HttpService, RequestHead, ResponseSink } from "#/stack/http/exchange.ts";
import { SPENT } from "#/stack/http/exchange.ts";
import { Http2Client } from "#/stack/http/http2-client.ts";
import { Http2Server } from "#/stack/http/http2-server.ts";
import { describeMachine } from "../lib/machine.ts";
import { cpuBetween, cpuUsed, memoryUsed } from "../lib/process-cost.ts";
import { showSpread, spread } from "../lib/report.ts";
import { countUp } from "./count-up.ts";

const PORT = 9200;
const COUNTS = [1, 2, 4];
const STEPS_EACH_US = 750;

interface Load {
  host: string;
  connections: number;
  /** Under way at once in a closed loop; with `perSecond`, the bound on those of an open one. */
  atOnce: number;
  /** 0: a closed loop. */
  perSecond: number;
  path: string;
  seconds: number;
}

interface Said {
  done: number;
  failed: number;
  p50Ms: number;
  p99Ms: number;
  cpuUs: number;
  rssMb: number;
}

const roles: Record<string, () => void | Promise<void>> = { server: runServer, client: runClient };
await (roles[process.argv[2] ?? ""] ?? main)();

/** The far side: counts up for each request, then answers with as many bytes as the path says. */
function runServer(): void {
  const steps = Number(process.argv[3]);
  const clock = new SystemClock();
  const bodies = new Map<string, Buffer>();
  const service: HttpService = {
    call(request, _last, reply) {
      countUp(steps);
      const bytes = Number(request.path.slice(1));
      const body = bodies.get(request.path) ?? Buffer.alloc(bytes, "x");
      bodies.set(request.path, body);
      reply.head(
        { status: 200, version: "2", reason: null, fields: ["content-length", String(bytes)] },
        false,
      );
      reply.body(body, 0, bytes);
      reply.finish(null);
      return SPENT;
    },
  };
  createServer({ noDelay: true, allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    const options = { meshed: false, clientId: null };
    void new Http2Server(new SocketConn(clock, socket), service, clock, () => undefined, options);
  }).listen({ port: PORT, host: "0.0.0.0", reusePort: true }, () => process.stdout.write("ready\n"));
}

/** Load from one process, by the sidecar's own client: each request on the connection with the fewest. */
async function runClient(): Promise<void> {
  const load = JSON.parse(process.argv[3] ?? "{}") as Load;
  const clock = new SystemClock();
  const clients = await Promise.all(
    Array.from({ length: load.connections }, () => clientTo(clock, load.host)),
  );
  const latency = new Histogram();
  const head: RequestHead = {
    method: "GET",
    scheme: "http",
    authority: "bench",
    path: load.path,
    version: "2",
    absoluteForm: false,
    upgrade: null,
    fields: ["user-agent", "bench/1.0", "accept", "*/*"],
  };
  let done = 0;
  let failed = 0;
  let under = 0;
  let isMeasuring = false;
  let isOver = false;
  let told: () => void = () => undefined;
  const ask = (): void => {
    const client = clients.reduce((least, one) => (one.activeRequests < least.activeRequests ? one : least));
    const startMs = performance.now();
    under++;
    const over = (): void => {
      under--;
      if (isMeasuring) latency.record((performance.now() - startMs) * 1000);
      if (isMeasuring) done++;
      if (!isOver && load.perSecond === 0) ask();
      if (isOver && under === 0) told();
    };
    const reply: ResponseSink = {
      informational: () => undefined,
      head: () => undefined,
      body: (_bytes, start, stop) => sink.responseConsumed(stop - start),
      finish: over,
      fail: () => {
        failed++;
        over();
      },
      requestConsumed: () => undefined,
    };
    const sink = client.call(head, true, reply);
  };
  const releases =
    load.perSecond === 0 ? null : releaseEvenly(load, () => (under < load.atOnce ? ask() : failed++));
  if (load.perSecond === 0) for (let i = 0; i < load.atOnce; i++) ask();
  await wait(500);
  const before = cpuUsed(process.pid);
  isMeasuring = true;
  await wait(load.seconds * 1000);
  isMeasuring = false;
  const { userUs, systemUs } = cpuBetween(before, cpuUsed(process.pid));
  isOver = true;
  clearInterval(releases ?? undefined);
  if (under > 0) await Promise.race([new Promise<void>((resolve) => (told = resolve)), wait(3000)]);
  const quantile = (q: number): number => latency.quantileUs(q) / 1000;
  const said: Said = {
    done,
    failed: failed + under,
    p50Ms: quantile(0.5),
    p99Ms: quantile(0.99),
    cpuUs: (userUs + systemUs) / done,
    rssMb: memoryUsed(process.pid).rssKib / 1024,
  };
  process.stdout.write(JSON.stringify(said), () => process.exit());
}

function releaseEvenly({ perSecond }: Load, release: () => void): NodeJS.Timeout {
  const startMs = performance.now();
  let released = 0;
  return setInterval(() => {
    const due = ((performance.now() - startMs) / 1000) * perSecond;
    for (; released < due; released++) release();
  }, 1);
}

function clientTo(clock: SystemClock, host: string): Promise<Http2Client> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect({ port: PORT, host, noDelay: true, allowHalfOpen: true });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.pause();
      resolve(new Http2Client(new SocketConn(clock, socket), clock, () => undefined, { meshed: false }));
    });
  });
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function main(): Promise<void> {
  const [rounds = 3, seconds = 2] = process.argv.slice(2, 4).map(Number);
  const part = process.argv[4] ?? "";
  console.log(describeMachine());
  const near = `pillion-choice-${process.pid}n`;
  const far = `pillion-choice-${process.pid}f`;
  const children: ChildProcess[] = [];
  const own = [process.execPath, "--no-warnings", import.meta.filename];
  const start = async (namespace: string, ...command: string[]): Promise<ChildProcess> => {
    const child = spawn("ip", ["netns", "exec", namespace, ...command], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    children.push(child);
    await new Promise<void>((resolve, reject) => {
      child.stdout?.once("data", () => resolve());
      child.once("exit", (code) => reject(new Error(`${command.join(" ")} ended with ${code}`)));
    });
    return child;
  };
  const stop = async (child: ChildProcess): Promise<void> => {
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.removeAllListeners("exit");
    child.once("exit", () => undefined);
    const over = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGKILL");
    await Promise.race([gone, over]);
  };
  const measure = async (name: string, load: Omit<Load, "connections">): Promise<void> => {
    const samples = new Map(COUNTS.map((count) => [count, [] as Said[]]));
    for (let round = 0; round < rounds; round++) {
      for (const connections of COUNTS) {
        const settings = JSON.stringify({ ...load, connections });
        const child = spawn("ip", ["netns", "exec", near, ...own, "client", settings], {
          stdio: ["ignore", "pipe", "inherit"],
        });
        children.push(child);
        let out = "";
        child.stdout.on("data", (bytes: Buffer) => (out += bytes.toString()));
        await new Promise((resolve) => child.once("close", resolve));
        samples.get(connections)?.push(JSON.parse(out) as Said);
      }
    }
    for (const [count, said] of samples) {
      const of = (key: keyof Said, digits: number): string =>
        showSpread(spread(said.map((one) => one[key])), digits);
      const perSecond = showSpread(spread(said.map(({ done }) => done / load.seconds)), 0);
      const failed = said.reduce((sum, one) => sum + one.failed, 0);
      console.log(
        `${name}, ${count} connection${count === 1 ? "" : "s"}: ${perSecond}/s, p50 ${of("p50Ms", 1)} ms, p99 ${of("p99Ms", 1)} ms, ` +
          `client ${of("cpuUs", 0)} µs, RSS ${of("rssMb", 0)} MB${failed > 0 ? `, ${failed} FAILED` : ""}`,
      );
    }
  };
  for (const namespace of [near, far]) execFileSync("ip", ["netns", "add", namespace]);
  try {
    for (const namespace of [near, far]) execFileSync("ip", ["-n", namespace, "link", "set", "lo", "up"]);
    const closed = { atOnce: 64, perSecond: 0, path: "/1024", seconds };
    if (part !== "wire") {
      for (const [processes, computeUs] of [
        [1, 100],
        [2, 100],
        [2, 0],
      ] as const) {
        const servers: ChildProcess[] = [];
        for (let i = 0; i < processes; i++)
          servers.push(await start(near, ...own, "server", String(computeUs * STEPS_EACH_US)));
        const what = `far side of ${processes} process${processes === 1 ? "" : "es"}, about ${computeUs} µs each request`;
        await measure(`64 at once, ${what}`, { ...closed, host: "127.0.0.1" });
        for (const server of servers) await stop(server);
      }
    }
    if (part === "cores") return;
    await start(far, ...own, "server", "0");
    const wireProgram = join(import.meta.dirname, "wire.ts");
    for (const lossPerMille of [0, 1, 10]) {
      const wire = await start(near, ...own.slice(0, -1), wireProgram, far, "2", String(lossPerMille));
      const what = `2 ms each way, ${lossPerMille / 10} % lost`;
      const there = { host: "10.97.0.2", seconds };
      await measure(`500/s, ${what}`, { ...there, atOnce: 1000, perSecond: 500, path: "/1024" });
      const bulk = { atOnce: 8, perSecond: 0, path: "/65536" };
      await measure(`8 answers of 64 KiB at once, ${what}`, { ...there, ...bulk });
      await stop(wire);
    }
  } finally {
    for (const child of children) if (child.exitCode === null && child.signalCode === null) await stop(child);
    for (const namespace of [near, far]) execFileSync("ip", ["netns", "del", namespace]);
  }
}
