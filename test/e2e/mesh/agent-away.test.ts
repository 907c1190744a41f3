import assert from "node:assert/strict";
import { test } from "node:test";
import { Mesh, NAMESPACE, type MeshStatus } from "./mesh.ts";
import {
  kill,
  load,
  loadPod,
  noFailures,
  podGroup,
  processesBelow,
  service,
  summary,
  warmed,
} from "./fixtures/scene.ts";

const AWAY_MS = 5_000;

test("the agent killed: nobody notices, and the next one takes the running pods over", async (t) => {
  const mesh = new Mesh("agent");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web", { replicas: 2 }));
    mesh.write(
      "load.yaml",
      loadPod("load", {
        http: { url: "http://web/", connections: 4, perSecond: 20 },
        fresh: { url: "http://web/", perSecond: 20 },
        grpc: { address: "web:50051", perSecond: 10 },
        tcp: { host: "web", port: 7000, connections: 2, perSecond: 10 },
      }),
    );
    const before = await mesh.up();
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["http", "fresh", "grpc", "tcp"]);
    const running = processes(mesh, before);

    kill([before.agentPid]);
    await new Promise((resolve) => setTimeout(resolve, AWAY_MS));
    const away = await mesh.pillion("status");
    assert.notEqual(away.code, 0, "status says that there is no agent");
    assert.deepEqual(processes(mesh, before), running, "nothing ended or started without the agent");

    const after = await mesh.up();
    assert.notEqual(after.agentPid, before.agentPid);
    assert.equal(after.controlPid, before.controlPid, "the control plane is taken over");
    assert.deepEqual(processes(mesh, after), running, "every process is the one from before");
    assert.deepEqual(essences(after), essences(before));
    noFailures(await load(mesh, loader, "report"));

    // It governs them as the first one did.
    const { stdout } = await mesh.exec((await mesh.pod("web")).name, "hostname");
    assert.match(stdout, /^web-/);
    mesh.write("web.yaml", service("web", { replicas: 3 }));
    const grown = await mesh.until(
      "a third replica",
      async () => {
        const { pods } = await mesh.status();
        const web = pods.filter((pod) => pod.owner.endsWith("/web"));
        return web.length === 3 && web.every((pod) => pod.ready) && pods;
      },
      60_000,
    );
    const kept = new Set(before.pods.map((pod) => pod.uid));
    const untouched = grown.filter((pod) => kept.has(pod.uid));
    assert.deepEqual(essences({ pods: untouched }), essences(before), "the edit touched nothing else");
    const report = await load(mesh, loader, "mark");
    t.diagnostic(`over all: ${summary(report)}`);
    noFailures(report);
    const restarted = untouched.find((pod) => pod.owner.endsWith("/web"));
    assert.ok(restarted?.sidecar);
    kill([restarted.sidecar.pid]);
    await mesh.until(
      "a sidecar that dies after the adoption to be started again",
      async () => {
        const pod = (await mesh.status()).pods.find((each) => each.uid === restarted.uid);
        return pod?.ready && pod.sidecar?.restartCount === 1;
      },
      60_000,
    );
  } finally {
    await mesh.close();
  }
});

/** All processes of all pods. */
function processes(mesh: Mesh, status: MeshStatus): number[] {
  return status.pods.flatMap((pod) => processesBelow(podGroup(mesh, pod))).toSorted((a, b) => a - b);
}

/** Pods by name: their order means nothing. */
function essences({ pods }: Pick<MeshStatus, "pods">): object[] {
  return pods.toSorted((a, b) => a.name.localeCompare(b.name)).map(essence);
}

function essence({ uid, name, ip, ready, containers, sidecar }: MeshStatus["pods"][number]): object {
  return {
    uid,
    name,
    ip,
    ready,
    containers: containers.map((each) => ({
      name: each.name,
      restartCount: each.restartCount,
      startedAtMs: each.startedAtMs,
    })),
    sidecar: sidecar === null ? null : { pid: sidecar.pid, restartCount: sidecar.restartCount },
  };
}
