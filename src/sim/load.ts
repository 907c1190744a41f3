import type { RequestHead } from "#/stack/http/exchange.ts";
import { drawExponential, drawMs } from "./latency.ts";
import type { LoadPlan } from "./plan.ts";
import type { SimPod, World } from "./world.ts";

/** Sets all load of the plan going. It ends by itself at the plan's end. */
export function startLoads(world: World): void {
  for (const plan of world.plan.loads) {
    const source = new LoadSource(world, plan);
    if (plan.kind === "open") source.startOpen(plan.steps);
    else for (let user = 0; user < plan.users; user++) source.startUser(plan);
  }
}

class LoadSource {
  readonly #world: World;
  readonly #plan: LoadPlan;
  readonly #pods: readonly SimPod[];
  /** One for each value of the key, or just the one. */
  readonly #heads: readonly RequestHead[];
  #turn = 0;

  constructor(world: World, plan: LoadPlan) {
    this.#world = world;
    this.#plan = plan;
    this.#pods = world.workloads.get(plan.from)!.pods;
    const { keys } = plan;
    const { head } = plan.call;
    this.#heads =
      keys === null
        ? [head]
        : Array.from({ length: keys.count }, (_, i) => ({
            ...head,
            fields: [...head.fields, keys.header, `key-${i}`],
          }));
  }

  /** A Poisson process whose rate changes, by thinning one of the highest rate (Lewis and Shedler 1979). */
  startOpen(steps: readonly { readonly atMs: number; readonly perSecond: number }[]): void {
    const { clock, random, plan } = this.#world;
    const highest = Math.max(...steps.map((step) => step.perSecond));
    if (highest <= 0) return;
    const next = (): void => {
      const afterMs = drawExponential(1_000 / highest, random);
      if (clock.nowMs() + afterMs >= plan.durationMs) return;
      clock.after(afterMs, () => {
        if (random.next() * highest < rateAt(steps, clock.nowMs()))
          this.#send(this.#plan.retriesMax, () => {});
        next();
      });
    };
    next();
  }

  startUser(plan: LoadPlan & { kind: "closed" }): void {
    const { clock, random } = this.#world;
    const think = (): void => {
      const afterMs = Math.max(THINK_MS_MIN, drawMs(plan.think, random));
      if (clock.nowMs() + afterMs >= this.#world.plan.durationMs) return;
      clock.after(afterMs, () => this.#send(plan.retriesMax, think));
    };
    think();
  }

  #send(retriesLeft: number, done: () => void): void {
    const { durationMs } = this.#world.plan;
    const pod = this.#nextPod();
    const isPast = this.#world.nowMs >= durationMs;
    if (pod === null || isPast) {
      done();
      return;
    }
    const heads = this.#heads;
    const head = heads[heads.length === 1 ? 0 : Math.floor(this.#world.random.next() * heads.length)]!;
    pod.call(this.#plan.call, head, (isGood) => {
      if (isGood || retriesLeft === 0) done();
      else this.#send(retriesLeft - 1, done);
    });
  }

  /** Turn by turn; null when all of them are gone. */
  #nextPod(): SimPod | null {
    for (let i = 0; i < this.#pods.length; i++) {
      const pod = this.#pods[this.#turn++ % this.#pods.length]!;
      if (pod.reach === "up") return pod;
    }
    return null;
  }
}

/** Requests a second at a time: between two steps it goes from one to the other in a straight line. */
export function rateAt(
  steps: readonly { readonly atMs: number; readonly perSecond: number }[],
  nowMs: number,
): number {
  let i = steps.length - 1;
  while (i > 0 && steps[i]!.atMs > nowMs) i--;
  const from = steps[i]!;
  const to = steps[i + 1];
  if (nowMs <= from.atMs || to === undefined || to.atMs <= from.atMs) return from.perSecond;
  const share = (nowMs - from.atMs) / (to.atMs - from.atMs);
  return from.perSecond + share * (to.perSecond - from.perSecond);
}

/** Who thinks for no time at all, and is refused at once, would never let time pass. */
const THINK_MS_MIN = 1;
