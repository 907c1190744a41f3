import { openSync, readSync } from "node:fs";
import { returnFreeMemory } from "#/kernel/libc.ts";
import type { ProcessMemory } from "./memory-guard.ts";

/** Of the architectures that Node 26 runs on here. */
const PAGE_BYTES = 4_096;

/**
 * The process that we are. `statm` counts pages: all that are resident, and of those the ones that belong to files. What a
 * control group's limit is charged with is the difference; pages of files can be dropped, or were charged to somebody else.
 */
export function processMemory(): ProcessMemory {
  const fd = openSync("/proc/self/statm", "r");
  const text = Buffer.alloc(128);
  return {
    usedBytes(): number {
      const [, resident = 0, ofFiles = 0] = text
        .toString("latin1", 0, readSync(fd, text, 0, 128, 0))
        .split(" ")
        .map(Number);
      return (resident - ofFiles) * PAGE_BYTES;
    },
    giveBack(): void {
      // Buffers of closed connections are freed by the collector, and glibc then keeps their memory for the next ones.
      globalThis.gc?.();
      returnFreeMemory();
    },
  };
}
