/**
 * Measures sidecars and their peers side by side: every subject is up all the time, and each round gives each of them
 * one short burst of each shape of load, in turn, so that what else the machine does hits all alike. Needs root.
 *
 * Parts, all by default (with --quick, --shape or --profile the shapes alone): `crowd`, many idle sidecars on the machine; `mesh-size`,
 * what a sidecar remembers of a mesh; `shapes`, the comparison under load; `watched`, our garbage collector and event loop meanwhile;
 * `let-through`, connections without a proxy; `policy`, what routes and rules cost, within one process. The options are in `lib/options.ts`.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SIDECAR_NODE_FLAGS } from "#/agent/runtime/pod-host.ts";
import { commandLine } from "../scripts/command-line.ts";
import { startApps } from "./lib/app.ts";
import { crowdOf, type CrowdRow } from "./lib/crowd.ts";
import { idleCost } from "./lib/idle.ts";
import { missingFor, runBurst } from "./lib/load.ts";
import { letThrough, type LetThrough } from "./lib/let-through.ts";
import { describeMachine } from "./lib/machine.ts";
import { markdownOf, policyText, shownArguments, textOf } from "./lib/markdown.ts";
import { meshSizesOf, type MeshSizeRow } from "./lib/mesh-size.ts";
import { Namespaces, SIDECAR_UID } from "./lib/namespaces.ts";
import { countsInstructions, PerfCounter } from "./lib/perf-counter.ts";
import { OPTIONS, USAGE } from "./lib/options.ts";
import { plotOf } from "./lib/plot.ts";
import { cpuBetween, cpuUsed, memoryUsed, type MemoryUsed } from "./lib/process-cost.ts";
import { flameOf } from "./lib/flame.ts";
import { describeProfile, type Profile } from "./lib/profile.ts";
import { existsInPath } from "./lib/programs.ts";
import { spread } from "./lib/report.ts";
import {
  isPeerPair,
  rowOf,
  type Plotted,
  type MemoryRow,
  type PolicyRow,
  type Results,
  type Sample,
  type WatchedRow,
} from "./lib/results.ts";
import { accessRatio } from "./lib/access-ratio.ts";
import { routesRatios } from "./lib/routes-ratio.ts";
import { QUICK_SHAPES, SHAPES, type Shape } from "./lib/shapes.ts";
import { startEnvoy } from "./subjects/envoy.ts";
import { envoyKind, linkerd2ProxyKind, pillionKind, type Kind } from "./subjects/kinds.ts";
import { linkerd2Version, startLinkerd2Proxy } from "./subjects/linkerd2-proxy.ts";
import { startPillion } from "./subjects/pillion.ts";
import { startPrototype } from "./subjects/prototype.ts";
import { startDirect, startHaproxy, startNginx } from "./subjects/single-hop.ts";
import type { StartSubject, Subject } from "./subjects/subject.ts";

const options = commandLine(USAGE, OPTIONS, ["rounds", "seconds"]);

const PILLION_COMMAND = [process.execPath, ...SIDECAR_NODE_FLAGS];
const subjects: Record<string, StartSubject> = {
  direct: startDirect,
  nginx: startNginx,
  haproxy: startHaproxy,
  prototype: startPrototype,
  envoy: startEnvoy(options.envoy),
  "linkerd2-proxy": startLinkerd2Proxy(options["linkerd2-proxy"]),
  pillion: startPillion({ command: PILLION_COMMAND }),
};
const QUICK_SUBJECTS = ["nginx", "prototype", "pillion"];

const PARTS = ["crowd", "mesh-size", "shapes", "watched", "let-through", "policy"] as const;
type Part = (typeof PARTS)[number];

const rounds = Number(options.rounds ?? (options.quick ? 3 : 5));
const seconds = Number(options.seconds ?? 1);
const isNarrow = options.quick || options.shape !== undefined || options.profile !== undefined;
const wantedParts: readonly string[] = options.part?.split(",") ?? (isNarrow ? ["shapes"] : PARTS);
const wantedSubjects =
  options.only?.split(",") ?? (options.quick ? [...QUICK_SUBJECTS] : Object.keys(subjects));
const wantedShapes =
  options.shape?.split(",") ?? (options.quick ? QUICK_SHAPES : SHAPES.map(({ name }) => name));
const skipped: string[] = [];
const note = (text: string): void => {
  if (!options.json) console.log(text);
};
const skip = (what: string): void => {
  skipped.push(what);
  note(`not measured: ${what}`);
};

if (options.routes || options.access) {
  console.log(policyText([...(options.routes ? routesRows() : []), ...(options.access ? accessRows() : [])]));
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
let hasFailed = false;
const running: Subject[] = [];
// Whatever ends this process, nothing that it started may stay.
process.on("exit", () => {
  for (const world of worlds) world.close();
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void finish(130));
try {
  await main();
  await finish(hasFailed ? 1 : 0);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  await finish(1);
}

async function main(): Promise<void> {
  const machine = describeMachine();
  note(machine);
  for (const name of wantedParts)
    if (!PARTS.some((part) => part === name))
      throw new Error(`no part is called ${name}; there are ${PARTS.join(", ")}`);
  const chosen = chosenShapes();
  // The still parts come first: later there are many more processes of our own, which share pages with sidecars.
  const crowd = await inPart("crowd", crowds, []);
  const meshSizes = await inPart("mesh-size", meshSizesOfAll, []);
  const compared = await inPart("shapes", () => compare(chosen), { rows: [], memory: [], reference: null });
  const watchedRows = await inPart("watched", () => watch(chosen), []);
  const through = await inPart("let-through", throughKernel, null);
  const policy = await inPart("policy", () => Promise.resolve([...routesRows(), ...accessRows()]), []);
  const results: Results = {
    machine,
    versions: versions(),
    rounds,
    seconds,
    skipped,
    ...compared,
    watched: watchedRows,
    crowd,
    meshSizes,
    letThrough: through,
    policy,
  };
  if (options.json) console.log(JSON.stringify(results, null, 1));
  else
    console.log(
      `\n${rounds} rounds of ${seconds} s, min / median / max; CPU is user + system µs of each proxy process; × peer: against the cheapest pair of another mesh\n\n${textOf(results)}`,
    );
  if (options.report !== undefined) writeReport(results, options.report);
}

async function inPart<T>(part: Part, measureIt: () => Promise<T>, otherwise: T): Promise<T> {
  if (!wantedParts.includes(part)) return otherwise;
  const startMs = performance.now();
  try {
    return await measureIt();
  } catch (error) {
    // What others have measured shall not be lost; that this is missing is said on the page and by the exit code.
    if (part === "shapes") throw error;
    console.error(error);
    skip(`${part}, it failed: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`);
    hasFailed = true;
    return otherwise;
  } finally {
    note(`${part}: ${((performance.now() - startMs) / 1000).toFixed(0)} s`);
  }
}

async function compare(chosen: readonly Shape[]): Promise<Pick<Results, "rows" | "memory" | "reference">> {
  await startSubjects();
  // A start leaves memory behind that goes back once it is over.
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const fresh = running.map(memoryOf);
  await warmUp(chosen);
  const reference = await referenceFor(chosen);
  const { samples, rssKib } = await measure(chosen, reference?.perSecond ?? 0);
  const loaded = running.map(memoryOf);
  const rows = chosen.flatMap((shape) =>
    running.flatMap((subject) => {
      const own = samples.get(key(shape, subject)) ?? [];
      return own.length === 0 ? [] : [rowOf(shape, subject, own)];
    }),
  );
  return { rows, memory: await memoryRows(fresh, rssKib, loaded), reference };
}

/** The sidecars that can be had by themselves, of those that are wanted. */
function kinds(): Kind[] {
  const { envoy, "linkerd2-proxy": linkerd2Proxy } = options;
  const all: [string, Kind | null][] = [
    ["envoy", envoy === undefined ? null : envoyKind(envoy)],
    ["linkerd2-proxy", linkerd2Proxy === undefined ? null : linkerd2ProxyKind(linkerd2Proxy)],
    ["pillion", pillionKind(PILLION_COMMAND)],
  ];
  return all.flatMap(([name, kind]) => (kind !== null && wantedSubjects.includes(name) ? [kind] : []));
}

