/** What a client's sidecar remembers of a mesh: its memory in meshes of several sizes, each time of a fresh one that has been used a little. */
import { mkdirSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ChildProcess } from "node:child_process";
import { end } from "../subjects/subject.ts";
import { LOAD_CORE } from "./load.ts";
import { PORTS, type Namespaces } from "./namespaces.ts";
import { memoryUsed } from "./process-cost.ts";
import { spread, type Spread } from "./report.ts";

const REPEATS = 3;
const SETTLE_MS = 1_000;
const REQUESTS_EACH = 20;
const ANSWER_WITHIN_MS = 5_000;

export interface MeshKnown {
  readonly name: string;
  readonly services: number;
  /** Of these, so many get requests. */
  readonly uses: number;
  readonly endpoints: number;
  readonly routes: number;
}

export const ONE: MeshKnown = { name: "1 service", services: 1, uses: 1, endpoints: 1, routes: 0 };
export const MESHES: readonly MeshKnown[] = [
  ONE,
  { ...ONE, name: "1 service of 1,000 endpoints", endpoints: 1_000 },
  { ...ONE, name: "1 service with 1,000 routes", routes: 1_000 },
  { ...ONE, name: "5 services, all used", services: 5, uses: 5 },
  { ...ONE, name: "1,000 services, 5 used", services: 1_000, uses: 5 },
];

export interface KnowingKind {
  readonly name: string;
  /** Makes ready whatever `start` needs; it may be called for each of `MESHES`. `folder` exists and is empty. */
  prepare(world: Namespaces, folder: string): Promise<PreparedKnowing>;
}

export interface PreparedKnowing {
  /** So many control planes (or configurations) of one mesh, for `repeats` sidecars. */
  mesh(known: MeshKnown, repeats: number): Promise<KnowingMesh>;
  stop(): Promise<void>;
}

export interface KnowingMesh {
  start(repeat: number): Promise<ChildProcess>;
  /** Where Service `number` is asked, and by which path. */
  target(number: number): { readonly host: string; readonly port: number; readonly path: string };
  stop(): Promise<void>;
}

export interface MeshSizeRow {
  readonly subject: string;
  readonly mesh: string;
  /** Memory of the process's own, KiB. */
  readonly privateKib: Spread;
  /** Requests that were not answered with 200, of all. */
  readonly unanswered: number;
}

export async function meshSizesOf(
  kind: KnowingKind,
  world: Namespaces,
  folder: string,
): Promise<MeshSizeRow[]> {
  const own = join(folder, `mesh-${kind.name}`);
  mkdirSync(own);
  const prepared = await kind.prepare(world, own);
  const rows: MeshSizeRow[] = [];
  try {
    for (const known of MESHES) {
      const mesh = await prepared.mesh(known, REPEATS);
      const privates: number[] = [];
      let unanswered = 0;
      for (let repeat = 0; repeat < REPEATS; repeat++) {
        const child = await mesh.start(repeat);
        const targets = Array.from({ length: known.uses }, (_, number) => mesh.target(number));
        unanswered += await use(world, targets);
        await sleep(SETTLE_MS);
        privates.push(memoryUsed(child.pid ?? 0).privateKib);
        await end(child);
      }
      await mesh.stop();
      rows.push({ subject: kind.name, mesh: known.name, privateKib: spread(privates), unanswered });
    }
  } finally {
    await prepared.stop();
  }
  return rows;
}

type Target = ReturnType<KnowingMesh["target"]>;

async function use(world: Namespaces, targets: readonly Target[]): Promise<number> {
  const program = join(import.meta.dirname, "../load.ts");
  const command = [process.execPath, program, "use", JSON.stringify(targets)];
  return JSON.parse(await world.run("client", command, { core: LOAD_CORE })) as number;
}

/** A few requests to each target over one connection; tells how many were not answered with 200. */
export async function useTargets(targets: readonly Target[]): Promise<number> {
  let unanswered = 0;
  for (const { host, port, path } of targets) {
    const socket = createConnection({ host, port });
    socket.setTimeout(ANSWER_WITHIN_MS, () => socket.destroy());
    socket.on("error", () => undefined); // what was not answered is counted
    const request = `GET ${path} HTTP/1.1\r\nHost: bench\r\n\r\n`;
    let good = 0;
    let text = "";
    socket.on("data", (bytes) => {
      text += bytes.toString("latin1");
      const end = text.indexOf("\r\n\r\n");
      if (end < 0) return;
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
      if (text.length < end + 4 + length) return;
      if (/^HTTP\/1.1 200 /.test(text)) good++;
      text = "";
      if (++said < REQUESTS_EACH) socket.write(request);
      else socket.end();
    });
    let said = 0;
    socket.write(request);
    await new Promise((resolve) => socket.on("close", resolve));
    unanswered += REQUESTS_EACH - good;
  }
  return unanswered;
}

/** Memory of its own, in KiB, that each of `count` things costs that one mesh has more than another; null where either is missing. */
export function eachKib(
  rows: readonly MeshSizeRow[],
  subject: string,
  { mesh, base, count }: { readonly mesh: string; readonly base: string; readonly count: number },
): number | null {
  const of = (name: string): number | undefined =>
    rows.find((row) => row.subject === subject && row.mesh === name)?.privateKib.median;
  const many = of(mesh);
  const few = of(base);
  return many === undefined || few === undefined ? null : (many - few) / count;
}

export const HTTP_PORT: number = PORTS.http1.service;
