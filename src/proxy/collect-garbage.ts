import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

type Collect = (how?: { type: "major"; execution: "sync"; flavor: "regular" | "last-resort" }) => void;

/**
 * Collects garbage: tens of milliseconds in which nothing else runs. `everything`: also the code of what has run once and may never
 * again, at several times the cost.
 *
 * V8's word for it is asked for when it is needed. Told of it at the start (`--expose-gc`), it would compile Node's own modules anew,
 * because what Node brings of them is for V8's usual flags alone: 20 ms and 1 MB of each sidecar.
 */
export function collectGarbage(what: "garbage" | "everything"): void {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as Collect;
  setFlagsFromString("--no-expose-gc");
  collect({ type: "major", execution: "sync", flavor: what === "everything" ? "last-resort" : "regular" });
}
