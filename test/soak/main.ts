/**
 * Whether memory stays flat: two sidecars between network namespaces, mutual TLS between them, under one case after the
 * other, each with sidecars of its own. In every case the median of each sidecar's resident memory over the last third
 * of the time may be at most 5 % above that of the middle third. A case of attacks rests between them, and is judged by what is
 * held at rest: their garbage, two thirds of what is resident meanwhile, is there for as long as the collector lets it.
 *
 *   npm run soak -- [--case NAME]… [--minutes N]        minutes: how long each case that has no end of its own goes on
 *
 * Prints a table, keeps it as .cache/soak.json, and says last how many cases were flat; exit code 1 when one was not.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../../scripts/command-line.ts";
import { table } from "../../bench/lib/report.ts";
import { cannotRun, Mesh, type Pod } from "../e2e/sidecar/rig/mesh.ts";
import { bodies } from "./cases/bodies.ts";
import { idle, idleOpaque, short } from "./cases/connections.ts";
import { hostile } from "./cases/hostile.ts";
import { opaque } from "./cases/opaque.ts";
import { streams } from "./cases/streams.ts";
import { MemoryWatch, type MemoryCourse } from "./memory-watch.ts";
import type { SoakCase, Stage } from "./soak-case.ts";

const CASES: readonly SoakCase[] = [bodies, idle, idleOpaque, short, streams, opaque, hostile];
/** Of preparing, and of what a case may take beyond its own time. */
const EXTRA_MS = 5 * 60_000;
const CACHE = join(import.meta.dirname, "../../.cache");

interface Outcome {
  readonly name: string;
  readonly what: string;
  /** What was done, or why it was not. */
  readonly said: string;
  readonly isFlat: boolean;
  readonly courses: readonly MemoryCourse[];
  readonly seconds: number;
  readonly idleConnections: number;
}

const values = commandLine(
  `Usage: npm run soak -- [options]

Whether the memory of two sidecars stays flat, in one case after the other. Needs root.

Options:
  --case NAME   this one alone, again for more: ${CASES.map(({ name }) => name).join(", ")}
  --minutes N   how long each case that has no end of its own goes on
  -h, --help    shows this`,
  { case: { type: "string", multiple: true }, minutes: { type: "string" } },
  ["minutes"],
);
const unknown = values.case?.filter((name) => CASES.every((one) => one.name !== name)) ?? [];
if (unknown.length > 0) {
  console.error(
    `soak: no case is called ${unknown.join(", ")}; there are: ${CASES.map(({ name }) => name).join(", ")}`,
  );
  process.exit(2);
}
const obstacle = cannotRun();
if (obstacle !== null) {
  console.error(`soak: ${obstacle}`);
  process.exit(2);
}

const outcomes: Outcome[] = [];
for (const one of CASES) {
  if (values.case !== undefined && !values.case.includes(one.name)) continue;
  const outcome = await soak(one, values.minutes === undefined ? one.seconds : Number(values.minutes) * 60);
  outcomes.push(outcome);
  const ratios = outcome.courses.map((course) => judgedBy(course).toFixed(3)).join(" and ");
  console.log(
    `${outcome.isFlat ? "✓" : "✗"} ${one.name}: ${one.what}; ${outcome.said} (${outcome.seconds.toFixed(0)} s; last to middle third ${ratios}${outcome.courses.some(({ restRatio }) => restRatio !== null) ? " at rest" : ""})`,
  );
}
report(outcomes);
process.exit(outcomes.every(({ isFlat }) => isFlat) ? 0 : 1);

async function soak(one: SoakCase, seconds: number): Promise<Outcome> {
  const kept = { name: one.name, what: one.what, idleConnections: one.idleConnections ?? 0 };
  const startedMs = performance.now();
  let mesh: Mesh | null = null;
  const watchdog = setTimeout(
    () => {
      console.error(`soak: ${one.name} was not done in time`);
      void (mesh?.close() ?? Promise.resolve()).finally(() => process.exit(1));
    },
    seconds * 1000 + EXTRA_MS,
  );
  try {
    mesh = await Mesh.start();
    const quiet = { PILLION_LOG: "info" };
    const server = await mesh.pod("server", { isMeshed: true, env: quiet });
    const client = await mesh.pod("client", { isMeshed: true, env: quiet });
    const stranger = await mesh.pod("stranger", { isMeshed: false });
    for (const pod of [server, client, stranger]) manyPorts(pod);
    const watch = new MemoryWatch(new Map([client, server].map((pod) => [pod.name, pod.sidecar?.pid ?? 0])));
    const stage: Stage = { mesh, client, server, stranger, seconds, rest: () => watch.rest() };
    await one.prepare?.(stage);
    watch.begin();
    const said = await one.run(stage);
    const courses = watch.stop();
    await one.prove?.(stage);
    const isFlat = courses.every((course) => course.isFlat);
    return { ...kept, said, isFlat, courses, seconds: (performance.now() - startedMs) / 1000 };
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    return { ...kept, said, isFlat: false, courses: [], seconds: (performance.now() - startedMs) / 1000 };
  } finally {
    clearTimeout(watchdog);
    await mesh?.close();
  }
}

function judgedBy({ restRatio, ratio }: MemoryCourse): number {
  return restRatio ?? ratio;
}

/** Tens of thousands of connections to one address: more local ports, and no minute of TIME_WAIT for each. */
function manyPorts(pod: Pod): void {
  pod.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
  pod.sysctl("net.ipv4.tcp_tw_reuse", "1");
}

function report(all: readonly Outcome[]): void {
  const mib = (kib: number): string => (kib / 1024).toFixed(1);
  const head = [
    "case, sidecar",
    "start",
    "first",
    "middle",
    "last",
    "peak",
    "last/middle",
    "at rest",
    "last/middle",
    "RSS/conn",
    "PSS/conn",
  ];
  const rows = all.flatMap(({ name, courses, idleConnections }) =>
    courses.map((course) => {
      const each = (grownKib: number): string =>
        idleConnections === 0 ? "" : `${(grownKib / idleConnections).toFixed(1)} KiB`;
      return [
        `${name}, ${course.process}`,
        mib(course.startRssKib),
        mib(course.firstRssKib),
        mib(course.middleRssKib),
        mib(course.lastRssKib),
        mib(course.peakRssKib),
        course.ratio.toFixed(3),
        course.restsRssKib.map(mib).join(" "),
        course.restRatio?.toFixed(3) ?? "",
        each(course.lastRssKib - course.startRssKib),
        each(course.lastPssKib - course.startPssKib),
      ];
    }),
  );
  console.log(
    `\nResident memory in MiB: before the case, then medians of the thirds of its time\n\n${table(head, rows)}\n`,
  );
  mkdirSync(CACHE, { recursive: true });
  writeFileSync(join(CACHE, "soak.json"), `${JSON.stringify(all, null, 2)}\n`);
  const flat = all.filter(({ isFlat }) => isFlat).length;
  const ratios = all.flatMap(({ courses }) => courses.map(judgedBy));
  const worst = ratios.length === 0 ? "none measured" : Math.max(...ratios).toFixed(3);
  console.log(`soak: ${flat}/${all.length} cases flat, worst ratio ${worst}`);
}
