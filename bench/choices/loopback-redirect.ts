/**
 * What a redirect of messages between an application and its own sidecar saves: two Pillion pairs, one of them with
 * `loopback-redirect.bpf.c` on both its pods, take turns. Needs root, wrk, nginx, clang 14 and bpftool.
 *
 *   scripts/run test bench/choices/loopback-redirect.ts [ROUNDS] [SECONDS]
 */
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SIDECAR_NODE_FLAGS } from "#/agent/runtime/pod-host.ts";
import { startApps } from "../lib/app.ts";
import { describeMachine } from "../lib/machine.ts";
import { Namespaces } from "../lib/namespaces.ts";
import { SHAPES, type Shape } from "../lib/shapes.ts";
import { startPillion } from "../subjects/pillion.ts";
import type { Subject } from "../subjects/subject.ts";
import { sampleBurst, showSamples, type Sample } from "./pair-sample.ts";
import { Redirect } from "./redirect.ts";

const [rounds = 3, seconds = 2] = process.argv.slice(2).map(Number);
const SHAPE_NAMES = ["h1-8", "h1-64", "h1-64-64KiB", "open-1000"];

const folder = mkdtempSync(join(tmpdir(), "pillion-choice-"));
chmodSync(folder, 0o755);
const redirect = new Redirect();
const worlds: Namespaces[] = [];
const subjects: { name: string; subject: Subject; isRedirected: boolean }[] = [];
process.on("exit", () => {
  for (const world of worlds) world.close();
  rmSync(folder, { recursive: true, force: true });
});

async function makeWorld(): Promise<Namespaces> {
  const world = new Namespaces();
  worlds.push(world);
  await startApps(world, folder);
  return world;
}

async function start(isRedirected: boolean): Promise<void> {
  const context = { world: null as unknown as Namespaces, makeWorld, folder, profileFolder: null };
  if (isRedirected) redirect.enter();
  const name = isRedirected ? "redirected" : "as it is";
  const command = [process.execPath, ...SIDECAR_NODE_FLAGS];
  const subject = await startPillion({ command, variant: name.replaceAll(" ", "-") })(context);
  if (isRedirected) redirect.leave();
  if ("skipped" in subject) throw new Error(subject.skipped);
  subjects.push({ name, subject, isRedirected });
}

function burst(
  shape: Shape,
  { subject, isRedirected }: (typeof subjects)[number],
  runSeconds: number,
): Promise<Sample> {
  const pids = subject.processes.map(({ pid }) => pid);
  const load = (): Promise<Sample> =>
    sampleBurst(subject.world, subject.places.http1 ?? "", pids, shape, runSeconds);
  return isRedirected ? redirect.within(load) : load();
}

async function main(): Promise<void> {
  console.log(describeMachine());
  await start(false);
  await start(true);
  const shapes = SHAPE_NAMES.flatMap((name) => SHAPES.filter((shape) => shape.name === name));
  for (const each of subjects) for (const shape of shapes) await burst(shape, each, 1);
  const atFirst = redirect.messages();
  for (const shape of shapes) {
    const samples = new Map(subjects.map(({ name }) => [name, [] as Sample[]]));
    for (let round = 0; round < rounds; round++)
      for (const each of subjects) samples.get(each.name)?.push(await burst(shape, each, seconds));
    for (const [name, own] of samples)
      console.log(`${shape.name}, ${name}: ${showSamples(own, ["client", "server"])}`);
  }
  const { redirected, leftToTcp } = redirect.messages();
  console.log(
    `messages redirected: ${redirected - atFirst.redirected}; left to TCP: ${leftToTcp - atFirst.leftToTcp}`,
  );
}

try {
  await main();
} finally {
  for (const { subject } of subjects) await subject.stop();
  for (const world of worlds) world.close();
  redirect.close();
}
process.exit();
