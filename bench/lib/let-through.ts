/**
 * Connections that need no proxy: through pods that Pillion's eBPF intercepts, on ports that are exempt, against pods that nobody
 * intercepts. Both pods are hooked, the server's and the client's, and all load is by programs in C, so that it is the kernel's
 * time that counts.
 */
import { mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { IpAddress } from "#/base/address.ts";
import { detectSupport, openInterceptor, sweepLeftovers, type Interceptor } from "#/kernel/interception.ts";
import { runBurst } from "./load.ts";
import { CLIENT, PORTS, SERVER, SIDECAR_UID, type Namespaces } from "./namespaces.ts";
import { spread, type Spread } from "./report.ts";
import { SHAPES } from "./shapes.ts";

const SHAPE_NAMES = ["h1-8-10MiB", "new-connections", "h1-64"] as const;
const COUNTED_WITHIN_MS = 5_000;

export interface LetThroughRow {
  readonly shape: string;
  /** In a second. */
  readonly without: Spread;
  readonly hooked: Spread;
  /** Hooked ÷ without, of pairs of bursts right after one another. */
  readonly ratio: Spread;
}

export interface LetThrough {
  readonly rows: readonly LetThroughRow[];
  /** Connections of the hooked bursts: as many as the kernel counted at the client's pod and at the server's. */
  readonly connections: { readonly client: number; readonly server: number };
  readonly bytesIn: number;
}

/** Null with the reason where this kernel cannot. `makeWorld` starts the applications, in the cgroup that `enter` names. */
export async function letThrough(
  makeWorld: (prepare: (world: Namespaces) => void) => Promise<Namespaces>,
  rounds: number,
  seconds: number,
): Promise<LetThrough | { skipped: string }> {
  const root = cgroupRoot();
  if (root === null) return { skipped: "no cgroup v2 is mounted" };
  const { ebpf } = detectSupport();
  if (!ebpf.ok) return { skipped: `no eBPF here: ${ebpf.reason}` };
  const instance = `bench${process.pid}`;
  const cgroups = new Cgroups(root, instance);
  const interceptor = openInterceptor("ebpf", instance);
  try {
    const plain = await makeWorld((world) => {
      for (const side of ["client", "server"] as const) world.enter(side, cgroups.make(`plain-${side}`));
    });
    const hooked = await makeWorld((world) => hook(world, interceptor, instance, cgroups));
    const rows: LetThroughRow[] = [];
    for (const name of SHAPE_NAMES) {
      const shape = SHAPES.find((one) => one.name === name)!;
      const burst = async (world: Namespaces): Promise<number> => {
        const places = { http1: `${SERVER}:${PORTS.http1.bare}` };
        return (await runBurst({ world, places }, shape, seconds, 0))?.perSecond ?? 0;
      };
      const without: number[] = [];
      const withHooks: number[] = [];
      await burst(plain);
      await burst(hooked);
      for (let round = 0; round < rounds; round++) {
        // Who comes first takes turns, so that a drift of the machine hits both.
        if (round % 2 === 0) without.push(await burst(plain));
        withHooks.push(await burst(hooked));
        if (round % 2 === 1) without.push(await burst(plain));
      }
      rows.push({
        shape: name,
        without: spread(without),
        hooked: spread(withHooks),
        ratio: spread(withHooks.map((perSecond, i) => perSecond / without[i]!)),
      });
    }
    return { rows, ...(await counted(interceptor)) };
  } finally {
    for (const side of ["client", "server"]) interceptor.remove(instance, `bench/${side}`);
    interceptor.close();
    sweepLeftovers(instance);
    cgroups.later();
  }
}

function hook(world: Namespaces, interceptor: Interceptor, instance: string, cgroups: Cgroups): void {
  const bare = Object.values(PORTS).map(({ bare: port }) => port);
  for (const [side, ip] of [
    ["client", CLIENT],
    ["server", SERVER],
  ] as const) {
    const appCgroup = cgroups.make(side);
    interceptor.install({
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
    });
    world.enter(side, appCgroup);
  }
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
