import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "#/base/virtual-clock.ts";
import { MemoryReturn } from "./memory-return.ts";

/** Of the two seconds between looks. */
const QUIET_MS = 10;
/** What a sidecar takes that nobody asks anything, where the machine is slow. */
const IDLE_MS = 25;
const SOME_MS = 50;
const BUSY_MS = 200;

function played(cpuMsOfLooks: readonly number[], heapMib = 10): string[] {
  const clock = new VirtualClock();
  const done: string[] = [];
  let usedMs = 1_000;
  const memory = new MemoryReturn({
    clock,
    cpuMs: () => usedMs,
    heapBytes: () => heapMib * 1_048_576,
    collect: (what) => {
      done.push(what === "everything" ? "collect" : "collect garbage");
      // What that takes is no work of anybody's.
      usedMs += BUSY_MS;
    },
    giveBack: () => done.push("give back"),
  });
  memory.start();
  for (const cpuMs of cpuMsOfLooks) {
    usedMs += cpuMs;
    clock.run(2_000);
    done.push("look");
  }
  return done;
}

test("what the start needed goes at the first quiet look, and nothing while it stays quiet", () => {
  assert.deepEqual(played([QUIET_MS, QUIET_MS]), ["collect", "give back", "look", "look"]);
});

test("at the start a quiet look may be one of a slow machine's, later not", () => {
  const idle = Array.from({ length: 8 }, () => IDLE_MS);
  assert.deepEqual(
    played([...idle, BUSY_MS, ...idle]).map((what) => what === "look"),
    [false, false, ...Array<boolean>(17).fill(true)],
  );
});

test("nothing goes while there is something to do, from the start on", () => {
  assert.deepEqual(played([BUSY_MS, SOME_MS, QUIET_MS]), [
    ...["look", "look", "collect", "give back", "look"],
  ]);
});

test("what a burst has left goes once it has been quiet for ten seconds", () => {
  const quiet = Array.from({ length: 5 }, () => QUIET_MS);
  assert.deepEqual(played([QUIET_MS, BUSY_MS, ...quiet.slice(1), SOME_MS, ...quiet, ...quiet]), [
    ...["collect", "give back", "look", "look"],
    ...["look", "look", "look", "look", "look"],
    ...["look", "look", "look", "look", "collect", "give back", "look"],
    ...["look", "look", "look", "look", "look"],
  ]);
});

test("of a large heap only garbage goes, for a shorter pause", () => {
  assert.deepEqual(played([QUIET_MS], 64), ["collect", "give back", "look"]);
  assert.deepEqual(played([QUIET_MS], 65), ["collect garbage", "give back", "look"]);
});

test("little to do leaves nothing", () => {
  assert.deepEqual(
    played([QUIET_MS, SOME_MS, QUIET_MS, QUIET_MS, QUIET_MS, QUIET_MS, QUIET_MS]).filter(
      (what) => what !== "look",
    ),
    ["collect", "give back"],
  );
});
