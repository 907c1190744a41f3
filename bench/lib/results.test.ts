import assert from "node:assert/strict";
import { test } from "node:test";
import { markdownOf, textOf } from "./markdown.ts";
import { plotOf } from "./plot.ts";
import { ratioToPeer, rowOf, type Results, type Sample } from "./results.ts";
import { SHAPES } from "./shapes.ts";
import type { Subject } from "../subjects/subject.ts";

const shape = SHAPES[0]!;

function subject(name: string, roles: readonly ("client" | "server" | "hop")[]): Subject {
  const processes = roles.map((role) => ({ role, pid: 1, readyMs: 5 }));
  return { name, processes, places: {}, world: null as never, stop: () => Promise.resolve() };
}

/** `cpuUs`: of each process, for 100 units. */
function sample(...cpuUs: number[]): Sample {
  const burst = { done: 100, failed: 0, perSecond: 10, p50Us: 1_000, p99Us: 2_000, p999Us: 3_000 };
  return { burst, cpu: cpuUs.map((us) => ({ userUs: us * 0.75, systemUs: us * 0.25 })), wireBytes: 5_000 };
}

const ours = rowOf(shape, subject("Pillion pair, mTLS", ["client", "server"]), [
  sample(1_000, 2_000),
  sample(3_000, 2_000),
  sample(2_000, 2_000),
]);
const envoy = rowOf(shape, subject("Envoy pair, mTLS", ["client", "server"]), [sample(4_000, 4_000)]);
const linkerd = rowOf(shape, subject("linkerd2-proxy pair", ["client", "server"]), [sample(2_500, 2_500)]);
const direct = rowOf(shape, subject("no proxy", []), [sample()]);
const results: Results = {
  machine: "a machine",
  versions: { Node: "26.0.0" },
  rounds: 3,
  seconds: 1,
  skipped: ["h2, h2load is not installed"],
  rows: [direct, ours, envoy, linkerd],
  memory: [],
};

test("costs are of one unit, each process apart and all together", () => {
  assert.deepEqual(
    ours.cpuUs.map(({ role, total }) => [role, total]),
    [
      ["client", { min: 10, median: 20, max: 30 }],
      ["server", { min: 20, median: 20, max: 20 }],
    ],
  );
  assert.deepEqual(ours.cpuSumUs, { min: 30, median: 40, max: 50 });
  assert.equal(ours.cpuUs[0]?.userShare, 0.75);
  assert.equal(ours.wireBytes.median, 50);
});

test("the ratio is to the cheapest pair of another mesh in the same shape", () => {
  assert.equal(ratioToPeer(ours, results.rows), 40 / 50);
  assert.equal(ratioToPeer(linkerd, results.rows), 1);
  assert.equal(ratioToPeer(direct, results.rows), null, "nothing was spent");
  assert.equal(ratioToPeer(ours, [ours]), null, "nobody to compare with");
});

test("the page has every row, those that lose too, and what was not measured", () => {
  const page = markdownOf(results, "npm run bench -- --report docs", "performance.svg");
  for (const { subject: name } of results.rows) assert.match(page, new RegExp(`^\\| ${name} \\|`, "m"));
  assert.match(page, /Not measured: h2, h2load is not installed\./);
  assert.match(page, /npm run bench -- --report docs/);
  assert.doesNotMatch(page + textOf(results) + plotOf(results), /NaN|Infinity|undefined|null/);
});

test("the picture has a bar for each cost that can be compared", () => {
  const bars = plotOf(results).match(/<rect [^>]*height="9"/g) ?? [];
  assert.equal(bars.length, 3);
});
