import { fileURLToPath } from "node:url";
import { Mesh } from "./mesh.ts";

export const MAIN: string = fileURLToPath(new URL("../../../src/main.ts", import.meta.url));

/** Runs `pillion demo --once` on a pretended machine. */
export async function demoOnce(
  label: string,
  env: Record<string, string>,
): Promise<{ code: number; lines: string[] }> {
  const machine = new Mesh(label);
  try {
    const run = await machine.run(
      "env",
      ...Object.entries(env).map(([name, value]) => `${name}=${value}`),
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      MAIN,
      "demo",
      "--once",
      "--instance",
      machine.name,
    );
    return { code: run.code, lines: `${run.stdout}\n${run.stderr}`.split("\n") };
  } finally {
    await machine.close();
  }
}

export const failures = (lines: readonly string[]): string[] =>
  lines.filter((line) => line.startsWith("FAIL"));
