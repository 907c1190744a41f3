import type { DeploymentObject } from "#/kube/objects.ts";
import { expendableFirst, hasFinished, isAvailable, nextAvailableAtMs, resolveCount } from "./decision.ts";
import type { Decision, NewPod, OwnedPod, Situation } from "./decision.ts";

/**
 * A Deployment's next step. Rolling: never more than replicas + maxSurge pods, never fewer than replicas −
 * maxUnavailable available ones; an old pod goes only for what is available already. Recreate: all old pods are gone
 * before the first new one is made.
 */
export function decideDeployment(object: DeploymentObject, now: Situation): Decision {
  const { spec } = object;
  const replicas = spec.replicas ?? 1;
  const minReady = spec.minReadySeconds ?? 0;
  // A pod of a Deployment never ends by itself; one that did is replaced.
  const finished = now.pods.filter(hasFinished);
  const pods = now.pods.filter((pod) => !hasFinished(pod));
  // Paused: what runs is scaled, the new template waits.
  const hash = spec.paused === true && pods.length > 0 ? newest(pods).hash : now.hash;
  const fresh = pods.filter((pod) => pod.hash === hash);
  const old = pods.filter((pod) => pod.hash !== hash);
  const available = (some: readonly OwnedPod[]): number =>
    some.filter((pod) => isAvailable(pod, minReady, now.nowMs)).length;
  const step = spec.strategy?.type === "Recreate" ? recreate() : roll();
  const wanted = fresh.length + step.create.length;
  const freshAvailable = available(fresh);
  const isRolling = old.length > 0 || wanted !== replicas;
  return {
    create: step.create,
    remove: [...finished.map((pod) => pod.uid), ...step.remove.map((pod) => pod.uid)],
    summary: `${isRolling && (old.length > 0 || now.leaving.length > 0) ? `rolling ${freshAvailable}/${replicas}, ${old.length} old` : `${freshAvailable}/${replicas} ready`}${spec.paused === true ? ", paused" : ""}`,
    ok: old.length === 0 && freshAvailable === replicas,
    wakeAtMs: nextAvailableAtMs(pods, minReady, now.nowMs),
  };

  function create(count: number): NewPod[] {
    return Array.from({ length: Math.max(0, count) }, () => ({
      name: now.nextName(hash),
      hash,
      ordinal: null,
    }));
  }

  function recreate(): { create: NewPod[]; remove: OwnedPod[] } {
    if (old.length > 0) return { create: [], remove: old };
    if (now.leaving.some((pod) => pod.hash !== hash)) return { create: [], remove: [] };
    return {
      create: create(replicas - fresh.length),
      remove: expendableFirst(fresh).slice(0, Math.max(0, fresh.length - replicas)),
    };
  }

  function roll(): { create: NewPod[]; remove: OwnedPod[] } {
    const rolling = spec.strategy?.rollingUpdate;
    const surge = resolveCount(rolling?.maxSurge ?? "25%", replicas, "up");
    let unavailable = resolveCount(rolling?.maxUnavailable ?? "25%", replicas, "down");
    // Percentages may both round to nothing; one pod must be able to move.
    if (surge === 0 && unavailable === 0) unavailable = 1;
    const made = create(
      Math.min(replicas - fresh.length, old.length === 0 ? replicas : replicas + surge - pods.length),
    );
    const remove = expendableFirst(fresh).slice(0, Math.max(0, fresh.length - replicas));
    if (old.length > 0) {
      const minAvailable = Math.max(0, replicas - unavailable);
      const freshUnavailable =
        fresh.length - remove.length - available(fresh.filter((pod) => !remove.includes(pod)));
      let budget = pods.length - remove.length - minAvailable - freshUnavailable;
      // Old pods that are not available serve nobody: they go first, as far as the count allows.
      for (const pod of expendableFirst(old).filter((one) => !isAvailable(one, minReady, now.nowMs))) {
        if (budget <= 0) break;
        remove.push(pod);
        budget--;
      }
      let spare = available(pods.filter((pod) => !remove.includes(pod))) - minAvailable;
      for (const pod of expendableFirst(old).filter((one) => isAvailable(one, minReady, now.nowMs))) {
        if (spare <= 0) break;
        remove.push(pod);
        spare--;
      }
    }
    return { create: made, remove };
  }
}

function newest(pods: readonly OwnedPod[]): OwnedPod {
  return pods.reduce((best, pod) => (pod.serial > best.serial ? pod : best));
}
