/**
 * Plain sockets of `node:net` against an epoll loop of our own: as one hop, and as the application's side of a pair whose TLS stays
 * on `node:tls`; then what TLS costs over a stream in JavaScript. Needs root, wrk and nginx.
 *
 *   scripts/run test bench/choices/plain-sockets.ts [ROUNDS] [SECONDS]
 */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startApps } from "../lib/app.ts";
import { PROXY_CORE } from "../lib/load.ts";
import { describeMachine } from "../lib/machine.ts";
import { Namespaces, PORTS, SERVER } from "../lib/namespaces.ts";
import { memoryUsed } from "../lib/process-cost.ts";
import { showSpread, spread } from "../lib/report.ts";
import { SHAPES } from "../lib/shapes.ts";
import { makeCertificates } from "../runtime/certs.ts";
import { readyByOutput } from "../subjects/subject.ts";
import { sampleBurst, showSamples, type Sample } from "./pair-sample.ts";

const [rounds = 3, seconds = 1] = process.argv.slice(2).map(Number);
const SHAPE_NAMES = ["h1-8", "h1-64", "open-1000"];
const HOPS = ["net", "onread", "epoll-alone", "epoll-inside"];
const PAIRS = ["client", "client-epoll"];
const NODE = [process.execPath, "--no-warnings"];
const PAIR = join(import.meta.dirname, "../runtime/pair.ts");

const folder = mkdtempSync(join(tmpdir(), "pillion-choice-"));
chmodSync(folder, 0o755);
const certificates = join(folder, "certificates");
const world = new Namespaces();
process.on("exit", () => {
  world.close();
  rmSync(folder, { recursive: true, force: true });
});
const subjects: { name: string; place: string; pid: number }[] = [];
let port = 9300;

async function start(name: string, command: readonly string[]): Promise<void> {
  const child = world.start("client", command, { core: PROXY_CORE });
  await readyByOutput(child, name);
  subjects.push({ name, place: `127.0.0.1:${port++}`, pid: child.pid ?? 0 });
}

console.log(describeMachine());
makeCertificates(certificates);
await startApps(world, folder);
for (const kind of HOPS) {
  const program = join(import.meta.dirname, "plain-hop.ts");
  await start(`hop, ${kind}`, [...NODE, program, kind, String(port), SERVER, String(PORTS.http1.bare)]);
}
const mesh = `${SERVER}:8443`;
const app = `${SERVER}:${PORTS.http1.bare}`;
await readyByOutput(
  world.start("server", [...NODE, PAIR, "server", certificates, mesh, app], { core: PROXY_CORE }),
  "pair",
);
for (const role of PAIRS)
  await start(`pair, ${role}`, [...NODE, PAIR, role, certificates, String(port), mesh]);

const shapes = SHAPE_NAMES.flatMap((name) => SHAPES.filter((shape) => shape.name === name));
for (const { place, pid } of subjects)
  for (const shape of shapes) await sampleBurst(world, place, [pid], shape, 1);
for (const shape of shapes) {
  const samples = new Map(subjects.map((subject) => [subject, [] as Sample[]]));
  for (let round = 0; round < rounds; round++)
    for (const subject of subjects)
      samples.get(subject)?.push(await sampleBurst(world, subject.place, [subject.pid], shape, seconds));
  for (const [{ name }, own] of samples)
    console.log(`${shape.name}, ${name}: ${showSamples(own, ["process"])}`);
}
for (const { name, pid } of subjects)
  console.log(`${name}: RSS ${(memoryUsed(pid).rssKib / 1024).toFixed(0)} MB after`);

const carriers = new Map(["socket", "stream"].map((kind) => [kind, [] as Record<string, number>[]]));
for (let round = 0; round < rounds; round++) {
  for (const [kind, own] of carriers) {
    const program = join(import.meta.dirname, "tls-carriers.ts");
    const out = execFileSync(NODE[0] ?? "", [...NODE.slice(1), program, kind, certificates, String(seconds)]);
    own.push(JSON.parse(out.toString()) as Record<string, number>);
  }
}
for (const [kind, own] of carriers) {
  const of = (key: string, digits: number): string =>
    showSpread(spread(own.map((one) => one[key] ?? 0)), digits);
  console.log(
    `TLS over a ${kind}, both ends: ${of("usPerTrip", 1)} µs a round trip of 1 KiB, ` +
      `${of("cpuSecondsPerGb", 2)} CPU s per GB, ${of("mbPerSecond", 0)} MB/s`,
  );
}
process.exit();
