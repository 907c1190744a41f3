/**
 * Measures sidecars and their peers side by side: every subject is up all the time, and each round gives each of them
 * one short burst of each shape of load, in turn, so that what else the machine does hits all alike. Needs root.
 *
 *   npm run bench -- [--routes] [--quick] [--json] [--rounds N] [--seconds N] [--only NAME[,NAME]] [--shape NAME[,NAME]]
 *                    [--variant NAME=COMMAND] [--profile FOLDER] [--envoy PATH]
 *
 * At the end stands what 200 routes cost, measured in memory; --routes measures that alone, and needs no root.
 *
 * A variant is one more Pillion pair whose sidecars run under another command, as `small=node --max-semi-space-size=2`.
 */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { SIDECAR_NODE_FLAGS } from "#/agent/runtime/pod-host.ts";
import { startApp } from "./lib/app.ts";
import { runBurst, type Burst, type Shape } from "./lib/load.ts";
import { describeMachine } from "./lib/machine.ts";
import { Namespaces, SIDECAR_UID } from "./lib/namespaces.ts";
import { cpuBetween, cpuUsed, memoryUsed, type CpuUsed, type MemoryUsed } from "./lib/process-cost.ts";
import { describeProfile } from "./lib/profile.ts";
import { routesRatios } from "./lib/routes-ratio.ts";
import { showSpread, spread, table, type Spread } from "./lib/report.ts";
import { startEnvoy } from "./subjects/envoy.ts";
import { startPillion } from "./subjects/pillion.ts";
import { startPrototype } from "./subjects/prototype.ts";
import { startDirect, startHaproxy, startNginx } from "./subjects/single-hop.ts";
import type { StartSubject, Subject } from "./subjects/subject.ts";

const { values: options } = parseArgs({
  options: {
    routes: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    rounds: { type: "string" },
    seconds: { type: "string" },
    only: { type: "string" },
    shape: { type: "string" },
    variant: { type: "string", multiple: true, default: [] },
    profile: { type: "string" },
    envoy: { type: "string" },
  },
});

const subjects: Record<string, StartSubject> = {
  direct: startDirect,
  nginx: startNginx,
  haproxy: startHaproxy,
  prototype: startPrototype,
  envoy: startEnvoy(options.envoy),
  pillion: startPillion([process.execPath, ...SIDECAR_NODE_FLAGS]),
};

const shapes: readonly Shape[] = [
  { name: "h1-1", kind: "closed", connections: 1 },
  { name: "h1-8", kind: "closed", connections: 8 },
  { name: "h1-64", kind: "closed", connections: 64 },
  { name: "h1-512", kind: "closed", connections: 512 },
  { name: "open-500", kind: "open", connections: 8, requestsPerSecond: 500 },
  { name: "open-1000", kind: "open", connections: 16, requestsPerSecond: 1000 },
  { name: "new-connections", kind: "closed", connections: 8, isConnectionPerRequest: true },
];
const QUICK_SUBJECTS = ["nginx", "prototype", "pillion"];
const QUICK_SHAPES = ["h1-8", "h1-64", "open-500"];

const rounds = Number(options.rounds ?? (options.quick ? 3 : 5));
const seconds = Number(options.seconds ?? (options.quick ? 1 : 3));
const wantedSubjects =
  options.only?.split(",") ?? (options.quick ? [...QUICK_SUBJECTS] : Object.keys(subjects));
const wantedShapes = options.shape?.split(",") ?? (options.quick ? QUICK_SHAPES : shapes.map((s) => s.name));
const note = (text: string): void => {
  if (!options.json) console.log(text);
};

/** What one subject cost and gave under one shape, over all rounds. CPU in µs per request for each process. */
interface Row {
  shape: string;
  subject: string;
  cpuUs: { role: string; total: Spread; userShare: number }[];
  perSecond: Spread;
  p50Us: Spread;
  p99Us: Spread;
  failed: number;
}

interface Sample {
  burst: Burst;
  cpu: CpuUsed[];
}

