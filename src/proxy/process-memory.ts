import { openSync, readSync } from "node:fs";
import { returnFreeMemory } from "#/kernel/libc.ts";
import { collectGarbage } from "./collect-garbage.ts";
import type { ProcessMemory } from "./memory-guard.ts";

/** What stands before `RssAnon` is a third of that, apart from the groups of the user. */
const STATUS_BYTES = 4_096;

/**
 * The process that we are. Of its pages only those that belong to no file count: the others can be dropped, or were charged to
 * somebody else. `status` says them in KiB, whatever a page is. Throws where `/proc` is not there.
 */
export function processMemory(limitBytes: number): ProcessMemory {
  const fd = openSync("/proc/self/status", "r");
  const text = Buffer.alloc(STATUS_BYTES);
  const usedBytes = (): number => {
    const found = /^RssAnon:\s*(\d+) kB$/m.exec(
      text.toString("latin1", 0, readSync(fd, text, 0, STATUS_BYTES, 0)),
    );
    if (found === null) throw new Error("/proc/self/status has no RssAnon, which Linux has since 4.5");
    return Number(found[1]) * 1_024;
  };
  return {
    limitBytes,
    usedBytes,
    giveBack(): void {
      // Buffers of closed connections are freed by the collector, and glibc then keeps their memory for the next ones.
      collectGarbage("garbage");
      returnFreeMemory();
    },
  };
}
