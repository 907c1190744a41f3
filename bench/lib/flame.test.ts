import assert from "node:assert/strict";
import { test } from "node:test";
import { flameOf } from "./flame.ts";
import type { Profile } from "./profile.ts";

const frame = (functionName: string, url = "") => ({ functionName, url, lineNumber: 4 });

const profile: Profile = {
  nodes: [
    { id: 1, callFrame: frame("(root)"), children: [2, 3, 5] },
    { id: 2, callFrame: frame("read<T>", "file:///tmp/x/pillion/0a1b/net/read.js"), children: [4] },
    { id: 3, callFrame: frame("(idle)") },
    { id: 4, callFrame: frame("emit", "node:events") },
    { id: 5, callFrame: frame("rare") },
  ],
  samples: [2, 4, 4, 3, 5],
  timeDeltas: [25_000, 30_000, 45_000, 900_000, 10],
};

test("each box is as wide as its share of all time that was not idle, under its caller", () => {
  const svg = flameOf(profile);
  const boxes = [...svg.matchAll(/<title>(.*?)<\/title><rect x="(.*?)" y="(.*?)" width="(.*?)"/g)].map(
    ([, name, x, y, width]) => [name, Number(x), Number(y), Math.round(Number(width))],
  );
  assert.deepEqual(boxes, [
    ["(root), 100.0 %", 0, 0, 1200],
    ["read&lt;T&gt; net/read.js:5, 100.0 %", 0, 15, 1200],
    ["emit node:events:5, 75.0 %", 0, 30, 900],
  ]);
});

test("a profile in which nothing ran is an empty picture", () => {
  assert.doesNotMatch(flameOf({ nodes: [], samples: [], timeDeltas: [] }), /rect|NaN/);
});
