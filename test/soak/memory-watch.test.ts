import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mock, test } from "node:test";
import { courseOf, MemoryWatch } from "./memory-watch.ts";

const START = { rssKib: 80_000, pssKib: 40_000, privateKib: 30_000 };
const used = (rss: readonly number[]) => rss.map((rssKib) => ({ rssKib, pssKib: rssKib / 2, privateKib: 0 }));
const course = (rss: readonly number[], rests: readonly number[] = []) =>
  courseOf("client", START, used(rss), used(rests));

test("growth in the first third is warming up and no leak", () => {
  const { isFlat, ratio } = course([1, 20, 50, 90, 99, 100, 100, 100, 100].map((n) => n * 1000));
  assert.equal(isFlat, true);
  assert.ok(ratio <= 1.02);
});

test("steady growth is not flat, and neither is a step in the last third", () => {
  assert.equal(course(Array.from({ length: 90 }, (_, i) => 80_000 + i * 300)).isFlat, false);
  assert.equal(course([100, 100, 100, 100, 100, 100, 106, 106, 106]).isFlat, false);
});

test("one peak is told of and does not decide", () => {
  const { isFlat, peakRssKib } = course([100, 100, 100, 100, 100, 100, 100, 900, 100]);
  assert.equal(isFlat, true);
  assert.equal(peakRssKib, 900);
});

test("where there are rests they decide, and not the garbage between them", () => {
  const wild = [100, 300, 100, 100, 300, 100, 500, 500, 500];
  assert.equal(course(wild).isFlat, false);
  const { isFlat, restRatio, restsRssKib } = course(wild, [50, 80, 100, 100, 101, 100]);
  assert.equal(isFlat, true);
  assert.equal(restRatio, 1.005);
  assert.equal(restsRssKib.length, 6);
  assert.equal(
    course([100, 100, 100, 100, 100, 100, 100, 100, 100], [50, 80, 90, 96, 100, 104]).isFlat,
    false,
  );
});

test("a process that was hardly watched is not judged", () => {
  assert.throws(() => course([1, 1, 1]), /too few/);
});

test("a process that ends while it is watched fails the watch where it stops, and not the timer", async () => {
  const process = spawn("sleep", ["60"], { stdio: "ignore" });
  const watch = new MemoryWatch(new Map([["client", process.pid ?? 0]]));
  process.kill("SIGKILL");
  await once(process, "exit");
  mock.timers.enable({ apis: ["setInterval"] });
  try {
    watch.begin();
    mock.timers.tick(1_000);
    assert.throws(() => watch.stop(), /client can no longer be watched/);
  } finally {
    mock.timers.reset();
  }
});
