import type { DaemonSetObject } from "#/kube/objects.ts";
import { hasFinished, isAvailable, nextAvailableAtMs } from "./decision.ts";
import type { Decision, NewPod, OwnedPod, Situation } from "./decision.ts";

/** A DaemonSet's next step: one pod, as there is one machine. With maxSurge the new one is ready before the old goes. */
export function decideDaemonSet(object: DaemonSetObject, now: Situation): Decision {
  const { spec } = object;
  const minReady = spec.minReadySeconds ?? 0;
  const pods = now.pods.filter((pod) => !hasFinished(pod));
  const remove: OwnedPod[] = now.pods.filter(hasFinished);
  const fresh = pods.filter((pod) => pod.hash === now.hash);
  const old = pods.filter((pod) => pod.hash !== now.hash);
  const surge = spec.updateStrategy?.rollingUpdate?.maxSurge ?? 0;
  const surges = surge !== 0 && surge !== "0%";
  const rolls = spec.updateStrategy?.type !== "OnDelete";
  const create: NewPod[] = [];
  const make = (): void => void create.push({ name: now.nextName(now.hash), hash: now.hash, ordinal: null });
  const freshIsAvailable = fresh.some((pod) => isAvailable(pod, minReady, now.nowMs));
  if (pods.length === 0) {
    if (now.leaving.length === 0) make();
  } else if (old.length > 0 && rolls) {
    if (!surges) remove.push(...old);
    else if (fresh.length === 0) make();
    else if (freshIsAvailable) remove.push(...old);
  }
  remove.push(...fresh.slice(1));
  const ok = old.length === 0 || !rolls ? pods.some((pod) => isAvailable(pod, minReady, now.nowMs)) : false;
  return {
    create,
    remove: remove.map((pod) => pod.uid),
    summary: old.length > 0 && rolls ? `rolling ${freshIsAvailable ? 1 : 0}/1` : `${ok ? 1 : 0}/1 ready`,
    ok,
    wakeAtMs: nextAvailableAtMs(pods, minReady, now.nowMs),
  };
}