async function crowds(): Promise<CrowdRow[]> {
  const rows: CrowdRow[] = [];
  for (const kind of kinds()) rows.push(await crowdOf(kind, bareWorld(), folder));
  return rows;
}

async function meshSizesOfAll(): Promise<MeshSizeRow[]> {
  const rows: MeshSizeRow[] = [];
  for (const kind of kinds()) rows.push(...(await meshSizesOf(kind.inMesh, await makeWorld(), folder)));
  return rows;
}

/** A pair of ours that is watched from within, under each shape once. */
async function watch(chosen: readonly Shape[]): Promise<WatchedRow[]> {
  const start = startPillion({ command: PILLION_COMMAND, variant: "watched", isWatched: true });
  const subject = await start({ world: bareWorld(), makeWorld, folder, profileFolder: null });
  if ("skipped" in subject) return [];
  const rows: WatchedRow[] = [];
  try {
    const perSecond = await capacityOf(subject, 5);
    for (const shape of chosen) {
      await runBurst(subject, shape, 1, perSecond);
      for (const sidecar of subject.watched ?? []) await sidecar.ask();
      await runBurst(subject, shape, seconds, perSecond);
      for (const [i, sidecar] of (subject.watched ?? []).entries())
        rows.push({
          shape: shape.name,
          role: subject.processes[i]!.role,
          seconds,
          ...(await sidecar.ask()),
        });
    }
  } finally {
    await subject.stop();
  }
  return rows;
}

