/**
 * What a second core gives one sidecar: one worker against two, as threads of one process and as processes, all listening on the same
 * port (SO_REUSEPORT). The load has no cores of its own here, so what two cores could give at best is printed beside. Needs
 * root, wrk and nginx.
 *
 *   scripts/run test bench/choices/several-cores.ts [ROUNDS] [SECONDS]
 */
import { execFileSync, type ChildProcess } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { SIDECAR_NODE_FLAGS } from "#/agent/runtime/pod-host.ts";
import { startApps } from "../lib/app.ts";
import { describeMachine } from "../lib/machine.ts";
import { Namespaces, PORTS, SERVER, SIDECAR_UID } from "../lib/namespaces.ts";
import { cpuUsed, memoryUsed } from "../lib/process-cost.ts";
import { showSpread, spread } from "../lib/report.ts";
import { startControl } from "../subjects/controlled.ts";
import { sidecarProgram, startSidecar } from "../subjects/pillion.ts";
import { end, readyByPort } from "../subjects/subject.ts";
import { applicationsUs } from "./applications.ts";

const [rounds = 3, seconds = 2] = process.argv.slice(2).map(Number);
const CORES = 2;
/** Of the load: what is busy for 1 ms a request has so many waiting that none is late (wrk gives up after 2 s). */
const CONNECTIONS = { hop: 16, sidecar: 64 };
/** About 1 ms in the hop: what the load takes of the cores is little beside it. */
const STEPS = 250_000;
const REPORT = join(import.meta.dirname, "../lib/wrk-report.lua");

interface Subject {
  name: string;
  world: Namespaces;
  place: string;
  connections: number;
  pids: number[];
  freshPssMb: number;
  stop: () => Promise<void>;
}

interface Sample {
  perSecond: number;
  workerUs: number;
  applicationsUs: number;
  p99Ms: number;
  /** CPU time of the busiest worker process, as a share of all. */
  busiest: number;
}

const folder = mkdtempSync(join(tmpdir(), "pillion-choice-"));
chmodSync(folder, 0o755);
// Without types, as sidecars are: the compiler that takes them away would be most of a worker's memory.
const WORKERS = withoutTypes("workers");
const HOP = withoutTypes("busy-hop");
const REUSE_PORT = withoutTypes("reuse-port");
withoutTypes("count-up");
writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }));
const worlds: Namespaces[] = [];
const subjects: Subject[] = [];
process.on("exit", () => {
  for (const world of worlds) world.close();
  rmSync(folder, { recursive: true, force: true });
});

function withoutTypes(name: string): string {
  const file = join(folder, `${name}.js`);
  const source = readFileSync(join(import.meta.dirname, `${name}.ts`), "utf8");
  writeFileSync(file, stripTypeScriptTypes(source).replaceAll('.ts"', '.js"'));
  return file;
}

async function makeWorld(): Promise<Namespaces> {
  const world = new Namespaces();
  worlds.push(world);
  await startApps(world, folder);
  return world;
}

/** `pid` and all that it started. */
function withChildren(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim();
  return [
    pid,
    ...children
      .split(" ")
      .filter(Boolean)
      .flatMap((child) => withChildren(Number(child))),
  ];
}

/** The launcher of processes is no worker. */
function workersOf(pid: number, kind: string): number[] {
  return kind === "processes" ? withChildren(pid).slice(1) : [pid];
}

const pssMb = (pids: readonly number[]): number =>
  pids.reduce((sum, pid) => sum + memoryUsed(pid).pssKib, 0) / 1024;

async function startHop(world: Namespaces, kind: string, count: number, port: number): Promise<Subject> {
  const hop = [HOP, String(port), SERVER, String(PORTS.http1.bare), String(STEPS)];
  const node = [process.execPath, "--no-warnings"];
  const child = world.start("client", [...node, WORKERS, kind, String(count), ...node, ...hop]);
  await readyByPort(world, "client", port);
  await settled();
  const pids = workersOf(child.pid ?? 0, kind);
  const name = `busy plain hop, ${count} ${kind}`;
  return {
    name,
    world,
    place: `127.0.0.1:${port}`,
    connections: CONNECTIONS.hop,
    pids,
    freshPssMb: pssMb(pids),
    stop: () => end(child),
  };
}

