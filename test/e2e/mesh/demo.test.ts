import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Mesh } from "./mesh.ts";

const MAIN = fileURLToPath(new URL("../../../src/main.ts", import.meta.url));

/** Runs `pillion demo --once` on a pretended machine. */
async function demoOnce(
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

const failures = (lines: readonly string[]): string[] => lines.filter((line) => line.startsWith("FAIL"));

test("every claim of the demo holds", async () => {
  const { code, lines } = await demoOnce("demo", {});
  assert.deepEqual(failures(lines), []);
  assert.equal(code, 0, lines.join("\n"));
  assert.ok(lines.some((line) => /^all \d+ claims held$/.test(line)));
});

test("the demo's proof fails when one workload has no sidecar", async () => {
  const { code, lines } = await demoOnce("demo-unmeshed", { PILLION_TEST_UNMESHED: "catalogue" });
  assert.equal(code, 1, lines.join("\n"));
  const failed = failures(lines).join("\n");
  assert.match(failed, /catalogue-\S+:8080: byte 0 begins no TLS record/);
  assert.match(failed, /canary-http-\S+ \(http\) was SEEN/);
});

test("the demo's proof fails when the sidecars do not encrypt", async () => {
  const { code, lines } = await demoOnce("demo-plain", { PILLION_TEST_WITHOUT_TLS: "1" });
  assert.equal(code, 1, lines.join("\n"));
  const failed = failures(lines).join("\n");
  for (const canary of ["http", "redis", "sql", "grpc"])
    assert.match(failed, new RegExp(`\\(${canary}\\) was SEEN`));
});

test("Ctrl-C ends the demo and leaves nothing", async () => {
  const machine = new Mesh("demo-int");
  try {
    const child = machine.spawn(
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      MAIN,
      "demo",
      "--instance",
      machine.name,
    );
    let said = "";
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding("utf8").on("data", (text: string) => (said += text));
    await machine.until("the first table", async () => /SERVICE +PODS[^]*shop\/front/.test(said), 90_000);
    const exited = new Promise<number | null>((resolve) => child.on("exit", resolve));
    child.kill("SIGINT");
    assert.equal(await exited, 0, said);
    const left = await machine.run(
      "sh",
      "-c",
      `ip -o link | grep -c pln; ls ${machine.dir}/run/${machine.name} 2>/dev/null; find /sys/fs/cgroup -path '*pillion/${machine.name}*' | head -3; ls -d /sys/fs/bpf/pillion/${machine.name} 2>/dev/null`,
    );
    assert.equal(left.stdout.trim(), "0");
  } finally {
    await machine.close();
  }
});
