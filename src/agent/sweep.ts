import { join } from "node:path";
import { sweepLeftovers } from "#/kernel/interception.ts";
import { removeTree } from "./files.ts";
import type { Instance } from "./instance.ts";
import { runCommand } from "./run-command.ts";
import { Cgroups } from "./runtime/cgroups.ts";
import { delay } from "./runtime/launch.ts";
import { PodNetwork } from "./runtime/network.ts";
import type { ProcessGroups } from "./runtime/process-groups.ts";

/**
 * Removes everything that an instance has on this machine but its lasting state (keys, claims): processes, cgroups, mounts,
 * namespaces, links, rules, pins, files of the run folder. Works on what it finds, so also after everything was killed.
 * Gives what could not be removed, as sentences.
 */
export async function sweep(
  instance: Instance,
  groups: ProcessGroups = new Cgroups(cgroupBase(instance.name)),
): Promise<string[]> {
  const problems: string[] = [];
  for (let pass = 0; !groups.remove(""); pass++) {
    if (pass === 100) {
      const where = groups.create("", null).v2;
      problems.push(`processes of instance ${instance.name} do not die: see the groups below ${where}`);
      break;
    }
    await delay(pass < 20 ? 5 : 50);
  }
  if (groups instanceof Cgroups) sweepLeftovers(instance.name);
  await new PodNetwork(instance).sweep();
  await unmountBelow(instance.runDir);
  removeTree(instance.runDir);
  removeTree(join(instance.stateDir, "agent", "pods"));
  return problems;
}

export function cgroupBase(instance: string): string {
  return `pillion/${instance}`;
}

async function unmountBelow(dir: string): Promise<void> {
  const mounts = await runCommand("findmnt", ["--noheadings", "--list", "--output", "TARGET"]);
  const ours = mounts.stdout
    .split("\n")
    .map((line) => line.trim())
    .filter((target) => target.startsWith(`${dir}/`));
  // Deepest first.
  for (const target of ours.toSorted((a, b) => b.length - a.length)) await runCommand("umount", [target]);
}
