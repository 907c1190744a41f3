/**
 * Connections that need no proxy: through pods that Pillion's eBPF intercepts, on ports that are exempt, against the same pods while
 * nobody intercepts them. Both pods are hooked, the server's and the client's, and all load is by programs in C, so that it is the
 * kernel's time that counts.
 *
 * Two pods that are alike differ by 3 % on a machine that is shared, by where their memory happens to be, and a second differs from the
 * next by more. So it is the same two pods and the same programs, frozen for a moment again and again while the hooks are put in or
 * taken away: slices of `SLICE_MS` in pairs, who comes first taking turns, and the ratio of each pair.
 */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { IpAddress } from "#/base/address.ts";
import {
  detectSupport,
  openInterceptor,
  sweepLeftovers,
  type Interceptor,
  type PodInterception,
} from "#/kernel/interception.ts";
import { HookSwitch, type HookRuns } from "./hook-switch.ts";
import { LOAD_CORE, runBurst, wrkCommand } from "./load.ts";
import { CLIENT, PORTS, SERVER, SIDECAR_UID, type Namespaces } from "./namespaces.ts";
import { medianInterval, spread, type Spread } from "./report.ts";
import { SHAPES, type WrkShape } from "./shapes.ts";

const SHAPE_NAMES = ["h1-8-10MiB", "new-connections", "h1-64"] as const;
const SLICE_MS = 40;
const PAIRS_A_ROUND = 60;
/** A load that goes on until it is killed. */
const FOREVER_S = 3_600;
const COUNTED_WITHIN_MS = 5_000;
/** Of Ethernet, IPv4, and TCP with timestamps; a segment that the kernel did not cut counts as one. */
const HEADER_BYTES = 14 + 20 + 32;

export interface LetThroughRow {
  readonly shape: string;
  /** In a second. */
  readonly without: Spread;
  readonly hooked: Spread;
  /** Hooked ÷ without: the median of all pairs, within its interval of 95 %. */
  readonly ratio: Spread;
  /** What the kernel says that the programs themselves take, of one unit. */
  readonly hooks: readonly HookRuns[];
}

export interface LetThrough {
  readonly rows: readonly LetThroughRow[];
  /** Connections that the kernel counted at the client's pod and at the server's, while the hooks were in place. */
  readonly connections: { readonly client: number; readonly server: number };
  readonly bytesIn: number;
}

/** Null with the reason where this kernel cannot. `makeWorld` starts the applications, in the cgroup that `enter` names. */
export async function letThrough(
  makeWorld: (prepare: (world: Namespaces) => void) => Promise<Namespaces>,
  rounds: number,
): Promise<LetThrough | { skipped: string }> {
  const root = cgroupRoot();
  if (root === null) return { skipped: "no cgroup v2 is mounted" };
  const { ebpf } = detectSupport();
  if (!ebpf.ok) return { skipped: `no eBPF here: ${ebpf.reason}` };
  const instance = `bench${process.pid}`;
  const cgroups = new Cgroups(root, instance);
  const interceptor = openInterceptor("ebpf", instance);
  let hooks: HookSwitch | null = null;
  try {
    let pods: PodInterception[] = [];
    const world = await makeWorld((made) => {
      pods = hook(made, interceptor, instance, cgroups);
    });
    hooks = new HookSwitch(pods);
    const rows: LetThroughRow[] = [];
    for (const name of SHAPE_NAMES)
      rows.push(await measure(world, shapeOf(name), hooks, cgroups, PAIRS_A_ROUND * rounds));
    return { rows, ...(await counted(interceptor)) };
  } finally {
    cgroups.freeze(false);
    hooks?.close();
    for (const side of ["client", "server"]) interceptor.remove(instance, `bench/${side}`);
    interceptor.close();
    sweepLeftovers(instance);
    cgroups.later();
  }
}

