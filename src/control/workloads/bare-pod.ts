import type { PodObject } from "#/kube/objects.ts";
import { hasFinished } from "./decision.ts";
import type { Decision, Situation } from "./decision.ts";

/** A Pod of its own. A changed one is made anew under the same name, once the old one is gone. */
export function decideBarePod(object: PodObject, now: Situation): Decision {
  const current = now.pods.find((pod) => pod.hash === now.hash);
  const name = object.metadata.name;
  const mayCreate = now.pods.length === 0 && !now.leaving.some((pod) => pod.name === name);
  const phase = current === undefined ? "Pending" : current.phase;
  return {
    create: mayCreate ? [{ name, hash: now.hash, ordinal: null }] : [],
    remove: now.pods.filter((pod) => pod !== current).map((pod) => pod.uid),
    summary:
      current === undefined
        ? "starting"
        : hasFinished(current)
          ? phase.toLowerCase()
          : `${current.ready ? 1 : 0}/1 ready`,
    ok: current !== undefined && (current.ready || current.phase === "Succeeded"),
    wakeAtMs: null,
  };
}
