/**
 * Loaded into a sidecar that is watched from within (`--import`), and into no other: what its garbage collector and its event
 * loop do between two signals SIGWINCH. Each writes one line to stderr, `Observed` behind `OBSERVED_MARK`, and begins anew.
 */
import { constants, monitorEventLoopDelay, PerformanceObserver } from "node:perf_hooks";

const RESOLUTION_MS = 2;
const gc = { pauses: 0, totalMs: 0, longestMs: 0, majors: 0 };
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    const { duration, detail } = entry as typeof entry & { detail: { kind: number } };
    gc.pauses++;
    gc.totalMs += duration;
    gc.longestMs = Math.max(gc.longestMs, duration);
    if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) gc.majors++;
  }
}).observe({ entryTypes: ["gc"] });
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
delay.enable();
process.on("SIGWINCH", () => {
  // What is recorded is the time between two ticks of a timer.
  const ms = (ns: number): number => Math.max(0, ns / 1e6 - RESOLUTION_MS);
  const stalls = { p99Ms: ms(delay.percentile(99)), longestMs: ms(delay.max) };
  process.stderr.write(`observed ${JSON.stringify({ gc, stalls })}\n`);
  Object.assign(gc, { pauses: 0, totalMs: 0, longestMs: 0, majors: 0 });
  delay.reset();
});
