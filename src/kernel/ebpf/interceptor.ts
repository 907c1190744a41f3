/**
 * Interception by eBPF: loads the committed objects once per pod, attaches them to its cgroups and network namespace, and
 * keeps everything pinned. `install` on a pod that has them already swaps the programs behind the links one by one, each
 * atomically, and keeps the maps: connections, listeners and counters stay.
 */
import { existsSync, readFileSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { InterceptionError } from "../errors.ts";
import type { Interceptor, PodInterception, PodTraffic, ServiceVip, Support } from "../pod.ts";
import { HOOKS, hooksOf, objectFile, targetInode, targetKind, withTarget, type Hook } from "./hooks.ts";
import { checkLayout } from "./layout.ts";
import { Libbpf, type BpfObject } from "./libbpf.ts";
import { ensureBpffs, Pins, removeEmpty, removePinned } from "./pins.ts";
import { checkPinnedLayout, PodMaps } from "./pod-maps.ts";
import { ServiceTable } from "./services.ts";
import { readSpec } from "./spec.ts";

export function createEbpfInterceptor(instance: string): Interceptor {
  return new EbpfInterceptor(instance);
}

/** Loads everything and attaches nothing, under a name of its own, then removes it. */
export function ebpfSupport(): Support {
  const pins = new Pins(`~probe-${process.pid}`);
  try {
    const lib = open();
    try {
      pins.prepare("probe");
      for (const hook of HOOKS) lib.load(objectFile(hook), pins.mapOf("probe")).close();
    } finally {
      sweep(lib, pins);
    }
    return { ok: true, reason: "" };
  } catch (error) {
    return { ok: false, reason: error instanceof Error ? error.message : String(error) };
  }
}

export function sweepPins(instance: string): string[] {
  const pins = new Pins(instance);
  if (!existsSync(pins.instanceDir)) return [];
  let lib: Libbpf | null = null;
  try {
    lib = new Libbpf();
  } catch {
    // Without the library the pins still go; what they held detaches a little later.
  }
  return sweep(lib, pins);
}

class EbpfInterceptor implements Interceptor {
  readonly kind = "ebpf";
  readonly #instance: string;
  readonly #lib = open();
  readonly #pins: Pins;
  readonly #pods = new Map<string, PodMaps>();
  #services: ServiceTable | null = null;
  /** What `setServices` was last told; null while nobody has. */
  #wantedServices: readonly ServiceVip[] | null = null;

  constructor(instance: string) {
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
    maps.write(pod);
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
    this.#serviceTable()?.set(services);
    this.#wantedServices = services;
  }

  readTelemetry(): PodTraffic[] {
    return [...this.#pods].flatMap(([pod, maps]) =>
      maps.traffic().map((counted) => ({ instance: this.#instance, pod, ...counted })),
    );
  }

  close(): void {
    for (const pod of this.#pods.keys()) this.#forget(pod);
    this.#services?.close();
    this.#services = null;
  }

  #install(pod: PodInterception): void {
    checkPinnedLayout(this.#lib, this.#pins.mapOf(pod.pod));
    this.#pins.prepare(pod.pod);
    const loaded: { hook: Hook; object: BpfObject }[] = [];
    try {
      for (const hook of hooksOf(pod)) {
        loaded.push({ hook, object: this.#lib.load(objectFile(hook), this.#pins.mapOf(pod.pod)) });
      }
      this.#forget(pod.pod);
      const maps = new PodMaps(this.#lib, this.#pins.mapOf(pod.pod));
      this.#pods.set(pod.pod, maps);
      maps.write(pod);
      if (this.#services === null && this.#wantedServices !== null)
        this.#serviceTable()?.set(this.#wantedServices);
      for (const { hook, object } of loaded) this.#attach(pod, hook, object);
    } finally {
      for (const { object } of loaded) object.close();
    }
  }

  #attach(pod: PodInterception, hook: Hook, object: BpfObject): void {
    const path = this.#pins.link(pod.pod, hook.name);
    const linkFd = this.#lib.open(path);
    if (linkFd !== null) {
      try {
        if (this.#lib.linkInfo(linkFd).targetInode === targetInode(pod, hook)) {
          this.#lib.replaceProgram(linkFd, object.fd);
          return;
        }
        // A link to a cgroup or namespace that is gone stays pinned until somebody removes it.
        this.#lib.detach(linkFd);
      } finally {
        this.#lib.close(linkFd);
      }
      unlinkSync(path);
    }
    withTarget(pod, hook, (fd) => this.#lib.attachAndPin(object.program, targetKind(hook), fd, path));
  }

  /** Is there a pinned link that is attached to where this pod lives now? */
  #isAttached(pod: PodInterception, hook: Hook): boolean {
    const linkFd = this.#lib.open(this.#pins.link(pod.pod, hook.name));
    if (linkFd === null) return false;
    try {
      return this.#lib.linkInfo(linkFd).targetInode === targetInode(pod, hook);
    } finally {
      this.#lib.close(linkFd);
    }
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
    this.#pods.get(pod)?.close();
    this.#pods.delete(pod);
  }

  #checkInstance(instance: string): void {
    if (instance === this.#instance) return;
    const message = `this interceptor serves instance ${this.#instance}, not ${instance}`;
    throw new InterceptionError("BAD_INPUT", message, { blame: "us" });
  }
}

/** The library, and the assurance that the objects beside us speak our layout. */
function open(): Libbpf {
  const lib = new Libbpf();
  checkLayout(readSpec(readFileSync(objectFile(HOOKS[0]))));
  ensureBpffs();
  return lib;
}

function sweep(lib: Libbpf | null, pins: Pins): string[] {
  const removed = [...pins.podDirs(), pins.machineDir].flatMap((dir) => removePinned(lib, dir));
  removeEmpty(pins.instanceDir);
  return removed;
}
