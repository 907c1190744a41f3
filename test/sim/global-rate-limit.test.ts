import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { SeededRandom, type Random } from "#/base/random.ts";
import { VirtualClock } from "#/base/virtual-clock.ts";
import type { RateLimit } from "#/model/traffic.ts";
import { SILENT } from "#/net/log.ts";
import { WorkloadLimits } from "#/proxy/inbound/limits.ts";
import type { InboundPort } from "#/stack/discovery.ts";
import { SPENT, UNHEARD, type HttpService, type RequestHead } from "#/stack/http/exchange.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { ALLOW_ALL, SimControl, SimMember } from "./sim-mesh.ts";

const SEEDS = Number(process.env["SIM_SEEDS"] ?? 5);
const FIRST_SEED = Number(process.env["SIM_SEED"] ?? 1);
const PODS = 10;
const PER_SECOND = 200;
const BURST = 20;
const PORT = 80;
const WINDOW_MS = 10_000;
const SOURCE = { group: "", kind: "RateLimitPolicy", namespace: "", name: "all", section: "", port: 0 };
const HEAD: RequestHead = {
  method: "GET",
  scheme: "http",
  authority: "web",
  path: "/",
  version: "2",
  absoluteForm: false,
  upgrade: null,
  fields: [],
};

function limitOf(over: Partial<RateLimit> = {}): RateLimit {
  const key = { kind: "total" } as const;
  return {
    source: SOURCE,
    matches: [],
    key,
    requests: PER_SECOND,
    windowMs: 1_000,
    burst: BURST,
    scope: "global",
    ...over,
  };
}

/** The inbound limits of ten sidecars and their control plane on virtual time, under load that comes by chance. */
class World {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly control: SimControl;
  /** When each request was admitted, and where. */
  readonly admitted: { readonly atMs: number; readonly pod: number; readonly client: string }[] = [];
  readonly offered: number[] = Array.from({ length: PODS }, () => 0);
  readonly #limits: { readonly limits: WorkloadLimits; readonly port: InboundPort }[];

  constructor(seed: number, limit: RateLimit = limitOf()) {
    this.random = new SeededRandom(seed);
    this.control = new SimControl(this.clock, this.random);
    this.control.replicas = PODS;
    const policy = { ...ALLOW_ALL, limits: { exempt: [], rates: [limit], concurrency: null } };
    this.control.port(PORT, policy);
    this.#limits = Array.from({ length: PODS }, (_, pod) => ({
      limits: new WorkloadLimits({
        clock: this.clock,
        log: SILENT,
        registry: new Registry(),
        control: new SimMember(this.control, `web-${pod}`),
      }),
      port: { port: PORT, policy, subscribe: () => ({ cancel: () => undefined }) },
    }));
  }

  /** From now until `untilMs`, so many in a second to each pod. */
  load(untilMs: number, perSecond: (pod: number) => number, client = "web"): void {
    for (let pod = 0; pod < PODS; pod++) this.#arrive(pod, perSecond(pod), untilMs, client);
  }

  #arrive(pod: number, perSecond: number, untilMs: number, client: string): void {
    if (perSecond === 0) return;
    this.clock.after((-Math.log(1 - this.random.next()) * 1_000) / perSecond, () => {
      if (this.clock.nowMs() >= untilMs) return;
      this.#arrive(pod, perSecond, untilMs, client);
      this.offered[pod]!++;
      const application: HttpService = {
        call: () => {
          this.admitted.push({ atMs: this.clock.nowMs(), pod, client });
          return SPENT;
        },
      };
      const { limits, port } = this.#limits[pod]!;
      limits.of(port)!.call(application, client, HEAD, true, UNHEARD);
    });
  }

  between(fromMs: number, toMs: number, pod: number | null = null): number {
    return this.admitted.filter(
      (one) => one.atMs >= fromMs && one.atMs < toMs && (pod === null || one.pod === pod),
    ).length;
  }

  /** Largest and smallest count in any window of ten seconds that begins at a request or a whole tenth of a second. */
  windows(fromMs: number, toMs: number): { least: number; most: number } {
    let least = Infinity;
    let most = 0;
    const times = this.admitted.map(({ atMs }) => atMs);
    for (let startMs = fromMs; startMs + WINDOW_MS <= toMs; startMs += 100) {
      const count = times.filter((atMs) => atMs >= startMs && atMs < startMs + WINDOW_MS).length;
      least = Math.min(least, count);
      most = Math.max(most, count);
    }
    for (let from = 0, to = 0; from < times.length; from++) {
      if (times[from]! < fromMs) continue;
      while (to < times.length && times[to]! < times[from]! + WINDOW_MS) to++;
      if (times[from]! + WINDOW_MS <= toMs) most = Math.max(most, to - from);
    }
    return { least, most };
  }
}

