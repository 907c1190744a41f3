/** Which program goes where: the list of hooks, and the cgroup or network namespace of a pod that each is attached to. */
import { closeSync, openSync, statSync } from "node:fs";
import { join } from "node:path";
import { InterceptionError } from "../errors.ts";
import type { PodInterception } from "../pod.ts";

const OBJECTS = join(import.meta.dirname, "../../../bpf/out");

/**
 * One object file each, in the order of attachment. The sidecar's side comes first and the application's last, so that
 * nothing is sent to the sidecar before it can know what it was meant for.
 */
export const HOOKS = [
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

export type Hook = (typeof HOOKS)[number];

/** A pod without a sidecar has no sidecar's cgroup to attach to. */
export function hooksOf(pod: PodInterception): readonly Hook[] {
  return pod.sidecarCgroup === "" ? HOOKS.filter((hook) => hook.on !== "sidecar") : HOOKS;
}

export function objectFile(hook: Hook): string {
  return join(OBJECTS, `${hook.name}.bpf.o`);
}

export function targetKind(hook: Hook): "cgroup" | "netns" {
  return hook.on === "netns" ? "netns" : "cgroup";
}

/** What the kernel calls the target's id: its inode number. Null when it does not exist. */
export function targetInode(pod: PodInterception, hook: Hook): bigint | null {
  return statSync(targetPath(pod, hook), { bigint: true, throwIfNoEntry: false })?.ino ?? null;
}

/** Opens the hook's cgroup or network namespace for as long as `use` takes. */
export function withTarget(pod: PodInterception, hook: Hook, use: (fd: number) => void): void {
  const path = targetPath(pod, hook);
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (cause) {
    const message = `cannot open ${path}: check that the pod's cgroup and network namespace exist`;
    throw new InterceptionError("ATTACH_FAILED", message, { cause });
  }
  try {
    use(fd);
  } finally {
    closeSync(fd);
  }
}

function targetPath(pod: PodInterception, hook: Hook): string {
  switch (hook.on) {
    case "app":
      return pod.appCgroup;
    case "sidecar":
      return pod.sidecarCgroup;
    case "netns":
      return pod.netnsPath;
  }
}
