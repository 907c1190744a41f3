/**
 * Where things are pinned: /sys/fs/bpf/pillion/INSTANCE/POD/{mesh_*, link_*}, and what all pods share in
 * INSTANCE/~machine. A pin is what keeps interception alive while no process of ours is.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, statfsSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { InterceptionError } from "../errors.ts";
import { mountVirtual } from "../libc.ts";
import type { Libbpf } from "./libbpf.ts";

const BPFFS = "/sys/fs/bpf";
const BPF_FS_MAGIC = 0xcafe4a11;
const ROOT = join(BPFFS, "pillion");
// No encoded name begins like this: after "~" come two hexadecimal digits there.
const MACHINE = "~machine";
const MACHINE_MAPS = new Set(["mesh_services", "mesh_backends"]);

/** Makes sure that the BPF file system is there. */
export function ensureBpffs(): void {
  try {
    if (statfsSync(BPFFS).type === BPF_FS_MAGIC) return;
    mountVirtual("bpf", BPFFS);
  } catch (cause) {
    throw new InterceptionError(
      "PIN_FAILED",
      `no BPF file system at ${BPFFS}, and mounting one failed: run as root, outside a container`,
      { cause },
    );
  }
}

export class Pins {
  readonly instanceDir: string;
  readonly machineDir: string;

  constructor(instance: string) {
    this.instanceDir = join(ROOT, encodeName(instance));
    this.machineDir = join(this.instanceDir, MACHINE);
  }

  podDir(pod: string): string {
    return join(this.instanceDir, encodeName(pod));
  }

  /** Path of a map, by its name, for one pod. */
  mapOf(pod: string): (map: string) => string {
    const dir = this.podDir(pod);
    return (map) => join(MACHINE_MAPS.has(map) ? this.machineDir : dir, map);
  }

  link(pod: string, hook: string): string {
    return join(this.podDir(pod), `link_${hook}`);
  }

  prepare(pod: string): void {
    mkdirSync(this.machineDir, { recursive: true, mode: 0o700 });
    mkdirSync(this.podDir(pod), { recursive: true, mode: 0o700 });
  }

  /** Encoded names of the pods that have anything pinned. */
  podDirs(): string[] {
    if (!existsSync(this.instanceDir)) return [];
    return readdirSync(this.instanceDir)
      .filter((name) => name !== MACHINE)
      .map((name) => join(this.instanceDir, name));
  }
}

/** Detaches and removes everything pinned in one folder, then the folder. Returns the paths removed. */
export function removePinned(lib: Libbpf | null, dir: string): string[] {
  if (!existsSync(dir)) return [];
  // Links first, each detached at once: a last reference dropped by unlink is only detached some time later.
  const names = readdirSync(dir).toSorted(
    (a, b) => Number(b.startsWith("link_")) - Number(a.startsWith("link_")),
  );
  const removed: string[] = [];
  for (const name of names) {
    const path = join(dir, name);
    const fd = lib !== null && name.startsWith("link_") ? lib.open(path) : null;
    if (lib !== null && fd !== null) {
      lib.detach(fd);
      lib.close(fd);
    }
    unlinkSync(path);
    removed.push(path);
  }
  rmdirSync(dir);
  return removed;
}

/** Removes empty folders up to the root of ours; other instances may be there. */
export function removeEmpty(...dirs: string[]): void {
  for (const dir of [...dirs, ROOT]) {
    if (existsSync(dir) && readdirSync(dir).length === 0) rmdirSync(dir);
  }
}

/** The BPF file system takes no dots, and no file system slashes: anything unusual becomes ~xx. */
export function encodeName(name: string): string {
  const encoded = Buffer.from(name).reduce((out, byte) => {
    const char = String.fromCharCode(byte);
    return out + (/[A-Za-z0-9_-]/.test(char) ? char : `~${byte.toString(16).padStart(2, "0")}`);
  }, "");
  if (encoded.length === 0 || encoded.length > 255)
    throw new InterceptionError("BAD_INPUT", `"${name}" cannot name a pin: it must have 1 to 255 characters`);
  return encoded;
}
