import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mock, test } from "node:test";
import { courseOf, MemoryWatch } from "./memory-watch.ts";

const START = { rssKib: 80_000, pssKib: 40_000, privateKib: 30_000 };
const course = (rss: readonly number[]) =>
  courseOf(
    "client",
    START,
    rss.map((rssKib) => ({ rssKib, pssKib: rssKib / 2, privateKib: 0 })),
  );

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
