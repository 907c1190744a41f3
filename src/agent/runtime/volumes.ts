import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { PodPlan, VolumePlan } from "#/model/pod-plan.ts";
import { giveTo } from "../files.ts";
import { mustRun, runCommand } from "../run-command.ts";
import { isBelow } from "./sandbox.ts";

export interface VolumeFolders {
  /** On disk, the pod's own: emptyDir. */
  readonly podDir: string;
  /** In the run folder (memory on most machines), the pod's own: Secrets, ConfigMaps, memory volumes. */
  readonly podRunDir: string;
  /** On disk, outliving pods: claims. */
  readonly claimsDir: string;
  /** State and run folders: no hostPath may lie inside. */
  readonly hidden: readonly string[];
}

/** Makes a pod's volumes and says where each lies on the machine. Repeating it brings `files` volumes up to date. */
export async function prepareVolumes(plan: PodPlan, folders: VolumeFolders): Promise<Map<string, string>> {
  const paths = new Map<string, string>();
  for (const volume of plan.volumes) {
    const path = await prepareVolume(plan, volume, folders);
    if (plan.fsGroup !== null && volume.kind !== "hostPath") giveToGroup(path, plan.fsGroup);
    paths.set(volume.name, path);
  }
  return paths;
}

/** Rewrites what changed in the `files` volumes of a running pod. */
export function refreshFiles(plan: PodPlan, folders: VolumeFolders): void {
  for (const volume of plan.volumes) {
    if (volume.kind === "files") writeFiles(join(folders.podRunDir, volume.name), volume.files, plan.fsGroup);
  }
}

/** Unmounts and removes what belongs to the pod alone. */
export async function removeVolumes(folders: VolumeFolders): Promise<void> {
  for (const name of existsSync(folders.podRunDir) ? readdirSync(folders.podRunDir) : []) {
    await runCommand("umount", ["-q", join(folders.podRunDir, name)]);
  }
  rmSync(folders.podRunDir, { recursive: true, force: true });
}

/** `subPath` inside a volume. Made when it is missing. Throws when it would lead out of the volume. */
export function subPathOf(volume: string, subPath: string): string {
  let at = realpathSync(volume);
  for (const part of subPath.split("/").filter((each) => each !== "" && each !== ".")) {
    if (part === "..") throw new Error(`subPath "${subPath}" leads out of its volume`);
    at = join(at, part);
    if (!existsSync(at)) {
      mkdirSync(at, { mode: 0o755 });
    } else if (lstatSync(at).isSymbolicLink()) {
      // A container could point a link at anything of the machine; `..data` is the one that we made ourselves.
      const real = realpathSync(at);
      if (!isBelow(real, [realpathSync(volume)]))
        throw new Error(`subPath "${subPath}" leads out of its volume through a symbolic link`);
      at = real;
    }
  }
  return at;
}

async function prepareVolume(plan: PodPlan, volume: VolumePlan, folders: VolumeFolders): Promise<string> {
  switch (volume.kind) {
    case "emptyDir": {
      if (volume.medium === "Memory")
        return await memoryFolder(join(folders.podRunDir, volume.name), volume.sizeLimitBytes);
      return openFolder(join(folders.podDir, volume.name));
    }
    case "claim":
      return openFolder(join(folders.claimsDir, plan.namespace, volume.claim));
    case "files": {
      const dir = join(folders.podRunDir, volume.name);
      writeFiles(dir, volume.files, plan.fsGroup);
      return dir;
    }
    case "hostPath":
      return hostPath(volume.name, volume.path, volume.type, folders.hidden);
  }
}

/** Anybody in the pod may write, as into an emptyDir of Kubernetes. Modes given to mkdir are cut by the umask. */
function openFolder(path: string): string {
  if (!existsSync(path)) {
    mkdirSync(path, { recursive: true });
    chmodSync(path, 0o777);
  }
  return path;
}

