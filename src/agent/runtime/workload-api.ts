import { chmodSync } from "node:fs";
import { join } from "node:path";
import type { PodPlan } from "#/model/pod-plan.ts";
import { ensureDir, giveTo } from "../files.ts";
import type { SandboxBind } from "./sandbox.ts";
import type { Users } from "./users.ts";

/**
 * Where a pod's programs find the SPIFFE Workload API. The agent makes an empty folder for each pod that asks; what is served in it is
 * the sidecar's business, and no key comes by here.
 */
const SHOWN_FOLDER = "/run/spiffe";
const SHOWN_SOCKET = `${SHOWN_FOLDER}/agent.sock`;

export function asksForWorkloadApi(plan: PodPlan): boolean {
  // A pod that an earlier version has started does not say.
  return plan.sidecar?.workloadApi === true;
}

/** The folder on the machine, below the pod's own of the run folder, which nobody but root may enter. */
export function makeWorkloadApiFolder(podRunDir: string, sidecarUid: number): void {
  const folder = workloadApiFolder(podRunDir);
  ensureDir(folder);
  chmodSync(folder, 0o755);
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
  return join(podRunDir, "workload-api");
}
