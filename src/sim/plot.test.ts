import assert from "node:assert/strict";
import { test } from "node:test";
import { plotOf } from "./plot.ts";
import { reportOf } from "./report.ts";
import { simulate } from "./simulate.ts";
import { workload, world } from "./testing.ts";

test("a plot is well-formed, escapes names, and shades the time of the failure", () => {
  const plan = world([workload('l<o>"ad', 1, 1), workload("a", 2, 2)], {
    failures: [{ atMs: 2_000, forMs: 4_000, what: { kind: "slow", workload: "a", pods: 2, factor: 3 } }],
  });
  const svg = plotOf(reportOf(simulate(plan)));
  assert.match(svg, /^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" viewBox/);
  assert.match(svg, /l&lt;o&gt;"ad → a/);
  assert.equal([...svg.matchAll(/fill="#fbe9e7"/g)].length, 3);
  assert.doesNotMatch(svg, /NaN|Infinity|undefined|null/);
  // Every element is closed, and nothing but elements stands outside of texts.
  const open = [...svg.matchAll(/<(\w+)[^>]*[^/]>/g)].length;
  assert.equal([...svg.matchAll(/<\/(\w+)>/g)].length, open);
  // The middle of the first bin of 100 ms, of 10 s, on an axis from 60 to 700; all went well: at the panel's top.
  assert.match(svg, /d="M63\.2 25\.0L/);
});

test("a plot of a run without requests is drawn all the same", () => {
  const svg = plotOf(reportOf(simulate(world([workload("load", 1, 1), workload("a", 2, 1)], {}, 0))));
  assert.doesNotMatch(svg, /NaN|Infinity|undefined|null/);
});