async function throughKernel(): Promise<LetThrough | null> {
  const found = await letThrough(makeWorld, rounds);
  if (!("skipped" in found)) return found;
  skip(`connections let through, ${found.skipped}`);
  return null;
}

function writeReport(results: Results, into: string): void {
  const command = `npm run bench -- ${shownArguments(process.argv.slice(2)).join(" ")}`;
  writeFileSync(join(into, "performance.json"), `${JSON.stringify(results, null, 1)}\n`);
  const plots = { cpu: "performance-cpu.svg", rate: "performance-rate.svg", p99: "performance-p99.svg" };
  for (const [what, file] of Object.entries(plots))
    writeFileSync(join(into, file), plotOf(results, what as Plotted));
  writeFileSync(join(into, "performance.md"), markdownOf(results, command, plots));
  note(`\nwritten: ${join(into, "performance.md")}, .json and ${Object.values(plots).join(", ")}`);
}

function chosenShapes(): Shape[] {
  const chosen = wantedShapes.map((name) => {
    const shape = SHAPES.find((one) => one.name === name);
    if (shape === undefined)
      throw new Error(`no shape is called ${name}; there are ${SHAPES.map((one) => one.name).join(", ")}`);
    return shape;
  });
  return chosen.filter((shape) => {
    const missing = missingFor(shape);
    if (missing !== null) skip(`${shape.name}, ${missing}`);
    return missing === null;
  });
}

async function startSubjects(): Promise<void> {
  const world = await makeWorld();
  for (const variant of options.variant) {
    const [name = "", command = ""] = variant.split(/=(.*)/s);
    subjects[name] = startPillion({
      command: command.split(" ").map((word) => (word === "node" ? process.execPath : word)),
      variant: name,
    });
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
    if ("skipped" in subject) skip(`${name}, ${subject.skipped}`);
    else running.push(subject);
  }
}

function routesRows(): PolicyRow[] {
  const { routes, endpoints, services } = routesRatios(rounds);
  return [
    { what: "200 routes to one endpoint", ratio: routes, aimMax: 1.15 },
    { what: "200 routes to one service of 1,000 endpoints", ratio: endpoints, aimMax: 1.15 },
    {
      what: "200 routes to 200 services of 5 endpoints, each used in turn",
      ratio: services,
      aimMax: 1.15,
    },
  ];
}

function accessRows(): PolicyRow[] {
  return [{ what: "100 authorization policies of 10 rules", ratio: accessRatio(rounds), aimMax: 1.05 }];
}

/** `prepare` is called before anything runs in it. */
async function makeWorld(prepare?: (world: Namespaces) => void): Promise<Namespaces> {
  const world = bareWorld();
  prepare?.(world);
  await startApps(world, folder);
  return world;
}

/** Without applications. */
function bareWorld(): Namespaces {
  const world = new Namespaces();
  worlds.push(world);
  return world;
}

/**
 * A compiler that learns while it runs needs tens of thousands of requests before it is what it will be for days: of each shape. Whom
 * a compiler made beforehand gets little.
 */
async function warmUp(chosen: readonly Shape[]): Promise<void> {
  const others = chosen.filter((shape) => shape.speech !== "http1");
  for (const subject of running.filter((s) => s.processes.length > 0)) {
    const isLearning = !isPeerPair(subject.name) && subject.processes.length === 2;
    await capacityOf(subject, !isLearning ? 1 : options.quick ? 3 : 5);
    if (isLearning) for (const shape of others) await runBurst(subject, shape, 2, 0);
  }
}

/** Open loops of a share are shares of what another mesh's pair can do, of the slowest, so that none is asked for more than it has. */
async function referenceFor(chosen: readonly Shape[]): Promise<Results["reference"]> {
  if (!chosen.some((shape) => shape.kind === "open" && typeof shape.perSecond !== "number")) return null;
  const pairs = running.filter((subject) => subject.processes.length === 2);
  const peers = pairs.filter(({ name }) => isPeerPair(name));
  const candidates = peers.length > 0 ? peers : pairs.slice(-1);
  if (candidates.length === 0)
    throw new Error("open loops of a share need a pair of sidecars to be a share of");
  const capacities: { subject: string; perSecond: number }[] = [];
  for (const subject of candidates)
    capacities.push({ subject: subject.name, perSecond: await capacityOf(subject, Math.max(3, seconds)) });
  const reference = capacities.toSorted((a, b) => a.perSecond - b.perSecond)[0]!;
  note(
    `open loops are shares of what the ${reference.subject} can do: ${reference.perSecond.toFixed(0)} requests/s`,
  );
  return reference;
}

