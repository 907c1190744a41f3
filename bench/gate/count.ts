/**
 * Does one case for so many units of work and says what V8 allocated meanwhile. `bench/gate.ts` runs it, and counts
 * instructions from outside.
 *
 *     node bench/gate/count.ts GROUP CASE WARM_UNITS UNITS
 *
 * WARM_UNITS are done before and not counted: tables fill, memos are made, connections open, compilers find what is hot.
 */
import { getHeapStatistics } from "node:v8";
import type { MachineCase } from "../machines/machine-case.ts";

const [group = "", name = "", warmUnits = "", units = ""] = process.argv.slice(2);
const { CASES } = (await import(
  new URL(`../machines/${group}${import.meta.filename.slice(-3)}`, import.meta.url).href
)) as {
  readonly CASES: readonly MachineCase[];
};
const found = CASES.find((each) => each.name === name);
if (found === undefined) throw new Error(`no case of ${group} is called ${name}`);

const run = found.make();
for (let done = 0; done < Number(warmUnits);) done += run();
const beforeBytes = allocatedBytes();
let done = 0;
while (done < Number(units)) done += run();
console.log(JSON.stringify({ units: done, allocatedBytes: allocatedBytes() - beforeBytes }));

function allocatedBytes(): number {
  // Of Node 26, and not yet in its types.
  return (getHeapStatistics() as unknown as { total_allocated_bytes: number }).total_allocated_bytes;
}
