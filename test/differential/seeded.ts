import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sidecarOf } from "../e2e/sidecar/rig/mesh.ts";
import type { Conversation } from "./case.ts";
import type { Fault } from "./faults.ts";
import { judge, type Verdict } from "./judge.ts";
import type { Lab, Seen } from "./lab.ts";

const PACKAGE = join(import.meta.dirname, "../..");
/** Conversations between two looks at what was found. */
const BATCH = 60;

/**
 * Puts a fault into both sidecars and says which difference gave it away; null when none did. One that is not there when
 * the same is asked again was chance, and gives nothing away.
 */
export async function findFault(
  lab: Lab,
  fault: Fault,
  conversations: readonly Conversation[],
  direct: Seen,
): Promise<Verdict["unexplained"][number] | null> {
  await lab.exchangeSidecars(sidecarWith(fault, lab.folder));
  for (let at = 0; at < conversations.length; at += BATCH) {
    const batch = conversations.slice(at, at + BATCH);
    const ask = async (): Promise<Verdict["unexplained"]> =>
      judge(batch, direct, await lab.hold("meshed", batch)).unexplained;
    const found = await ask();
    if (found.length === 0) continue;
    const again = new Set((await ask()).map(signOf));
    const sign = found.find((each) => again.has(signOf(each)));
    if (sign !== undefined) return sign;
  }
  return null;
}

function signOf({ one, difference }: Verdict["unexplained"][number]): string {
  return `${one.id} ${difference.what}`;
}

/** The fault's file with the fault in it. Throws when the file is no longer what the fault was made for. */
export function faulty({ name, file, find, replace }: Fault): string {
  const parts = readFileSync(join(PACKAGE, file), "utf8").split(find);
  if (parts.length !== 2)
    throw new Error(
      `"${name}" replaces what stands ${parts.length - 1} times in ${file}, not once; mend test/differential/faults.ts`,
    );
  return parts.join(replace);
}

/** A sidecar made from a copy of our sources with the fault in it. */
function sidecarWith(fault: Fault, folder: string): string {
  const copy = join(folder, `faulty-${fault.name.replaceAll(/\W+/g, "-")}`);
  cpSync(join(PACKAGE, "src"), join(copy, "src"), { recursive: true });
  writeFileSync(join(copy, fault.file), faulty(fault));
  return sidecarOf(copy, folder);
}