function forSeeds(t: TestContext, scenario: (world: World) => string, limit?: RateLimit): void {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
    try {
      t.diagnostic(`seed ${seed}: ${scenario(new World(seed, limit))}`);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
}

/** One pod gets 60 %, the others share the rest. */
const skewed = (perSecond: number) => (pod: number) =>
  pod === 0 ? perSecond * 0.6 : (perSecond * 0.4) / (PODS - 1);
const inWindow = PER_SECOND * (WINDOW_MS / 1_000);

test("ten sidecars under skewed load admit the limit, within 5 % over every 10 s", (t) => {
  forSeeds(t, (world) => {
    world.load(60_000, skewed(400));
    world.clock.run(60_000);
    const { least, most } = world.windows(2_000, 60_000);
    const figures = `${least / 10} … ${most / 10} requests/s admitted of ${PER_SECOND} (${((least / inWindow - 1) * 100).toFixed(1)} % … +${((most / inWindow - 1) * 100).toFixed(1)} %), 400/s offered, 60 % to one pod`;
    assert.ok(least >= inWindow * 0.95 && most <= inWindow * 1.05, figures);
    return figures;
  });
});

test("all of the load at one pod gets all of the limit; and when it moves to another, that one has it within a second", (t) => {
  forSeeds(t, (world) => {
    world.load(20_000, (pod) => (pod === 0 ? 400 : 0));
    world.clock.run(20_000);
    world.load(40_000, (pod) => (pod === 7 ? 400 : 0));
    world.clock.run(20_000);
    const first = world.between(5_000, 15_000, 0);
    const moved = world.between(21_000, 31_000, 7);
    const figures = `${first / 10}/s at the first pod, ${moved / 10}/s at the other from 1 s after the move`;
    assert.ok(first >= inWindow * 0.95 && moved >= inWindow * 0.95, figures);
    return figures;
  });
});

test("load below the limit is admitted whole, however it is spread", (t) => {
  forSeeds(t, (world) => {
    world.load(30_000, skewed(120));
    world.clock.run(30_000);
    const offered = world.offered.reduce((a, b) => a + b, 0);
    const share = world.admitted.length / offered;
    assert.ok(share > 0.99, `${(share * 100).toFixed(2)} % of ${offered}`);
    return `${(share * 100).toFixed(2)} % of 120/s admitted, limit ${PER_SECOND}/s`;
  });
});

test("pods that want little get it beside one that wants everything", (t) => {
  forSeeds(t, (world) => {
    world.load(30_000, (pod) => (pod === 0 ? 2_000 : 10));
    world.clock.run(30_000);
    let least = 1;
    for (let pod = 1; pod < PODS; pod++)
      least = Math.min(least, world.between(5_000, 25_000, pod) / (20 * 10));
    const hot = world.between(5_000, 25_000, 0) / 20;
    assert.ok(least > 0.75 && hot > 0.9 * (PER_SECOND - 90), `${least}, ${hot}`);
    return `pods with 10/s get at least ${(least * 100).toFixed(0)} % of it, the one with 2,000/s gets ${hot.toFixed(0)}/s`;
  });
});

test("without the control plane each pod keeps to a tenth: never more than the limit and what was held, and nobody gets nothing", (t) => {
  forSeeds(t, (world) => {
    world.load(80_000, skewed(1_000));
    world.clock.run(20_000);
    world.control.setAway(true);
    world.clock.run(30_000);
    world.control.setAway(false);
    world.clock.run(30_000);
    const { most } = world.windows(2_000, 80_000);
    // A bucket of 0.4 s, and for each pod one request.
    const bound = inWindow + PER_SECOND * 0.4 + PODS;
    const away = world.between(22_000, 48_000) / 26;
    const hot = world.between(22_000, 48_000, 0) / 26;
    const back = world.between(55_000, 75_000) / 20;
    const figures = `${away.toFixed(1)}/s while it is away (${hot.toFixed(1)}/s at the pod with 60 %), at most ${most / 10}/s over any 10 s, ${back.toFixed(1)}/s once it is back`;
    assert.ok(most <= bound, figures);
    assert.ok(away <= PER_SECOND * 1.01 && away >= PER_SECOND * 0.95, figures);
    assert.ok(hot <= PER_SECOND / PODS + 1 && hot >= (PER_SECOND / PODS) * 0.9, figures);
    assert.ok(back >= PER_SECOND * 0.95, figures);
    return figures;
  });
});

test("each client has the limit to itself, among all pods", (t) => {
  const limit = limitOf({ key: { kind: "identity" }, requests: 50, burst: 5 });
  forSeeds(
    t,
    (world) => {
      for (const client of ["a", "b", "c"]) world.load(30_000, skewed(150), client);
      world.clock.run(30_000);
      const rates = ["a", "b", "c"].map(
        (client) =>
          world.admitted.filter((one) => one.client === client && one.atMs >= 5_000 && one.atMs < 25_000)
            .length / 20,
      );
      for (const rate of rates) assert.ok(Math.abs(rate - 50) <= 2.5, rates.join());
      return `${rates.join(", ")}/s of 50/s each`;
    },
    limit,
  );
});

test("a limit of few requests in a minute is kept among all pods, to the request", (t) => {
  const limit = limitOf({ requests: 12, windowMs: 60_000, burst: 3 });
  forSeeds(
    t,
    (world) => {
      world.load(300_000, () => 1);
      world.clock.run(300_000);
      const count = world.admitted.length;
      assert.ok(count <= 3 + 60 && count >= 55, String(count));
      return `${count} admitted in 5 minutes, of at most 63`;
    },
    limit,
  );
});
