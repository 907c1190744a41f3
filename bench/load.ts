/**
 * One run of the open-loop generator as its own process (so that it can be pinned to a core or put in a namespace).
 * Usage: load.ts '{"host":…,"port":…,"connections":…,"requestsPerSecond":…,"seconds":…}'; prints the result as JSON.
 */
import { openLoop, type OpenLoopSettings } from "./lib/open-loop.ts";

console.log(JSON.stringify(await openLoop(JSON.parse(process.argv[2] ?? "{}") as OpenLoopSettings)));
process.exit(0);
