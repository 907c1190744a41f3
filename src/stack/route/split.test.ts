import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { drawBackend, sharesOf } from "./split.ts";
import { backendOf, balancerTo } from "./testing.ts";

const POINTS = 60;

test("the shares that are told are the shares that are drawn", () => {
  const backend = fc.record({
    weight: fc.integer({ min: 0, max: 3 }),
    state: fc.constantFrom("ready", "away", "invalid"),
  });
  fc.assert(
    fc.property(fc.constantFrom("first", "random"), fc.array(backend, { maxLength: 4 }), (choice, all) => {
      const backends = all.map(({ weight }, i) => backendOf(balancerTo(`b${i}`), weight));
      const state = {
        isReady: (i: number): boolean => all[i]!.state === "ready",
        isInvalid: (i: number): boolean => all[i]!.state === "invalid",
      };
      const drawn = backends.map(() => 0);
      // Every pair of chances from an even grid, so that the count is the share itself.
      for (let first = 0; first < POINTS; first++)
        for (let second = 0; second < POINTS; second++) {
          const chances = [(first + 0.5) / POINTS, (second + 0.5) / POINTS];
          const index = drawBackend(choice, backends, state, { next: () => chances.shift()! });
          if (index !== -1) drawn[index]!++;
        }
      const shares = sharesOf(choice, backends, state);
      for (const [i, count] of drawn.entries())
        assert.ok(Math.abs(count / POINTS ** 2 - shares[i]!) < 2 / POINTS, `${i}: ${count} ${shares.join()}`);
    }),
    { numRuns: 60 },
  );
});
