import type { StatefulSetObject } from "#/kube/objects.ts";
import { hasFinished, isAvailable, nextAvailableAtMs } from "./decision.ts";
import type { Decision, NewPod, OwnedPod, Situation } from "./decision.ts";

/**
 * A StatefulSet's next step. Pods have fixed names and places; a place is free again only when its pod is gone. Ordered:
 * pods are made from the first up, each after the one before is ready, and let go from the last down. Updates go from the
 * last place down to `partition`, one pod at a time.
 */
export function decideStatefulSet(object: StatefulSetObject, now: Situation): Decision {
  const { spec } = object;
  const name = object.metadata.name;
  const replicas = spec.replicas ?? 1;
  const start = spec.ordinals?.start ?? 0;
  const minReady = spec.minReadySeconds ?? 0;
  const isOrdered = spec.podManagementPolicy !== "Parallel";
  const rolls = spec.updateStrategy?.type !== "OnDelete";
  const partition = spec.updateStrategy?.rollingUpdate?.partition ?? 0;
  const byPlace = new Map(now.pods.map((pod) => [pod.ordinal ?? -1, pod]));
  const taken = new Set(now.leaving.map((pod) => pod.name));
  const isWanted = (place: number): boolean => place >= start && place < start + replicas;
  const isFine = (pod: OwnedPod | undefined): pod is OwnedPod =>
    pod !== undefined && isAvailable(pod, minReady, now.nowMs);

  const create: NewPod[] = [];
  const remove = now.pods.filter(hasFinished);
  const removed = new Set(remove);
  const letGo = (pod: OwnedPod): void => {
    removed.add(pod);
    remove.push(pod);
  };
  // Below the partition the old template stays, also for a pod that must be made again.
  const oldHash = now.pods.find((pod) => pod.hash !== now.hash)?.hash ?? now.hash;

  let isBlocked = removed.size > 0 && isOrdered;
  for (let place = start; place < start + replicas && !isBlocked; place++) {
    const pod = byPlace.get(place);
    if (pod !== undefined && !removed.has(pod)) {
      if (isOrdered && !isFine(pod)) isBlocked = true;
      continue;
    }
    const podName = `${name}-${place}`;
    if (pod === undefined && !taken.has(podName))
      create.push({ name: podName, hash: place < partition ? oldHash : now.hash, ordinal: place });
    if (isOrdered) isBlocked = true;
  }
  const surplus = now.pods
    .filter((pod) => !isWanted(pod.ordinal ?? -1) && !removed.has(pod))
    .toSorted((a, b) => (b.ordinal ?? 0) - (a.ordinal ?? 0));
  if (!isOrdered) surplus.forEach(letGo);
  // Ordered scale-down waits for the pods that stay and for the one before to be gone.
  else if (surplus.length > 0 && now.leaving.length === 0 && !isBlocked) letGo(surplus[0]!);

  if (rolls && surplus.length === 0) {
    for (let place = start + replicas - 1; place >= Math.max(start, partition); place--) {
      const pod = byPlace.get(place);
      if (pod === undefined || removed.has(pod)) break;
      if (pod.hash !== now.hash) {
        if (now.leaving.length === 0) letGo(pod);
        break;
      }
      if (!isFine(pod)) break;
    }
    // A place whose old pod never becomes ready would hold up its own repair: it is replaced out of turn.
    if (remove.length === 0 && now.leaving.length === 0) {
      const stuck = now.pods.find(
        (pod) => pod.hash !== now.hash && (pod.ordinal ?? 0) >= partition && !pod.ready && pod.restarts > 0,
      );
      if (stuck !== undefined) letGo(stuck);
    }
  }
  const kept = now.pods.filter((pod) => !removed.has(pod) && isWanted(pod.ordinal ?? -1));
  const ready = kept.filter((pod) => isFine(pod)).length;
  const updated = kept.filter((pod) => pod.hash === now.hash).length;
  const isRolling = rolls && kept.some((pod) => pod.hash !== now.hash && (pod.ordinal ?? 0) >= partition);
  return {
    create,
    remove: remove.map((pod) => pod.uid),
    summary: isRolling ? `rolling ${updated}/${replicas}, ${ready} ready` : `${ready}/${replicas} ready`,
    ok: !isRolling && ready === replicas && surplus.length === 0,
    wakeAtMs: nextAvailableAtMs(now.pods, minReady, now.nowMs),
  };
}
