import type { PodStatus } from "#/model/pod-plan.ts";

/** A pod that a workload has, as its controller sees it. */
export interface OwnedPod {
  readonly uid: string;
  readonly name: string;
  readonly hash: string;
  /** Index in a StatefulSet; null elsewhere. */
  readonly ordinal: number | null;
  /** Order of creation inside the workload. */
  readonly serial: number;
  readonly phase: PodStatus["phase"];
  readonly ready: boolean;
  /** Since when it has been ready without a break; null when it is not. */
  readonly readySinceMs: number | null;
  /** When it was first seen failed or succeeded; null while it runs. */
  readonly finishedAtMs: number | null;
  readonly restarts: number;
}

/** A pod to make. */
export interface NewPod {
  readonly name: string;
  readonly hash: string;
  readonly ordinal: number | null;
}

/** What a controller wants changed, and what it says of itself. */
export interface Decision {
  readonly create: readonly NewPod[];
  /** Uids. */
  readonly remove: readonly string[];
  /** "3/3 ready", "rolling 2/5", … */
  readonly summary: string;
  readonly ok: boolean;
  /** Decide again at this time even when nothing happens. */
  readonly wakeAtMs: number | null;
}

/** What every controller decides from. */
export interface Situation {
  readonly nowMs: number;
  /** Hash of the template as it stands in the folder. */
  readonly hash: string;
  /** Pods that are wanted so far. */
  readonly pods: readonly OwnedPod[];
  /** Pods that were let go and that the agent still has. Their names are taken until they are gone. */
  readonly leaving: readonly OwnedPod[];
  /** Makes names for pods that have no fixed one; each call gives another. */
  readonly nextName: (hash: string) => string;
}

/** Ready for at least `minReadySeconds`. */
export function isAvailable(pod: OwnedPod, minReadySeconds: number, nowMs: number): boolean {
  return pod.readySinceMs !== null && nowMs - pod.readySinceMs >= minReadySeconds * 1000;
}

/** When the next ready pod becomes available, if any is waiting for that. */
export function nextAvailableAtMs(
  pods: readonly OwnedPod[],
  minReadySeconds: number,
  nowMs: number,
): number | null {
  let at: number | null = null;
  for (const pod of pods) {
    if (pod.readySinceMs === null) continue;
    const due = pod.readySinceMs + minReadySeconds * 1000;
    if (due > nowMs && (at === null || due < at)) at = due;
  }
  return at;
}

/** Which pods to do without first: those that are not ready, then the youngest. */
export function expendableFirst(pods: readonly OwnedPod[]): OwnedPod[] {
  return pods.toSorted(
    (a, b) => Number(a.ready) - Number(b.ready) || b.restarts - a.restarts || b.serial - a.serial,
  );
}

export function hasFinished(pod: OwnedPod): boolean {
  return pod.phase === "Succeeded" || pod.phase === "Failed";
}

/** "25%" of `total`, or a number of pods. Kubernetes rounds surge up and unavailability down. */
export function resolveCount(value: number | string, total: number, round: "up" | "down"): number {
  if (typeof value === "number") return value;
  const share = (Number.parseInt(value, 10) * total) / 100;
  return round === "up" ? Math.ceil(share) : Math.floor(share);
}
