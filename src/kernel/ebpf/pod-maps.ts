/** The maps of one pod that user space writes and reads: its settings and exemptions, and what the kernel counted. */
import { InterceptionError } from "../errors.ts";
import { DEFAULT_SIDECAR_PORTS, type PodInterception } from "../pod.ts";
import {
  BOUNDS,
  Direction,
  decodeTraffic,
  decodeTrafficKey,
  encodeAddress,
  encodeCidrKey,
  encodePortSet,
  encodeIndex,
  encodeSettings,
  MESH_ABI,
  SIZE,
  type TrafficCounters,
  type TrafficKey,
} from "./layout.ts";
import type { Libbpf } from "./libbpf.ts";

const NAMES = ["mesh_settings", "mesh_own", "mesh_ports", "mesh_cidrs", "mesh_traffic"] as const;
type Name = (typeof NAMES)[number];
type KeySet = "mesh_own" | "mesh_cidrs";

const KEY_BYTES = {
  mesh_own: SIZE.mesh_addr,
  mesh_cidrs: SIZE.mesh_cidr_key,
} as const;
const PRESENT = Buffer.from([1, 0, 0, 0]);

export class PodMaps {
  readonly #lib: Libbpf;
  readonly #fds = new Map<Name, number>();

  /** Opens what is pinned at `pathOf(name)`. Throws, and holds nothing, when a map is missing. */
  constructor(lib: Libbpf, pathOf: (map: string) => string) {
    this.#lib = lib;
    for (const name of NAMES) {
      const fd = lib.open(pathOf(name));
      if (fd === null) {
        this.close();
        throw new InterceptionError(
          "MAP_FAILED",
          `${pathOf(name)} is missing: remove the pod and install it again`,
        );
      }
      this.#fds.set(name, fd);
    }
  }

  /** Makes the kernel's view of the pod this one. Throws `InterceptionError` "BAD_INPUT" before anything is written. */
  write(pod: PodInterception): void {
    const ports = pod.ports ?? DEFAULT_SIDECAR_PORTS;
    const settings = encodeSettings({
      mode: pod.mode,
      inboundPort: ports.inbound,
      outboundPort: ports.outbound,
      adminPort: ports.admin,
      source4: pod.podIps.find((ip) => !ip.includes(":")) ?? null,
      source6: pod.podIps.find((ip) => ip.includes(":")) ?? null,
    });
    const wanted: Record<KeySet, Map<string, Buffer>> = {
      mesh_own: distinct("mesh_own", pod.podIps.map(encodeAddress)),
      mesh_cidrs: distinct("mesh_cidrs", [
        ...(pod.skipInboundCidrs ?? []).map((cidr) => encodeCidrKey(Direction.INBOUND, cidr)),
        ...pod.letThroughCidrs.map((cidr) => encodeCidrKey(Direction.OUTBOUND, cidr)),
        ...(pod.refusedInbound ?? []).map((cidr) => encodeCidrKey(Direction.REFUSED, cidr)),
      ]),
    };
    const portSets = [
      { direction: Direction.INBOUND, ports: encodePortSet(pod.skipInboundPorts) },
      { direction: Direction.OUTBOUND, ports: encodePortSet(pod.skipOutboundPorts) },
    ];
    // The sets first and the settings last: a pod that becomes meshed knows its exemptions by then.
    for (const name of ["mesh_own", "mesh_cidrs"] as const) this.#replace(name, wanted[name]);
    for (const { direction, ports: set } of portSets)
      this.#lib.put(this.#fd("mesh_ports"), encodeIndex(direction), set);
    this.#lib.put(this.#fd("mesh_settings"), encodeIndex(0), settings);
  }

  traffic(): (TrafficKey & TrafficCounters)[] {
    const fd = this.#fd("mesh_traffic");
    const value = Buffer.alloc(SIZE.mesh_traffic);
    const found: (TrafficKey & TrafficCounters)[] = [];
    for (const key of this.#lib.keys(fd, SIZE.mesh_traffic_key, BOUNDS.mesh_traffic.entries)) {
      // The kernel may have forgotten it since.
      if (this.#lib.lookup(fd, key, value)) found.push({ ...decodeTrafficKey(key), ...decodeTraffic(value) });
    }
    return found;
  }

  close(): void {
    for (const fd of this.#fds.values()) this.#lib.close(fd);
    this.#fds.clear();
  }

  /** Adds before removing, so that what is in both sets is never missing. */
  #replace(name: KeySet, wanted: ReadonlyMap<string, Buffer>): void {
    const fd = this.#fd(name);
    const present = this.#lib.keys(fd, KEY_BYTES[name], BOUNDS[name].entries);
    for (const key of wanted.values()) this.#lib.put(fd, key, PRESENT);
    for (const key of present) if (!wanted.has(key.toString("hex"))) this.#lib.delete(fd, key);
  }

  #fd(name: Name): number {
    const fd = this.#fds.get(name);
    if (fd === undefined) throw new InterceptionError("MAP_FAILED", `map ${name} is closed`, { blame: "us" });
    return fd;
  }
}

/**
 * Refuses maps that another version pinned with another layout: programs of ours could not share them, and taking the pod
 * out of interception to make them anew would let its traffic pass meanwhile.
 */
export function checkPinnedLayout(lib: Libbpf, pathOf: (map: string) => string): void {
  const fd = lib.open(pathOf("mesh_settings"));
  if (fd === null) return;
  // Room for settings of any version: the kernel writes as much as that version's had.
  const settings = Buffer.alloc(4096);
  const found = lib.lookup(fd, encodeIndex(0), settings);
  lib.close(fd);
  const abi = settings.readUInt32LE(0);
  if (!found || abi === MESH_ABI) return;
  throw new InterceptionError(
    "LOAD_FAILED",
    `this pod's interception was installed by another version (layout ${abi}, ours is ${MESH_ABI}): restart the pod`,
  );
}

function distinct(name: KeySet, keys: readonly Buffer[]): Map<string, Buffer> {
  const { entries, what } = BOUNDS[name];
  const byText = new Map(keys.map((key) => [key.toString("hex"), key]));
  if (byText.size > entries)
    throw new InterceptionError("BAD_INPUT", `${byText.size} ${what} are more than the ${entries} that fit`);
  return byText;
}
