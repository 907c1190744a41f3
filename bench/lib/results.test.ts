import assert from "node:assert/strict";
import { test } from "node:test";
import { markdownOf, shownArguments, textOf } from "./markdown.ts";
import { plotOf } from "./plot.ts";
import { bestRatio, ratioToPeer, rowOf, type Results, type Sample } from "./results.ts";
import { SHAPES } from "./shapes.ts";
import { flat, NO_RESULTS } from "./testing.ts";
import type { Subject } from "../subjects/subject.ts";

const shape = SHAPES[0]!;
const PLOTS = { cpu: "cpu.svg", rate: "rate.svg", p99: "p99.svg" };

function subject(name: string, roles: readonly ("client" | "server" | "hop")[]): Subject {
  const processes = roles.map((role) => ({ role, pid: 1, readyMs: 5 }));
  return { name, processes, places: {}, world: null as never, stop: () => Promise.resolve() };
}

/** `cpuUs`: of each process, for 100 units. */
function sample(...cpuUs: number[]): Sample {
  const burst = { done: 100, failed: 0, perSecond: 10, p50Us: 1_000, p99Us: 2_000, p999Us: 3_000 };
  return {
    burst,
    cpu: cpuUs.map((us) => ({ userUs: us * 0.75, systemUs: us * 0.25 })),
    wireBytes: 5_000,
    instructions: null,
  };
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
  ...NO_RESULTS,
  skipped: ["h2, h2load is not installed"],
  rows: [direct, ours, envoy, linkerd],
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
  const page = markdownOf(results, "npm run bench -- --report docs", PLOTS);
  for (const { subject: name } of results.rows) assert.match(page, new RegExp(`^\\| ${name} \\|`, "m"));
  assert.match(page, /Not measured: h2, h2load is not installed\./);
  assert.match(page, /npm run bench -- --report docs/);
  assert.doesNotMatch(page + textOf(results) + plotOf(results, "cpu"), /NaN|Infinity|undefined|null/);
});

test("the page has what was measured beside the shapes, and no path of the machine", () => {
  const mesh = (name: string, kib: number) => ({
    subject: "Pillion",
    mesh: name,
    privateKib: flat(kib),
    unanswered: name.includes("routes") ? 3 : 0,
  });
  const all: Results = {
    ...results,
    reference: { subject: "Envoy pair, mTLS", perSecond: 5_000 },
    crowd: [
      {
        subject: "Pillion",
        count: 20,
        readyMs: flat(240),
        rssKib: flat(71_680),
        pssKib: flat(20_480),
        privateKib: flat(10_240),
        idleMsPerSecond: flat(0.3),
      },
    ],
    meshSizes: [
      mesh("1 service", 1_024),
      mesh("1 service of 1,000 endpoints", 1_024 + 999 * 2),
      mesh("1 service with 1,000 routes", 1_024 + 3_000),
      mesh("5 services, all used", 2_048),
      mesh("1,000 services, 5 used", 2_048),
    ],
    watched: [
      {
        shape: shape.name,
        role: "client",
        seconds: 2,
        gc: { pauses: 20, totalMs: 40, longestMs: 5, majors: 1 },
        stalls: { p99Ms: 3, longestMs: 9 },
      },
    ],
    letThrough: {
      rows: [
        {
          shape: "new-connections",
          without: flat(100),
          hooked: flat(99),
          ratio: flat(0.99),
          hooks: [{ hook: "sk_lookup", pod: "bench/server", runs: 1, ns: 180 }],
        },
      ],
      connections: { client: 70, server: 70 },
      bytesIn: 2 ** 30,
    },
    policy: [{ what: "200 routes", ratio: flat(1.1), aimMax: 1.15 }],
  };
  const page = markdownOf(
    all,
    `npm run bench -- ${shownArguments(["--envoy", "/a/envoy", "--variant", "x=/b/bun --y", "--report", "docs"]).join(" ")}`,
    PLOTS,
  );
  assert.match(page, /npm run bench -- --envoy PATH --variant x=PATH --report docs/);
  assert.doesNotMatch(page, /\/a\/|\/b\//);
  assert.match(page, /^\| Pillion \| 240 .* \| 70.0 .* \| 20.0 .* \| 10.0 .* \| 0.30 /m);
  assert.match(page, /^\| KiB per endpoint \| 2.00 \|$/m);
  assert.match(page, /^\| KiB per route \| 3.00 \|$/m);
  assert.match(page, /^\| KiB per Service that is not used \| 0.00 \|$/m);
  assert.match(page, /3 unanswered/);
  assert.match(page, /^\| h1-1, client \| 10 \| 0.5 \| 2.0 % \| 5.0 \| 3.0 \| 9.0 \|$/m);
  assert.match(page, /70 connections at the client's pod, 70 at the server's, 1.0 GiB received/);
  assert.match(page, /^\| 200 routes \| 1.10 .* \| ≤ 1.15 \|$/m);
  assert.match(page, /^\| h1-1 \| 40.0 \| 0.50 \| 1.00 \| 0.80 \| 1.00 \|$/m, "at a glance");
  assert.doesNotMatch(page + textOf(all), /NaN|Infinity|undefined|null/);
});

test("instructions have a column where the machine counts them, and a word where not", () => {
  const counted = rowOf(shape, subject("Pillion pair, mTLS", ["client", "server"]), [
    { ...sample(1, 1), instructions: 500_000 },
  ]);
  const command = "npm run bench";
  assert.match(
    markdownOf({ ...results, rows: [counted] }, command, PLOTS),
    /\| instructions \|[^]*\| 5000 \/ 5000 \/ 5000 \|/,
  );
  assert.match(markdownOf(results, command, PLOTS), /gives `perf stat` no counter/);
});

test("a picture of rates is against the quickest peer", () => {
  const quick = { ...envoy, perSecond: { min: 40, median: 40, max: 40 } };
  assert.equal(bestRatio(ours, [ours, quick, linkerd], "rate"), 0.25);
  assert.equal(bestRatio(ours, [ours, quick, linkerd], "p99"), 1);
  assert.equal(bestRatio(ours, [ours], "rate"), null, "nobody to compare with");
});

test("the picture has a bar for each cost that can be compared", () => {
  const bars = plotOf(results, "cpu").match(/<rect [^>]*height="9"/g) ?? [];
  assert.equal(bars.length, 3);
});
