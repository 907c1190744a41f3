import type { Condition } from "./application.ts";
import { WELL } from "./application.ts";
import type { FailureKind, FailurePlan } from "./plan.ts";
import type { SimPod, World } from "./world.ts";

/** Sets the clock for all failures of the plan, and for their ends. */
export function startFailures(world: World): void {
  for (const plan of world.plan.failures) {
    world.clock.after(plan.atMs, () => apply(world, plan));
  }
}

function apply(world: World, { forMs, what }: FailurePlan): void {
  const { clock } = world;
  const pods = podsOf(world, what);
  world.observer?.noted(`failure: ${JSON.stringify(what)}`);
  clock.after(forMs, () => world.observer?.noted(`over: ${JSON.stringify(what)}`));
  if (what.kind === "death" || what.kind === "zone") {
    for (const pod of pods) {
      pod.lose(what.kind === "death" ? "dead" : "silent");
      tell(world, pod, false);
    }
    clock.after(forMs, () => {
      for (const pod of pods) {
        pod.comeBack();
        tell(world, pod, true);
      }
    });
    return;
  }
  const condition: Condition =
    what.kind === "slow"
      ? { ...WELL, slowFactor: what.factor }
      : what.kind === "errors"
        ? { ...WELL, errorRate: what.rate }
        : { ...WELL, capacityShare: what.share };
  for (const pod of pods) pod.setCondition(condition);
  clock.after(forMs, () => {
    for (const pod of pods) pod.setCondition(WELL);
  });
}

/** Discovery learns of it some time later, if it is still so. */
function tell(world: World, pod: SimPod, isReady: boolean): void {
  world.clock.after(world.plan.network.discoveryMs, () => {
    if ((pod.reach === "up") !== isReady) return;
    for (const service of world.services.values()) service.setReady(pod, isReady);
  });
}

function podsOf(world: World, what: FailureKind): SimPod[] {
  if (what.kind === "zone") return [...world.pods].filter((pod) => pod.plan.zone === what.zone);
  return world.workloads.get(what.workload)!.pods.slice(0, what.pods);
}
