import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Namespaces } from "../lib/namespaces.ts";
import { cpuUsed } from "../lib/process-cost.ts";

/** CPU time so far of a world's nginx, and of all our own children that have ended, as load generators do (in steps of 10 ms). */
export function applicationsUs(world: Namespaces): number {
  const pids = execFileSync("ip", ["netns", "pids", world.name("server")], { encoding: "utf8" }).trim();
  const nginx = pids
    .split("\n")
    .filter((pid) => readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "nginx");
  const used = nginx.map((pid) => cpuUsed(Number(pid)));
  const stat = readFileSync("/proc/self/stat", "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const childrenUs = (Number(fields[13]) + Number(fields[14])) * 10_000;
  return used.reduce((sum, { userUs, systemUs }) => sum + userUs + systemUs, childrenUs);
}
