import assert from "node:assert/strict";
import { test } from "node:test";
import { demoOnce, failures, MAIN } from "./demo-once.ts";
import { Mesh } from "./mesh.ts";

test("every claim of the demo holds", async () => {
  const { code, lines } = await demoOnce("demo", {});
  assert.deepEqual(failures(lines), []);
  assert.equal(code, 0, lines.join("\n"));
  assert.ok(lines.some((line) => /^all \d+ claims held$/.test(line)));
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