if (options.routes) {
  printRoutesRatio();
  process.exit();
}
if (process.getuid?.() !== 0) {
  console.error("the bench makes network namespaces and needs root; run it with sudo");
  process.exit(2);
}
const folder = mkdtempSync(join(tmpdir(), "pillion-bench-"));
// Sidecars run under another user and read their program here; the keys in it have modes of their own.
chmodSync(folder, 0o755);
const worlds: Namespaces[] = [];
const running: Subject[] = [];
// Whatever ends this process, nothing that it started may stay.
process.on("exit", () => {
  for (const world of worlds) world.close();
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void finish(130));
try {
  await main();
  await finish(0);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  await finish(1);
}

async function main(): Promise<void> {
  note(describeMachine());
  const world = await makeWorld();
  for (const variant of options.variant) {
    const [name = "", command = ""] = variant.split(/=(.*)/s);
    subjects[name] = startPillion(
      command.split(" ").map((word) => (word === "node" ? process.execPath : word)),
      name,
    );
    wantedSubjects.push(name);
  }
  const profileFolder = options.profile ?? null;
  if (profileFolder !== null) {
    mkdirSync(profileFolder, { recursive: true });
    chownSync(profileFolder, SIDECAR_UID, SIDECAR_UID);
  }
  for (const name of wantedSubjects) {
    const start = subjects[name];
    if (start === undefined)
      throw new Error(`no subject is called ${name}; there are ${Object.keys(subjects).join(", ")}`);
    const subject = await start({ world, makeWorld, folder, profileFolder });
    if ("skipped" in subject) note(`${name}: not measured, ${subject.skipped}`);
    else running.push(subject);
  }
  const chosen = wantedShapes.map((name) => {
    const shape = shapes.find((s) => s.name === name);
    if (shape === undefined)
      throw new Error(`no shape is called ${name}; there are ${shapes.map((s) => s.name).join(", ")}`);
    return shape;
  });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const fresh = running.map(memoryOf);
  await warmUp();
  const samples = await measure(chosen);
  const loaded = running.map(memoryOf);
  const rows = chosen.flatMap((shape) =>
    running.map((subject) => summarize(shape, subject, samples.get(key(shape, subject)) ?? [])),
  );
  if (options.json)
    console.log(
      JSON.stringify(
        { machine: describeMachine(), rounds, seconds, rows, memory: memoryRows(fresh, loaded) },
        null,
        1,
      ),
    );
  else {
    print(rows, fresh, loaded);
    printRoutesRatio();
  }
}

function printRoutesRatio(): void {
  const { routes, endpoints, services } = routesRatios(rounds);
  console.log(
    `\nCPU per request in memory, × the plain path, min / median / max of ${rounds} rounds (aim: at most 1.15)\n` +
      `  200 routes to one endpoint: ${showSpread(routes, 2)}\n` +
      `  200 routes to one service of 1,000 endpoints: ${showSpread(endpoints, 2)}\n` +
      `  200 routes to 200 services of 5 endpoints, each used in turn: ${showSpread(services, 2)}`,
  );
}

async function makeWorld(): Promise<Namespaces> {
  const world = new Namespaces();
  worlds.push(world);
  await startApp(world, folder);
  return world;
}

/** A compiler that learns while it runs needs tens of thousands of requests before it is what it will be for days. */
async function warmUp(): Promise<void> {
  const shape: Shape = { name: "warm-up", kind: "closed", connections: 64 };
  for (const subject of running.filter((s) => s.processes.length > 0))
    await runBurst(subject.world, subject.url, shape, options.quick ? 3 : 5);
}

async function measure(chosen: readonly Shape[]): Promise<Map<string, Sample[]>> {
  const samples = new Map<string, Sample[]>();
  for (let round = 1; round <= rounds; round++) {
    for (const shape of chosen) {
      for (const subject of running) {
        const before = subject.processes.map((p) => cpuUsed(p.pid));
        const burst = await runBurst(subject.world, subject.url, shape, seconds);
        const cpu = subject.processes.map((p, i) => cpuBetween(before[i]!, cpuUsed(p.pid)));
        if (burst.requests === 0) throw new Error(`${subject.name} answered nothing under ${shape.name}`);
        const list = samples.get(key(shape, subject)) ?? [];
        list.push({ burst, cpu });
        samples.set(key(shape, subject), list);
      }
    }
  }
  return samples;
}

function key(shape: Shape, subject: Subject): string {
  return `${shape.name}\n${subject.name}`;
}

function summarize(shape: Shape, subject: Subject, samples: readonly Sample[]): Row {
  const of = (value: (sample: Sample) => number): Spread => spread(samples.map(value));
  const total = (cpu: CpuUsed): number => cpu.userUs + cpu.systemUs;
  return {
    shape: shape.name,
    subject: subject.name,
    cpuUs: subject.processes.map(({ role }, i) => ({
      role,
      total: of((s) => total(s.cpu[i]!) / s.burst.requests),
      userShare: of((s) => s.cpu[i]!.userUs / total(s.cpu[i]!)).median,
    })),
    perSecond: of((s) => s.burst.perSecond),
    p50Us: of((s) => s.burst.p50Us),
    p99Us: of((s) => s.burst.p99Us),
    failed: samples.reduce((sum, s) => sum + s.burst.failed, 0),
  };
}

function memoryOf(subject: Subject): MemoryUsed[] {
  return subject.processes.map((p) => memoryUsed(p.pid));
}

function memoryRows(fresh: MemoryUsed[][], loaded: MemoryUsed[][]) {
  return running.flatMap((subject, i) =>
    subject.processes.map((p, j) => ({
      subject: subject.name,
      role: p.role,
      readyMs: p.readyMs,
      fresh: fresh[i]![j]!,
      loaded: loaded[i]![j]!,
    })),
  );
}

function print(rows: readonly Row[], fresh: MemoryUsed[][], loaded: MemoryUsed[][]): void {
  console.log(
    `\n${rounds} rounds of ${seconds} s, min / median / max; CPU is user + system µs per request of each proxy process`,
  );
  for (const name of wantedShapes) {
    const here = rows.filter((row) => row.shape === name);
    const reference =
      here.find((row) => row.subject.startsWith("prototype")) ?? here.find((row) => row.cpuUs.length > 0);
    const head = [
      name,
      "CPU client",
      "CPU server",
      "user",
      `CPU ×`,
      "requests/s",
      "p50 ms",
      "p99 ms",
      "failed",
    ];
    console.log(
      `\n${table(
        head,
        here.map((row) => cells(row, reference)),
      )}`,
    );
    if (reference !== undefined)
      console.log(`× is the ratio of CPU medians, all processes together, to ${reference.subject}`);
  }
  const mib = (kib: number): string => (kib / 1024).toFixed(1);
  const memory = (used: MemoryUsed): string =>
    `${mib(used.rssKib)} / ${mib(used.pssKib)} / ${mib(used.privateKib)}`;
  const memories = memoryRows(fresh, loaded).map((m) => [
    `${m.subject}, ${m.role}`,
    `${m.readyMs.toFixed(0)}`,
    memory(m.fresh),
    memory(m.loaded),
  ]);
  if (memories.length > 0)
    console.log(`\n${table(["MiB: RSS / PSS / private", "ready ms", "fresh", "after the load"], memories)}`);
}

function cells(row: Row, reference: Row | undefined): string[] {
  const sum = (r: Row): number => r.cpuUs.reduce((total, cpu) => total + cpu.total.median, 0);
  const cpu = row.cpuUs.map((one) => showSpread(one.total, 1));
  const share = row.cpuUs.map((one) => `${Math.round(one.userShare * 100)} %`).join(" ");
  const ratio =
    reference === undefined || row.cpuUs.length === 0 ? "" : (sum(row) / sum(reference)).toFixed(2);
  const scaled = (value: Spread): string =>
    showSpread({ min: value.min / 1000, median: value.median / 1000, max: value.max / 1000 }, 2);
  return [
    row.subject,
    cpu[0] ?? "",
    cpu[1] ?? "",
    share,
    ratio,
    showSpread(row.perSecond, 0),
    scaled(row.p50Us),
    scaled(row.p99Us),
    String(row.failed),
  ];
}

async function finish(code: number): Promise<never> {
  for (const subject of running) await subject.stop();
  if (code === 0 && options.profile !== undefined) {
    for (const file of readdirSync(options.profile).filter((name) => name.endsWith(".cpuprofile"))) {
      console.log(`\n${file}: self time\n${describeProfile(join(options.profile, file))}`);
    }
  }
  for (const world of worlds) world.close();
  rmSync(folder, { recursive: true, force: true });
  process.exit(code);
}
