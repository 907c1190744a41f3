import { statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { PodPlan } from "#/model/pod-plan.ts";
import { ensureDir, giveTo } from "../files.ts";
import { mustRun } from "../run-command.ts";
import type { SandboxBind } from "./sandbox.ts";
import type { Users } from "./users.ts";

/**
 * Where a pod's programs find the SPIFFE Workload API. The agent makes an empty folder for each pod that asks; what is served in it is
 * the sidecar's business, and no key comes by here.
 */
const SHOWN_FOLDER = "/run/spiffe";
const FOLDER_BYTES = 4096;
const SHOWN_SOCKET = `${SHOWN_FOLDER}/agent.sock`;

export function asksForWorkloadApi(plan: PodPlan): boolean {
  // A pod that an earlier version has started does not say.
  return plan.sidecar?.workloadApi === true;
}

/**
 * The folder on the machine, among the pod's volumes in memory, which nobody but root may enter and which are unmounted with the pod. It is
 * a file system of its own that has room for a socket and no more: the sidecar could else fill the machine's. Repeating it does nothing.
 */
export async function makeWorkloadApiFolder(podRunDir: string, sidecarUid: number): Promise<void> {
  const folder = workloadApiFolder(podRunDir);
  ensureDir(folder);
  if (statSync(folder).dev !== statSync(dirname(folder)).dev) return;
  const options = ["mode=0755", `size=${FOLDER_BYTES}`, "nr_inodes=8", "nosuid", "nodev", "noexec"];
  await mustRun("mount", ["-t", "tmpfs", "-o", options.join(","), "tmpfs", folder]);
  giveTo(folder, sidecarUid, sidecarUid);
}

/** To the sidecar to write, to containers to read: also root in a container cannot put another socket there. */
export function workloadApiBind(podRunDir: string, isSidecar: boolean): SandboxBind {
  return { source: workloadApiFolder(podRunDir), target: SHOWN_FOLDER, readOnly: !isSidecar };
}

/** Workload Endpoint §4.1: where a client looks unless it is told otherwise. */
export const WORKLOAD_API_VARIABLE: readonly [name: string, value: string] = [
  "SPIFFE_ENDPOINT_SOCKET",
  `unix://${SHOWN_SOCKET}`,
];

/** Whom the sidecar serves: the users that the pod's containers run as. Where there is but one for all, that one. */
export function workloadApiSettings(plan: PodPlan, users: Users): Record<string, string> {
  const containers = [...plan.initContainers, ...plan.containers];
  const uids = users.isOneForAll ? [0] : containers.map(({ runAsUser }) => runAsUser ?? 0);
  return {
    PILLION_WORKLOAD_API_SOCKET: SHOWN_SOCKET,
    PILLION_WORKLOAD_API_UIDS: [...new Set(uids)].join(","),
  };
}

function workloadApiFolder(podRunDir: string): string {
  // No volume can be called so: their names are DNS labels.
  return join(podRunDir, "volumes", ".workload-api");
}
