/**
 * Interception by eBPF: loads the committed objects once per pod, attaches them to its cgroups and network namespace, and
 * keeps everything pinned. `install` on a pod that has them already swaps the programs behind the links one by one, each
 * atomically, and keeps the maps: connections, listeners and counters stay.
 */
import { closeSync, existsSync, openSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { InterceptionError } from "../errors.ts";
import {
  DEFAULT_SIDECAR_PORTS,
  type Interceptor,
  type PodInterception,
  type PodTraffic,
  type ServiceVip,
  type Support,
} from "../pod.ts";
import {
  Direction,
  decodeTraffic,
  decodeTrafficKey,
  encodeAddress,
  encodeCidrKey,
  encodePortKey,
  encodeSettings,
  SIZE,
} from "./layout.ts";
import { Libbpf, type BpfObject } from "./libbpf.ts";
import { ensureBpffs, Pins, removeEmpty, removePinned } from "./pins.ts";
import { ServiceTable } from "./services.ts";

const OBJECTS = join(import.meta.dirname, "../../../bpf/out");

/**
 * One object file each, in the order of attachment. The sidecar's side comes first and the application's last, so that
 * nothing is sent to the sidecar before it can know where it was meant for.
 */
const HOOKS = [
  { name: "sockops_sidecar", on: "sidecar" },
  { name: "getsockopt", on: "sidecar" },
  { name: "sk_lookup", on: "netns" },
  { name: "sockops_app", on: "app" },
  { name: "getpeername4", on: "app" },
  { name: "getpeername6", on: "app" },
  { name: "getsockname4", on: "app" },
  { name: "getsockname6", on: "app" },
  { name: "recvmsg4", on: "app" },
  { name: "recvmsg6", on: "app" },
  { name: "sendmsg4", on: "app" },
  { name: "sendmsg6", on: "app" },
  { name: "connect6", on: "app" },
  { name: "connect4", on: "app" },
] as const;

type Hook = (typeof HOOKS)[number];

// As in bpf/maps.h.
const OWN_ADDRESSES_MAX = 64;
const PORTS_MAX = 131072;
const CIDRS_MAX = 16384;
const TARGETS_MAX = 1024;

/** The maps of one pod that user space reads or writes, by descriptor. */
interface PodMaps {
  readonly settings: number;
  readonly own: number;
  readonly ports: number;
  readonly cidrs: number;
  readonly traffic: number;
}

export function createEbpfInterceptor(instance: string): Interceptor {
  return new EbpfInterceptor(instance);
}

/** Loads everything and attaches nothing, under a name of its own, then removes it. */
export function ebpfSupport(): Support {
  const instance = `~probe-${process.pid}`;
  const pins = new Pins(instance);
  let lib: Libbpf | null = null;
  try {
    lib = new Libbpf();
    ensureBpffs();
    pins.prepare("probe");
    for (const hook of HOOKS) lib.load(objectFile(hook), pins.mapOf("probe")).close();
    return { ok: true, reason: "" };
  } catch (error) {
    return { ok: false, reason: error instanceof Error ? error.message : String(error) };
  } finally {
    sweep(lib, pins);
  }
}

export function sweepPins(instance: string): string[] {
  const pins = new Pins(instance);
  return existsSync(pins.instanceDir) ? sweep(new Libbpf(), pins) : [];
}

class EbpfInterceptor implements Interceptor {
  readonly kind = "ebpf";
  readonly #instance: string;
  readonly #lib = new Libbpf();
  readonly #pins: Pins;
  readonly #pods = new Map<string, PodMaps>();
  #services: ServiceTable | null = null;
  #wantedServices: readonly ServiceVip[] | null = null;

  constructor(instance: string) {
    ensureBpffs();
    this.#instance = instance;
    this.#pins = new Pins(instance);
  }

  install(pod: PodInterception): void {
    this.#checkInstance(pod.instance);
    const fresh = !existsSync(this.#pins.podDir(pod.pod));
    try {
      this.#install(pod);
    } catch (error) {
      // What was there before is still whole. What this call began is not: it goes.
      if (fresh) this.remove(pod.instance, pod.pod);
      throw error;
    }
  }

  update(pod: PodInterception): void {
    this.#checkInstance(pod.instance);
    const maps = this.#pods.get(pod.pod);
    if (maps === undefined)
      throw new InterceptionError("BAD_INPUT", `pod ${pod.pod} is not installed`, { blame: "us" });
    this.#writeSettings(maps, pod);
  }

  adopt(pod: PodInterception): boolean {
    this.#checkInstance(pod.instance);
    if (!hooksOf(pod).every((hook) => this.#isAttached(pod, hook))) return false;
    // Programs of an older version are replaced by ours on the way.
    this.#install(pod);
    return true;
  }

  remove(instance: string, pod: string): void {
    this.#checkInstance(instance);
    this.#forget(pod);
    removePinned(this.#lib, this.#pins.podDir(pod));
    removeEmpty(this.#pins.instanceDir);
  }

  setServices(services: readonly ServiceVip[]): void {
    this.#wantedServices = services;
    this.#serviceTable()?.set(services);
  }

  readTelemetry(): PodTraffic[] {
    const all: PodTraffic[] = [];
    const value = Buffer.alloc(SIZE.mesh_traffic);
    for (const [pod, maps] of this.#pods) {
      for (const key of this.#lib.keys(maps.traffic, SIZE.mesh_traffic_key, TARGETS_MAX)) {
        if (!this.#lib.lookup(maps.traffic, key, value)) continue;
        all.push({ instance: this.#instance, pod, ...decodeTrafficKey(key), ...decodeTraffic(value) });
      }
    }
    return all;
  }

  close(): void {
    for (const pod of this.#pods.keys()) this.#forget(pod);
    this.#services?.close();
    this.#services = null;
  }

  #install(pod: PodInterception): void {
    this.#pins.prepare(pod.pod);
    const loaded: { hook: Hook; object: BpfObject }[] = [];
    try {
      for (const hook of hooksOf(pod)) {
        loaded.push({ hook, object: this.#lib.load(objectFile(hook), this.#pins.mapOf(pod.pod)) });
      }
      this.#forget(pod.pod);
      const maps = this.#openMaps(pod.pod);
      this.#pods.set(pod.pod, maps);
      this.#writeSettings(maps, pod);
      if (this.#wantedServices !== null) this.#serviceTable()?.set(this.#wantedServices);
      for (const { hook, object } of loaded) this.#attach(pod, hook, object);
    } finally {
      for (const { object } of loaded) object.close();
    }
  }

  #attach(pod: PodInterception, hook: Hook, object: BpfObject): void {
    const path = this.#pins.link(pod.pod, hook.name);
    if (this.#isAttached(pod, hook)) {
      const linkFd = this.#lib.open(path);
      if (linkFd === null) throw new InterceptionError("PIN_FAILED", `${path} went away`);
      try {
        this.#lib.replaceProgram(linkFd, object.fd);
      } finally {
        this.#lib.close(linkFd);
      }
      return;
    }
    // A link to a cgroup or namespace that is gone stays pinned until somebody removes it.
    this.#unlink(path);
    const targetFd = openTarget(targetOf(pod, hook));
    try {
      this.#lib.attachAndPin(object.program, hook.on === "netns" ? "netns" : "cgroup", targetFd, path);
    } finally {
      closeSync(targetFd);
    }
  }

  /** Is there a pinned link that is attached to where this pod lives now? */
  #isAttached(pod: PodInterception, hook: Hook): boolean {
    const linkFd = this.#lib.open(this.#pins.link(pod.pod, hook.name));
    if (linkFd === null) return false;
    try {
      return this.#lib.linkInfo(linkFd).targetInode === inodeOf(targetOf(pod, hook));
    } finally {
      this.#lib.close(linkFd);
    }
  }

  #unlink(path: string): void {
    const fd = this.#lib.open(path);
    if (fd === null) return;
    this.#lib.detach(fd);
    this.#lib.close(fd);
    unlinkSync(path);
  }

  #openMaps(pod: string): PodMaps {
    const pathOf = this.#pins.mapOf(pod);
    const open = (map: string): number => {
      const fd = this.#lib.open(pathOf(map));
      if (fd === null) throw new InterceptionError("MAP_FAILED", `map ${map} of pod ${pod} is not pinned`);
      return fd;
    };
    return {
      settings: open("mesh_settings"),
      own: open("mesh_own"),
      ports: open("mesh_ports"),
      cidrs: open("mesh_cidrs"),
      traffic: open("mesh_traffic"),
    };
  }

  /** The sets first and the settings last: a pod that becomes meshed knows its exemptions by then. */
  #writeSettings(maps: PodMaps, pod: PodInterception): void {
    const ports = pod.ports ?? DEFAULT_SIDECAR_PORTS;
    const settings = encodeSettings({
      mode: pod.mode,
      inboundPort: ports.inbound,
      outboundPort: ports.outbound,
      adminPort: ports.admin,
      source4: pod.podIps.find((ip) => !ip.includes(":")) ?? null,
      source6: pod.podIps.find((ip) => ip.includes(":")) ?? null,
    });
    const own = pod.podIps.map(encodeAddress);
    const skipped = [
      ...pod.skipInboundPorts.map((port) => encodePortKey(Direction.INBOUND, port)),
      ...pod.skipOutboundPorts.map((port) => encodePortKey(Direction.OUTBOUND, port)),
    ];
    const cidrs = [
      ...(pod.skipInboundCidrs ?? []).map((cidr) => encodeCidrKey(Direction.INBOUND, cidr)),
      ...pod.letThroughCidrs.map((cidr) => encodeCidrKey(Direction.OUTBOUND, cidr)),
    ];
    this.#replaceKeys(maps.own, own, SIZE.mesh_addr, OWN_ADDRESSES_MAX, "addresses of the pod");
    this.#replaceKeys(maps.ports, skipped, SIZE.mesh_port_key, PORTS_MAX, "skipped ports");
    this.#replaceKeys(maps.cidrs, cidrs, SIZE.mesh_cidr_key, CIDRS_MAX, "let-through networks");
    this.#lib.put(maps.settings, Buffer.alloc(4), settings);
  }

  /** Makes a map hold exactly these keys, adding before removing. */
  #replaceKeys(
    mapFd: number,
    keys: readonly Buffer[],
    keyBytes: number,
    keysMax: number,
    what: string,
  ): void {
    const wanted = new Map(keys.map((key) => [key.toString("hex"), key]));
    if (wanted.size > keysMax)
      throw new InterceptionError(
        "BAD_INPUT",
        `${wanted.size} ${what} are more than the ${keysMax} that fit`,
      );
    const present = this.#lib.keys(mapFd, keyBytes, keysMax);
    const value = Buffer.from([1, 0, 0, 0]);
    for (const key of wanted.values()) this.#lib.put(mapFd, key, value);
    for (const key of present) if (!wanted.has(key.toString("hex"))) this.#lib.delete(mapFd, key);
  }

  /** Null until the first pod of the instance has made the maps. */
  #serviceTable(): ServiceTable | null {
    if (this.#services !== null) return this.#services;
    const servicesFd = this.#lib.open(join(this.#pins.machineDir, "mesh_services"));
    const backendsFd = this.#lib.open(join(this.#pins.machineDir, "mesh_backends"));
    if (servicesFd === null || backendsFd === null) return null;
    this.#services = new ServiceTable(this.#lib, servicesFd, backendsFd);
    return this.#services;
  }

  #forget(pod: string): void {
    const maps = this.#pods.get(pod);
    if (maps === undefined) return;
    for (const fd of Object.values(maps) as number[]) this.#lib.close(fd);
    this.#pods.delete(pod);
  }

  #checkInstance(instance: string): void {
    if (instance !== this.#instance)
      throw new InterceptionError(
        "BAD_INPUT",
        `this interceptor serves instance ${this.#instance}, not ${instance}`,
        { blame: "us" },
      );
  }
}

function sweep(lib: Libbpf | null, pins: Pins): string[] {
  const removed = [...pins.podDirs(), pins.machineDir].flatMap((dir) => removePinned(lib, dir));
  removeEmpty(pins.instanceDir);
  return removed;
}

/** A pod without a sidecar has no sidecar's cgroup to attach to. */
function hooksOf(pod: PodInterception): readonly Hook[] {
  return pod.sidecarCgroup === "" ? HOOKS.filter((hook) => hook.on !== "sidecar") : HOOKS;
}

function targetOf(pod: PodInterception, hook: Hook): string {
  switch (hook.on) {
    case "app":
      return pod.appCgroup;
    case "sidecar":
      return pod.sidecarCgroup;
    case "netns":
      return pod.netnsPath;
  }
}

function openTarget(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw new InterceptionError(
      "ATTACH_FAILED",
      `cannot open ${path}: check that the pod's cgroup and network namespace exist`,
      { cause },
    );
  }
}

/** What the kernel calls a cgroup's id or a namespace's: the inode number. 0 is nobody's. */
function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? -1n;
}

function objectFile(hook: Hook): string {
  return join(OBJECTS, `${hook.name}.bpf.o`);
}
