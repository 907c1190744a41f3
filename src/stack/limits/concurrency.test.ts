import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Random } from "#/base/random.ts";
import { SeededRandom } from "#/base/random.ts";
import { VirtualClock } from "#/base/virtual-clock.ts";
import { ConcurrencyLimiter, type Priority } from "./concurrency.ts";

const SOURCE = { group: "", kind: "RateLimitPolicy", namespace: "", name: "all", section: "", port: 0 };
const SETTINGS = { source: SOURCE, limitMin: 1, limitMax: 500, priorityHeader: "" };

interface Outcome {
  readonly offered: number;
  readonly shed: number;
  /** Of what was answered, rising. */
  readonly latenciesMs: readonly number[];
}

interface Load {
  readonly perSecond: number;
  readonly priority: () => Priority;
}

/** An application of so many workers with a queue before them, and requests that come by chance. */
class World {
  readonly clock = new VirtualClock();
  readonly random: Random;
  /** Null: everything is let in. */
  readonly limiter: ConcurrencyLimiter | null;
  workers: number;
  serviceMs: number;
  #busy = 0;
  readonly #queue: (() => void)[] = [];

  constructor(isLimited: boolean, workers: number, serviceMs: number, seed = 1) {
    this.random = new SeededRandom(seed);
    this.limiter = isLimited ? new ConcurrencyLimiter(SETTINGS, 0) : null;
    this.workers = workers;
    this.serviceMs = serviceMs;
  }

  run(seconds: number, { perSecond, priority }: Load): Map<Priority, Outcome> {
    const by = new Map<Priority, { offered: number; shed: number; latenciesMs: number[] }>();
    const endMs = this.clock.nowMs() + seconds * 1_000;
    const arrive = (): void => {
      this.clock.after((-Math.log(1 - this.random.next()) * 1_000) / perSecond, () => {
        if (this.clock.nowMs() >= endMs) return;
        arrive();
        const whose = priority();
        const outcome = by.get(whose) ?? { offered: 0, shed: 0, latenciesMs: [] };
        by.set(whose, outcome);
        outcome.offered++;
        if (this.limiter?.begin(whose) === false) {
          outcome.shed++;
          return;
        }
        const startedAtMs = this.clock.nowMs();
        this.#serve(() => {
          const latencyMs = this.clock.nowMs() - startedAtMs;
          if (this.clock.nowMs() < endMs) outcome.latenciesMs.push(latencyMs);
          this.limiter?.observe(latencyMs, this.clock.nowMs());
          this.limiter?.over();
        });
      });
    };
    arrive();
    this.clock.run(seconds * 1_000);
    for (const { latenciesMs } of by.values()) latenciesMs.sort((a, b) => a - b);
    return by;
  }

  #serve(done: () => void): void {
    if (this.#busy >= this.workers) {
      this.#queue.push(() => this.#serve(done));
      return;
    }
    this.#busy++;
    this.clock.after(this.serviceMs * (0.8 + 0.4 * this.random.next()), () => {
      this.#busy--;
      done();
      this.#queue.shift()?.();
    });
  }
}

const normal = (): Priority => "normal";

function figures(
  outcome: Outcome | undefined,
  seconds: number,
): { perSecond: number; p50: number; p99: number } {
  const { latenciesMs } = outcome!;
  const at = (share: number): number => latenciesMs[Math.floor(latenciesMs.length * share)] as number;
  return { perSecond: latenciesMs.length / seconds, p50: at(0.5), p99: at(0.99) };
}

test("under three times its capacity an application goes on answering, nearly as much as it can and quickly; without the limiter it drowns", () => {
  const load = { perSecond: 3_000, priority: normal };
  // 10 workers of 10 ms: 1,000 requests in a second.
  for (const seed of [1, 2, 3, 4, 5]) {
    const limited = new World(true, 10, 10, seed);
    limited.run(10, load);
    const { perSecond, p50, p99 } = figures(limited.run(20, load).get("normal"), 20);
    assert.ok(perSecond > 950, `seed ${seed}: ${perSecond}/s`);
    assert.ok(p50 < 25 && p99 < 40, `seed ${seed}: p50 ${p50} ms, p99 ${p99} ms`);
  }
  const without = new World(false, 10, 10);
  assert.ok(figures(without.run(6, load).get("normal"), 6).p50 > 1_000);
});

test("below its capacity nothing is shed, once the limit is known", () => {
  const world = new World(true, 10, 10);
  world.run(10, { perSecond: 700, priority: normal });
  const { shed, offered } = world.run(60, { perSecond: 700, priority: normal }).get("normal")!;
  assert.ok(shed / offered < 0.01, `${shed} of ${offered}`);
});

test("the limit follows when the application becomes slower, and when it becomes faster again", () => {
  const load = { perSecond: 3_000, priority: normal };
  const world = new World(true, 20, 10);
  world.run(20, load);
  const before = world.limiter!.limit;
  world.workers = 5;
  world.run(20, load);
  const slow = world.limiter!.limit;
  assert.ok(slow < before * 0.6, `${before} → ${slow}`);
  world.workers = 20;
  world.run(40, load);
  assert.ok(world.limiter!.limit > slow * 1.5, `${slow} → ${world.limiter!.limit}`);
});

test("an application whose every answer has become slower for good is not throttled for ever", () => {
  const world = new World(true, 20, 5);
  world.run(20, { perSecond: 2_000, priority: normal });
  world.serviceMs = 50;
  world.run(90, { perSecond: 300, priority: normal });
  const { shed, offered } = world.run(30, { perSecond: 300, priority: normal }).get("normal")!;
  assert.ok(shed / offered < 0.05, `${shed} of ${offered} (limit ${world.limiter!.limit})`);
});

test("in an overload requests of high priority pass before normal ones, and those before low ones", () => {
  const world = new World(true, 10, 10);
  const priority = (): Priority => (["high", "normal", "low"] as const)[Math.floor(world.random.next() * 3)]!;
  world.run(10, { perSecond: 1_500, priority });
  const by = world.run(30, { perSecond: 1_500, priority });
  const share = (whose: Priority): number => by.get(whose)!.shed / by.get(whose)!.offered;
  assert.ok(share("high") < 0.05, `high: ${share("high")}`);
  assert.ok(share("high") < share("normal") && share("normal") < share("low"));
  assert.ok(share("low") > 0.5, `low: ${share("low")}`);
});

test("whatever latencies are, the limit stays in its bounds and one request may always be under way", () => {
  const latencies = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { maxLength: 500 });
  const bounds = fc.tuple(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 0, max: 100 }));
  fc.assert(
    fc.property(latencies, bounds, (all, [limitMin, more]) => {
      const limiter = new ConcurrencyLimiter({ ...SETTINGS, limitMin, limitMax: limitMin + more }, 0);
      let nowMs = 0;
      for (const latencyMs of all) {
        assert.ok(limiter.begin("low"));
        nowMs += 20;
        limiter.observe(latencyMs, nowMs);
        limiter.over();
        assert.ok(limiter.limit >= limitMin && limiter.limit <= limitMin + more);
      }
      assert.equal(limiter.underWay, 0);
    }),
    { numRuns: 200 },
  );
});
