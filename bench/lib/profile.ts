import { readFileSync } from "node:fs";
import { table } from "./report.ts";

export interface ProfileNode {
  id: number;
  callFrame: { functionName: string; url: string; lineNumber: number };
  children?: number[];
}

export interface Profile {
  nodes: ProfileNode[];
  samples: number[];
  timeDeltas: number[];
}

const ROWS = 45;

/**
 * The functions of a `.cpuprofile` with the most self time, as shares of all time that was not idle; then the same by
 * file.
 */
export function describeProfile(path: string): string {
  const profile = JSON.parse(readFileSync(path, "utf8")) as Profile;
  const selfUs = new Map<number, number>();
  profile.samples.forEach((id, i) => selfUs.set(id, (selfUs.get(id) ?? 0) + (profile.timeDeltas[i] ?? 0)));
  const functions = new Map<string, number>();
  const files = new Map<string, number>();
  let busyUs = 0;
  for (const { id, callFrame } of profile.nodes) {
    const us = selfUs.get(id) ?? 0;
    if (us === 0 || callFrame.functionName === "(idle)" || callFrame.functionName === "(root)") continue;
    busyUs += us;
    const file = shortened(callFrame.url);
    const name = `${callFrame.functionName || "(anonymous)"} ${file === "" ? "" : `${file}:${callFrame.lineNumber + 1}`}`;
    functions.set(name, (functions.get(name) ?? 0) + us);
    files.set(
      file === "" ? callFrame.functionName : file,
      (files.get(file === "" ? callFrame.functionName : file) ?? 0) + us,
    );
  }
  const rows = (totals: Map<string, number>): string[][] =>
    [...totals]
      .toSorted((a, b) => b[1] - a[1])
      .slice(0, ROWS)
      .map(([name, us]) => [name, `${((us / busyUs) * 100).toFixed(1)} %`]);
  return `${table(["function", "self"], rows(functions))}\n\n${table(["file", "self"], rows(files))}`;
}

/** Without the folder that the sidecar's sources were laid out in. */
export function shortened(url: string): string {
  return url.replace(/^file:\/\/.*\/pillion\/[0-9a-f]+\//, "").replace(/^file:\/\//, "");
}
