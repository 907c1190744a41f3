import { startFailures } from "./failures.ts";
import { startLoads } from "./load.ts";
import type { WorldPlan } from "./plan.ts";
import { World } from "./world.ts";

/** Makes the world of a plan and plays it to its end. `watch` may look on from before the first event. */
export function simulate(plan: WorldPlan, watch: (world: World) => void = () => undefined): World {
  const world = new World(plan);
  watch(world);
  startLoads(world);
  startFailures(world);
  world.run();
  return world;
}