async function memoryFolder(path: string, sizeLimitBytes: number | null): Promise<string> {
  mkdirSync(path, { recursive: true });
  if (statSync(path).dev !== statSync(dirname(path)).dev) return path;
  const size = sizeLimitBytes === null ? [] : [`size=${sizeLimitBytes}`];
  await mustRun("mount", [
    "-t",
    "tmpfs",
    "-o",
    ["mode=1777", "nosuid", "nodev", ...size].join(","),
    "tmpfs",
    path,
  ]);
  return path;
}

function hostPath(name: string, path: string, type: string, hidden: readonly string[]): string {
  const wrong = (why: string): Error => new Error(`volume ${name}: hostPath ${path} ${why}`);
  if (!existsSync(path)) {
    if (type === "DirectoryOrCreate") mkdirSync(path, { recursive: true, mode: 0o755 });
    else if (type === "FileOrCreate") writeFileSync(path, "", { mode: 0o644 });
    else
      throw wrong(
        `does not exist on this machine${type === "" ? "" : ` (type ${type})`}: make it, or use a type that ends in OrCreate`,
      );
  }
  const real = realpathSync(path);
  if (isBelow(real, [...hidden, "/sys/fs", "/proc"]))
    throw wrong("belongs to the mesh or the kernel and is not given to containers");
  const stat = statSync(real);
  const fits =
    (type.startsWith("Directory") && stat.isDirectory()) ||
    (type.startsWith("File") && stat.isFile()) ||
    (type === "Socket" && stat.isSocket()) ||
    (type === "CharDevice" && stat.isCharacterDevice()) ||
    (type === "BlockDevice" && stat.isBlockDevice()) ||
    type === "";
  if (!fits) throw wrong(`is no ${type}`);
  return real;
}

/** fsGroup: the volume's folder belongs to the group, and what is made in it too. */
function giveToGroup(path: string, gid: number): void {
  const stat = statSync(path);
  if (stat.gid === gid) return;
  giveTo(path, stat.uid, gid);
  chmodSync(path, (stat.mode & 0o7777) | 0o2770);
}

type PlannedFile = Extract<VolumePlan, { kind: "files" }>["files"][number];

/**
 * The way the kubelet writes ConfigMaps and Secrets: all files in a folder of their own, a link `..data` to it that is
 * replaced in one step, and for each top name a link through `..data`. A reader never sees half of a change.
 */
export function writeFiles(dir: string, files: readonly PlannedFile[], fsGroup: number | null): void {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  chmodSync(dir, 0o755);
  const version = `..v${digest(files)}`;
  const dataLink = join(dir, "..data");
  const current = linkTarget(dataLink);
  if (current === version) return;
  const fresh = join(dir, version);
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { mode: 0o755 });
  for (const file of files) {
    if (file.path.split("/").includes("..")) throw new Error(`file "${file.path}" leads out of its volume`);
    const path = join(fresh, file.path);
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    writeFileSync(path, Buffer.from(file.base64, "base64"));
    chmodSync(path, fsGroup === null ? file.mode : file.mode | 0o440);
    if (fsGroup !== null) giveTo(path, 0, fsGroup);
  }
  const next = join(dir, "..data.new");
  rmSync(next, { force: true });
  symlinkSync(version, next);
  renameSync(next, dataLink);
  const names = new Set(files.map((file) => file.path.split("/")[0] as string));
  for (const name of names) {
    if (linkTarget(join(dir, name)) === null) symlinkSync(join("..data", name), join(dir, name));
  }
  for (const name of readdirSync(dir)) {
    if (name === "..data" || name === version || names.has(name)) continue;
    rmSync(join(dir, name), { recursive: true, force: true });
  }
}

function linkTarget(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}

function digest(files: readonly PlannedFile[]): string {
  return createHash("sha256").update(JSON.stringify(files)).digest("hex").slice(0, 16);
}
