import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Decide } from "./compare.ts";
import type { AccessFault } from "./faults.ts";

const PACKAGE = join(import.meta.dirname, "../..");
/** What the evaluator knows of. */
const LAYERS = ["base", "wire", "model", "stack"];

/** The fault's file with the fault in it. Throws when the file is no longer what the fault was made for. */
export function faultyAccess({ name, file, find, replace }: AccessFault): string {
  const parts = readFileSync(join(PACKAGE, file), "utf8").split(find);
  if (parts.length !== 2)
    throw new Error(
      `"${name}" replaces what stands ${parts.length - 1} times in ${file}, not once; mend test/access-reference/faults.ts`,
    );
  return parts.join(replace);
}

/** The evaluator of a copy of our sources with the fault in it, for as long as `use` takes. */
export async function withFault<T>(fault: AccessFault, use: (decide: Decide) => T): Promise<T> {
  const copy = mkdtempSync(join(tmpdir(), "pillion-access-fault-"));
  try {
    cpSync(join(PACKAGE, "package.json"), join(copy, "package.json"));
    for (const layer of LAYERS)
      cpSync(join(PACKAGE, "src", layer), join(copy, "src", layer), {
        recursive: true,
        filter: (path) => !path.endsWith(".test.ts"),
      });
    writeFileSync(join(copy, fault.file), faultyAccess(fault));
    const module = pathToFileURL(join(copy, "src/stack/access/decide.ts")).href;
    const { decideAccess } = (await import(module)) as { decideAccess: Decide };
    return use(decideAccess);
  } finally {
    rmSync(copy, { recursive: true });
  }
}
