import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { PodStatus } from "#/model/pod-plan.ts";
import { Mesh, NAMESPACE } from "./mesh.ts";
import { load, loadPod, noFailures, service, summary, warmed } from "./fixtures/scene.ts";
import type { LoadReport } from "./fixtures/load.ts";

const CROWD = fileURLToPath(new URL("fixtures/crowd.ts", import.meta.url));
/** With the rates below some 1,600 requests: the p99 is the sixteenth slowest, and not one that happened to be slow. */
const MEASURED_MS = 10_000;
const LIMIT = { "config.linkerd.io/proxy-memory-limit": "96Mi" };
/** So many unfinished heads of that size a second fill what is free below the limit within five seconds or so. */
const CROWD_PER_SECOND = 300;
const CROWD_HEAD_BYTES = 40_000;

interface Crowd {
  readonly opened: number;
  readonly held: number;
  readonly ended: number;
}

interface Crowded {
  readonly others: LoadReport;
  readonly crowd: Crowd;
}

test("a sidecar at its limit of memory refuses, or without its guard is killed, and hurts only its own pod", async (t) => {
  const mesh = new Mesh("memory");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web", { replicas: 2 }));
    mesh.write("free.yaml", service("free"));
    mesh.write("guarded.yaml", service("guarded", { annotations: LIMIT }));
    const unguarded = { ...LIMIT, "config.pillion.dev/proxy-memory-guard": "disabled" };
    mesh.write("unguarded.yaml", service("unguarded", { annotations: unguarded }));
    mesh.write(
      "load.yaml",
      loadPod("load", {
        http: { url: "http://web/", connections: 8, perSecond: 120 },
        fresh: { url: "http://web/", perSecond: 20 },
        grpc: { address: "web:50051", perSecond: 20 },
      }),
    );
    await mesh.up();
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["http", "fresh", "grpc"], 50);
    // Read from the agent's log, because to ask the agent costs the processor more than all that is measured here.
    const log = join(mesh.dir, "state", mesh.name, "agent", "agent.log");
    const kills = (): number =>
      readFileSync(log, "utf8").match(/sidecar of test\/\S+ was killed for want of memory: raise its limit/g)
        ?.length ?? 0;

    const guarded = await mesh.pod("guarded");
    const quiet = [await measured()];
    const refusing = await crowded(guarded, (crowd) => crowd.ended > 0);
    assert.equal(kills(), 0, "the guard keeps its sidecar alive");
    const refused = await mesh.metric(guarded, "inbound_tcp_errors_total", { error: "memory_limit" });
    assert.ok(refused > 0, "it counts whom it refuses");
    assert.ok((await mesh.metric(guarded, "pillion_memory_ended_connections_total", { which: "idle" })) > 0);
    assert.match(
      await mesh.log(guarded.name, "pillion-sidecar"),
      /near its memory limit: refuses new connections/,
    );
    await answers("guarded");

    quiet.push(await measured());
    const full = await mesh.pod("unguarded");
    const killed = await crowded(full, () => kills() > 0);
    await mesh.until("its return", async () => (await mesh.pod("unguarded")).ready, 60_000);
    assert.equal((await mesh.pod("unguarded")).uid, full.uid, "the pod is the same");
    await answers("unguarded");

    quiet.push(await measured());
    const unlimited = await crowded(await mesh.pod("free"), (crowd) => crowd.held > 0);
    assert.equal(unlimited.crowd.ended, 0, "without a limit everybody is let in");

    const quietP99Ms = quiet.map(({ p99Ms }) => p99Ms).toSorted((a, b) => a - b)[1] ?? 0;
    for (const report of quiet) t.diagnostic(`the others, quiet run: ${summary(report)}`);
    say("a sidecar that refuses at its memory limit", refusing);
    say("a sidecar that is killed at its memory limit", killed);
    say("same crowd, no limit", unlimited);
    for (const report of [...quiet, refusing.others, killed.others, unlimited.others]) noFailures(report);
    noFailures(await load(mesh, loader, "stop"));
    const restarted = (await mesh.status()).pods
      .filter((pod) => pod.sidecar?.restartCount !== 0)
      .map((pod) => pod.name);
    assert.deepEqual(restarted, [full.name], "no other sidecar was restarted");

    function say(what: string, { others, crowd }: Crowded): void {
      const ratio = (others.p99Ms / quietP99Ms).toFixed(1);
      t.diagnostic(
        `the others, ${what}: ${summary(others)}; p99 ${ratio} × the middle quiet run's; of the crowd ${crowd.opened} were let in or refused, ${crowd.held} are held`,
      );
    }

    async function measured(): Promise<LoadReport> {
      await load(mesh, loader, "mark");
      await new Promise((resolve) => setTimeout(resolve, MEASURED_MS));
      return await load(mesh, loader, "mark");
    }

    /** What the others see while a crowd comes to a pod: for the time of the quiet runs, and at least until `isAtLimit`. */
    async function crowded(pod: PodStatus, isAtLimit: (crowd: Crowd) => boolean): Promise<Crowded> {
      const flags = [pod.ip, "8080", String(CROWD_PER_SECOND), String(CROWD_HEAD_BYTES)];
      await load(mesh, loader, "mark");
      const process = mesh.spawn(globalThis.process.execPath, CROWD, ...flags);
      const crowd = follow(process);
      const beganMs = performance.now();
      await mesh.until(
        `the crowd to bring ${pod.name} to its limit`,
        async () => performance.now() - beganMs > MEASURED_MS && isAtLimit(crowd()),
        40_000,
      );
      const others = await load(mesh, loader, "mark");
      process.kill("SIGKILL");
      return { others, crowd: crowd() };
    }

    async function answers(name: string): Promise<void> {
      await mesh.until(`an answer of ${name}`, async () => {
        const { stdout } = await mesh.exec(loader.name, "curl", "-s", "--max-time", "5", `http://${name}/`);
        return stdout.startsWith(`${name}-`);
      });
    }
  } finally {
    await mesh.close();
  }
});

/** The last that a crowd has told. */
function follow(process: ChildProcess): () => Crowd {
  let said = "";
  process.stdout?.setEncoding("utf8").on("data", (text: string) => (said += text));
  return () => JSON.parse(said.trimEnd().split("\n").at(-1) || '{"opened":0,"held":0,"ended":0}') as Crowd;
}