async function measure(
  world: Namespaces,
  shape: WrkShape,
  hooks: HookSwitch,
  cgroups: Cgroups,
  pairs: number,
): Promise<LetThroughRow> {
  const place = `${SERVER}:${PORTS.http1.bare}`;
  const burst = async (): Promise<number> =>
    (await runBurst({ world, places: { http1: place } }, shape, 1, 0))?.done ?? 0;
  // Whoever is in the pod sees its network's counters. It is there before the first burst is over.
  const witness = world.start("client", ["sleep", "infinity"]);
  const received = (): number => receivedBytes(witness.pid!);
  await burst();

  hooks.setStats(true);
  const [runsBefore, bytesBefore] = [hooks.runs(), received()];
  const done = await burst();
  const [runs, bytes] = [hooks.runs(), received() - bytesBefore];
  hooks.setStats(false);

  const load = world.start("client", wrkCommand(shape, place, FOREVER_S), {
    core: LOAD_CORE,
    stdio: "ignore",
  });
  const slice = async (isHooked: boolean): Promise<number> => {
    if (isHooked) hooks.on();
    else hooks.off();
    const before = received();
    const startMs = performance.now();
    cgroups.freeze(false);
    await sleep(SLICE_MS);
    cgroups.freeze(true);
    const seconds = (performance.now() - startMs) / 1000;
    return ((received() - before) / bytes) * (done / seconds);
  };
  await sleep(10 * SLICE_MS);
  cgroups.freeze(true);
  const without: number[] = [];
  const hooked: number[] = [];
  hooks.off();
  for (let pair = 0; pair < pairs; pair++) {
    // Who comes first takes turns, so that a drift of the machine hits both.
    if (pair % 2 === 0) without.push(await slice(false));
    hooked.push(await slice(true));
    hooks.off();
    if (pair % 2 === 1) without.push(await slice(false));
  }
  hooks.on();
  for (const child of [load, witness]) child.kill("SIGKILL");
  cgroups.freeze(false);
  return {
    shape: shape.name,
    without: spread(without),
    hooked: spread(hooked),
    ratio: medianInterval(hooked.map((perSecond, i) => perSecond / without[i]!)),
    hooks: runs
      .map((one, i) => ({
        ...one,
        runs: (one.runs - runsBefore[i]!.runs) / done,
        ns: (one.ns - runsBefore[i]!.ns) / done,
      }))
      .filter((one) => one.runs > 0.001),
  };
}

/** Payload of TCP that came to a process's network namespace so far. */
function receivedBytes(pid: number): number {
  const counters = /^\s*eth0:\s*(\d+)\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/net/dev`, "latin1"));
  return Number(counters?.[1]) - HEADER_BYTES * Number(counters?.[2]);
}

function shapeOf(name: string): WrkShape {
  const shape = SHAPES.find((one) => one.name === name);
  if (shape?.kind !== "wrk") throw new Error(`${name} is no load by wrk`);
  return shape;
}
function hook(
  world: Namespaces,
  interceptor: Interceptor,
  instance: string,
  cgroups: Cgroups,
): PodInterception[] {
  const bare = Object.values(PORTS).map(({ bare: port }) => port);
  const sides = [
    ["client", CLIENT],
    ["server", SERVER],
  ] as const;
  return sides.map(([side, ip]) => {
    const appCgroup = cgroups.make(side);
    const pod: PodInterception = {
      instance,
      pod: `bench/${side}`,
      netnsPath: `/run/netns/${world.name(side)}`,
      appCgroup,
      sidecarCgroup: cgroups.make(`${side}-sidecar`),
      podIps: [ip as IpAddress],
      mode: "meshed",
      sidecarUid: SIDECAR_UID,
      skipInboundPorts: side === "server" ? bare : [],
      skipOutboundPorts: side === "client" ? bare : [],
      letThroughCidrs: [],
    };
    interceptor.install(pod);
    world.enter(side, appCgroup);
    return pod;
  });
}

/** Counters are added up when a connection closes, a moment after its program is gone: waits until both pods agree. */
async function counted(interceptor: Interceptor): Promise<Pick<LetThrough, "connections" | "bytesIn">> {
  const of = (direction: "inbound" | "outbound") =>
    interceptor
      .readTelemetry()
      .filter((one) => one.path === "let-through" && one.direction === direction)
      .reduce(
        (sum, one) => ({ connections: sum.connections + one.connections, bytes: sum.bytes + one.bytesIn }),
        { connections: 0, bytes: 0 },
      );
  const deadlineMs = performance.now() + COUNTED_WITHIN_MS;
  for (;;) {
    const client = of("outbound");
    const server = of("inbound");
    if (client.connections === server.connections || performance.now() > deadlineMs)
      return {
        connections: { client: client.connections, server: server.connections },
        bytesIn: client.bytes,
      };
    await sleep(100);
  }
}

class Cgroups {
  readonly #dir: string;
  readonly #made: string[] = [];

  constructor(root: string, name: string) {
    this.#dir = join(root, name);
    this.#make(this.#dir);
  }

  make(name: string): string {
    return this.#make(join(this.#dir, name));
  }

  /** All programs in them stop where they are, or go on. Comes back when they have. */
  freeze(isFrozen: boolean): void {
    const wanted = `frozen ${isFrozen ? 1 : 0}`;
    writeFileSync(join(this.#dir, "cgroup.freeze"), isFrozen ? "1" : "0");
    while (!readFileSync(join(this.#dir, "cgroup.events"), "latin1").includes(wanted));
  }

  /** Removes them when this process ends and with it all that is in them; the kernel lets go a moment after. */
  later(): void {
    process.on("exit", () => {
      const untilMs = performance.now() + 1_000;
      for (const dir of this.#made.toReversed()) {
        for (;;) {
          try {
            rmdirSync(dir);
            break;
          } catch {
            if (performance.now() > untilMs) break;
          }
        }
      }
    });
  }

  #make(dir: string): string {
    mkdirSync(dir);
    this.#made.push(dir);
    return dir;
  }
}

function cgroupRoot(): string | null {
  const line = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .find((mount) => mount.split(" ")[2] === "cgroup2");
  return line?.split(" ")[1] ?? null;
}