async function capacityOf(subject: Subject, forSeconds: number): Promise<number> {
  const shape = SHAPES.find(({ name }) => name === "h1-64");
  if (shape === undefined) return 0;
  return (await runBurst(subject, shape, forSeconds, 0))?.perSecond ?? 0;
}

async function measure(
  chosen: readonly Shape[],
  capacityPerSecond: number,
): Promise<{ samples: Map<string, Sample[]>; rssKib: number[][][][] }> {
  const samples = new Map<string, Sample[]>();
  // Of each process of each subject: resident after each burst, round by round.
  const rssKib = running.map(({ processes }) =>
    processes.map(() => Array.from({ length: rounds }, (): number[] => [])),
  );
  const isCounting = countsInstructions();
  for (let round = 1; round <= rounds; round++) {
    for (const shape of chosen) {
      for (const [i, subject] of running.entries()) {
        const { world, processes } = subject;
        const before = processes.map((p) => cpuUsed(p.pid));
        const counters = isCounting ? await Promise.all(processes.map((p) => PerfCounter.start(p.pid))) : [];
        const wireBefore = world.wireBytes();
        const burst = await runBurst(subject, shape, seconds, capacityPerSecond);
        const counts = await Promise.all(counters.map((counter) => counter.stop()));
        if (burst === null) continue;
        const cpu = processes.map((p, i) => cpuBetween(before[i]!, cpuUsed(p.pid)));
        const wireBytes = world.wireBytes() - wireBefore;
        memoryOf(subject).forEach((used, j) => rssKib[i]?.[j]?.[round - 1]?.push(used.rssKib));
        if (burst.done === 0) {
          skip(
            `${shape.name} of the ${subject.name} in round ${round}, nothing was answered within ${seconds} s`,
          );
          continue;
        }
        const list = samples.get(key(shape, subject)) ?? [];
        list.push({
          burst,
          cpu,
          wireBytes,
          instructions: isCounting ? counts.reduce<number>((sum, one) => sum + (one ?? 0), 0) : null,
        });
        samples.set(key(shape, subject), list);
      }
    }
  }
  return { samples, rssKib };
}

function key(shape: Shape, subject: Subject): string {
  return `${shape.name}\n${subject.name}`;
}

function memoryOf(subject: Subject): MemoryUsed[] {
  return subject.processes.map((p) => memoryUsed(p.pid));
}

async function memoryRows(
  fresh: MemoryUsed[][],
  rssKib: number[][][][],
  loaded: MemoryUsed[][],
): Promise<MemoryRow[]> {
  const rows: MemoryRow[] = [];
  for (const [i, subject] of running.entries()) {
    const http1 = options.quick ? null : await idleCost(subject, "http1");
    const tcp = options.quick ? null : await idleCost(subject, "tcp");
    for (const [j, { role, readyMs }] of subject.processes.entries())
      rows.push({
        subject: subject.name,
        role,
        readyMs,
        fresh: fresh[i]![j]!,
        roundsRssKib: rssKib[i]![j]!.flatMap((round) => (round.length === 0 ? [] : [spread(round).median])),
        loaded: loaded[i]![j]!,
        idleKib: { http1: http1?.[j] ?? null, tcp: tcp?.[j] ?? null },
      });
  }
  return rows;
}

function versions(): Record<string, string> {
  const found: Record<string, string> = { Node: process.versions.node };
  const ask = (name: string, command: string, args: readonly string[]): void => {
    if (!command.includes("/") && !existsInPath(command)) return;
    const said = execFileSync("sh", ["-c", '"$0" "$@" 2>&1', command, ...args], { encoding: "utf8" });
    const version = /\d+\.\d+(?:\.\d+)?/.exec(said)?.[0];
    if (version !== undefined) found[name] = version;
  };
  ask("nginx", "nginx", ["-v"]);
  ask("HAProxy", "haproxy", ["-v"]);
  if (options.envoy !== undefined) ask("Envoy", options.envoy, ["--version"]);
  const { "linkerd2-proxy": linkerd2Proxy } = options;
  if (linkerd2Proxy !== undefined) found["linkerd2-proxy"] = linkerd2Version(linkerd2Proxy);
  return found;
}

async function finish(code: number): Promise<never> {
  for (const subject of running) await subject.stop();
  if (code === 0 && options.profile !== undefined) {
    for (const file of readdirSync(options.profile).filter((name) => name.endsWith(".cpuprofile"))) {
      const path = join(options.profile, file);
      writeFileSync(
        path.replace(/cpuprofile$/, "svg"),
        flameOf(JSON.parse(readFileSync(path, "utf8")) as Profile),
      );
      console.log(`\n${file}: self time; the .svg beside it is its flame graph\n${describeProfile(path)}`);
    }
  }
  for (const world of worlds) world.close();
  rmSync(folder, { recursive: true, force: true });
  process.exit(code);
}
