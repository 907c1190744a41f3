import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";
import { fileURLToPath } from "node:url";
import { kill, processesBelow, service, unifiedRoot } from "./fixtures/scene.ts";

const MAIN = fileURLToPath(new URL("../../../src/main.ts", import.meta.url));

test("nothing is left behind after down, after Ctrl-C, nor of a mesh whose every process was killed", async (t) => {
  const mesh = new Mesh("left");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web"));
    mesh.write(
      "idle.yaml",
      workload({
        name: "idle",
        command: ["sleep", "1000"],
        podExtra: "      volumes: [{ name: scratch, emptyDir: { medium: Memory } }]",
        containerExtra: "          volumeMounts: [{ name: scratch, mountPath: /scratch }]",
      }),
    );

    await t.test("after down", async () => {
      await mesh.up();
      const found = await leftovers(mesh);
      // What is looked for is there while the mesh runs, so that its absence means something.
      for (const kind of ["process", "cgroup", "link", "mount", "pin", "run file"])
        assert.ok(
          found.some((each) => each.startsWith(kind)),
          `no ${kind} of a running mesh was found`,
        );
      assert.equal((await mesh.pillion("down")).code, 0);
      assert.deepEqual(await leftovers(mesh), []);
    });

    for (const when of ["while it starts", "when it is ready"]) {
      await t.test(`after Ctrl-C in the terminal of up, ${when}`, async () => {
        const flags = ["--disable-warning=ExperimentalWarning", MAIN];
        const child = mesh.spawn(
          process.execPath,
          ...flags,
          "up",
          "-f",
          mesh.folder,
          "--instance",
          mesh.name,
        );
        let said = "";
        child.stdout?.setEncoding("utf8").on("data", (text: string) => (said += text));
        child.stderr?.resume();
        const socket = join(mesh.dir, "run", mesh.name, "agent.sock");
        await mesh.until("up", async () =>
          when === "while it starts" ? existsSync(socket) : said.includes("pods are ready"),
        );
        const ended = once(child, "exit");
        child.kill("SIGINT");
        await ended;
        assert.deepEqual(await leftovers(mesh), []);
      });
    }

    await t.test("the next up and down after everything was killed", async () => {
      const before = await mesh.up();
      // All at once, the agent first, so that nobody is started again.
      kill([before.agentPid, ...processesBelow(`${unifiedRoot()}/pillion/${mesh.name}`)]);
      const after = await mesh.up();
      const old = new Set(before.pods.map((pod) => pod.uid));
      const live = new Set(after.pods.map((pod) => pod.uid));
      assert.ok(after.pods.every((pod) => pod.ready));
      // Namespaces, groups and pins of now are those of pods of now.
      const stale = [...old].filter((uid) => !live.has(uid));
      const found = await leftovers(mesh);
      for (const uid of stale)
        assert.deepEqual(
          found.filter((each) => each.includes(uid)),
          [],
        );
      assert.equal(
        found.filter((each) => each.startsWith("link veth") || each.startsWith("link pln")).length,
        found.filter((each) => each.startsWith("link")).length,
      );
      const { stdout } = await mesh.exec((await mesh.pod("idle")).name, "curl", "-s", "http://web/");
      assert.match(stdout, /^web-/);
      assert.equal((await mesh.pillion("down")).code, 0);
      assert.deepEqual(await leftovers(mesh), []);
    });

    await t.test("down after everything was killed", async () => {
      const before = await mesh.up();
      kill([before.agentPid, ...processesBelow(`${unifiedRoot()}/pillion/${mesh.name}`)]);
      const { code, stderr } = await mesh.pillion("down");
      assert.equal(code, 0, stderr);
      assert.deepEqual(await leftovers(mesh), []);
    });
  } finally {
    await mesh.close();
  }
});

/** Everything of this mesh that is on the machine, but for its lasting state. */
async function leftovers(mesh: Mesh): Promise<string[]> {
  const found: string[] = [];
  const roots = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup2" || type === "cgroup")
    .map(([, at]) => at as string);
  for (const root of roots) {
    const dir = join(root, "pillion", mesh.name);
    if (!existsSync(dir)) continue;
    found.push(`cgroup ${dir}`, ...readdirSync(dir).map((name) => `cgroup ${dir}/${name}`));
    found.push(...processesBelow(dir).map((pid) => `process ${pid}`));
  }
  const links = await mesh.run("ip", "-o", "link");
  for (const [, name = ""] of links.stdout.matchAll(/^\d+: ([^:@]+)/gm))
    if (name !== "lo") found.push(`link ${name}`);
  const tables = await mesh.run("nft", "list", "tables");
  for (const line of tables.stdout.split("\n")) if (line !== "") found.push(`rules ${line}`);
  for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n")) {
    const at = line.split(" ")[1] ?? "";
    if (at.startsWith(`${mesh.dir}/`) && !at.endsWith("/machine-netns")) found.push(`mount ${at}`);
  }
  const pins = join("/sys/fs/bpf/pillion", mesh.name);
  if (existsSync(pins)) found.push(`pins ${pins}`, ...readdirSync(pins).map((name) => `pin ${name}`));
  const run = join(mesh.dir, "run", mesh.name);
  if (existsSync(run)) found.push(...readdirSync(run).map((name) => `run file ${name}`));
  const pods = join(mesh.dir, "state", mesh.name, "agent", "pods");
  if (existsSync(pods)) found.push(...readdirSync(pods).map((name) => `pod folder ${name}`));
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    let line: string;
    try {
      line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
    } catch {
      continue;
    }
    if (line.includes(" agent ") && line.includes(`"instance":"${mesh.name}"`)) found.push(`agent ${pid}`);
  }
  return found.toSorted();
}