/** The server's sidecar alone, by unmeshed clients: no TLS, all else as it is. */
async function startSidecars(count: number): Promise<Subject> {
  const own = join(folder, `sidecars-${count}`);
  mkdirSync(own);
  const world = await makeWorld();
  const control = await startControl(world, own, "server", { sidecars: count });
  const command = [process.execPath, ...SIDECAR_NODE_FLAGS, "--import", REUSE_PORT];
  const program = sidecarProgram(own, false);
  const children: ChildProcess[] = [];
  for (let i = 0; i < count; i++) {
    const { child } = await startSidecar(world, "server", control.settings, { command, program });
    // The bench gives proxies a core of their own.
    execFileSync("taskset", ["-a", "-c", "-p", `0-${CORES - 1}`, String(child.pid)], { stdio: "ignore" });
    children.push(child);
  }
  await settled();
  const pids = children.map(({ pid }) => pid ?? 0);
  return {
    name: `sidecar, ${count} processes`,
    world,
    place: `${SERVER}:${PORTS.http1.pod}`,
    connections: CONNECTIONS.sidecar,
    pids,
    freshPssMb: pssMb(pids),
    stop: async () => {
      for (const child of [...children, control.child]) await end(child);
    },
  };
}

/** Memory of all that a sidecar loads, idle: what each further thread or process adds. */
async function idleMemory(world: Namespaces): Promise<void> {
  const into = join(folder, "idle");
  mkdirSync(into);
  const idle = join(dirname(sidecarProgram(into, false)), "idle.js");
  writeFileSync(idle, 'await import("#/proxy/main.js");\nsetInterval(() => undefined, 1e6);\n');
  for (const kind of ["threads", "processes"]) {
    for (const count of [1, 2, 3]) {
      const command = [
        process.execPath,
        "--no-warnings",
        WORKERS,
        kind,
        String(count),
        process.execPath,
        "--no-warnings",
        idle,
      ];
      const child = world.start("client", command);
      await settled();
      const pids = workersOf(child.pid ?? 0, kind);
      const rss = pids.reduce((sum, pid) => sum + memoryUsed(pid).rssKib, 0) / 1024;
      console.log(
        `a sidecar's code, idle in ${count} ${kind}: PSS ${pssMb(pids).toFixed(1)} MB, RSS ${rss.toFixed(1)} MB`,
      );
      await end(child);
    }
  }
}

/** Until start-up is over: what a fresh worker's memory is. */
function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1500));
}

async function burst({ world, place, connections, pids }: Subject, runSeconds: number): Promise<Sample> {
  const used = (): number[] =>
    pids.map((pid) => cpuUsed(pid)).map(({ userUs, systemUs }) => userUs + systemUs);
  const before = used();
  const applicationsBefore = applicationsUs(world);
  // As the sidecar's user, so that nothing takes the load to the client's sidecar.
  const wrk = ["wrk", "-t1", `-c${connections}`, `-d${runSeconds}`, "-s", REPORT, `http://${place}/`];
  const out = await world.run("client", wrk, { uid: SIDECAR_UID });
  const said = JSON.parse(/^REPORT (.*)$/m.exec(out)?.[1] ?? "{}") as {
    requests: number;
    failed: number;
    us: number;
    p99: number;
  };
  if (!(said.failed === 0)) throw new Error(`of ${said.requests} requests ${said.failed} failed`);
  const each = used().map((us, i) => us - (before[i] ?? 0));
  const sumUs = each.reduce((sum, us) => sum + us, 0);
  return {
    perSecond: (said.requests / said.us) * 1e6,
    workerUs: sumUs / said.requests,
    applicationsUs: (applicationsUs(world) - applicationsBefore) / said.requests,
    p99Ms: said.p99 / 1000,
    busiest: Math.max(...each) / sumUs,
  };
}

async function main(): Promise<void> {
  console.log(describeMachine());
  const world = await makeWorld();
  await idleMemory(world);
  subjects.push(await startHop(world, "processes", 1, 9101));
  subjects.push(await startHop(world, "threads", 2, 9102));
  subjects.push(await startHop(world, "processes", 2, 9103));
  subjects.push(await startSidecars(1));
  subjects.push(await startSidecars(2));
  const samples = new Map(subjects.map((subject) => [subject, [] as Sample[]]));
  for (const subject of subjects) await burst(subject, 1);
  for (let round = 0; round < rounds; round++)
    for (const subject of subjects) samples.get(subject)?.push(await burst(subject, seconds));
  for (const [{ name, pids, freshPssMb }, own] of samples) {
    const of = (key: keyof Sample, digits: number): string =>
      showSpread(spread(own.map((one) => one[key])), digits);
    const best = own.map((one) => (CORES * 1e6) / (one.workerUs + one.applicationsUs));
    console.log(
      `${name}: ${of("perSecond", 0)}/s of ${showSpread(spread(best), 0)} that two cores could give; ` +
        `worker ${of("workerUs", 1)} µs, applications ${of("applicationsUs", 1)} µs, p99 ${of("p99Ms", 1)} ms, ` +
        `busiest process ${of("busiest", 2)}; PSS fresh ${freshPssMb.toFixed(1)} MB, after ${pssMb(pids).toFixed(1)} MB`,
    );
  }
}

try {
  await main();
} finally {
  for (const { stop } of subjects) await stop();
}
process.exit();
