import assert from "node:assert/strict";
import { test } from "node:test";
import { Mesh, NAMESPACE } from "./mesh.ts";
import {
  causes,
  kill,
  load,
  loadPod,
  noFailures,
  podGroup,
  processesBelow,
  service,
  slowness,
  summary,
  warmed,
} from "./fixtures/scene.ts";

/** What may be said of a request that was under way at the pod that died: it may have been served, so nobody repeats it. */
const UNDER_WAY =
  /streams? open|the connection broke|the connection was cut|the far side reset the request|answer broke off/;

test("a pod killed under load: the others take over, and only what it may have served fails", async (t) => {
  const mesh = new Mesh("pod");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web", { replicas: 3 }));
    mesh.write(
      "load.yaml",
      loadPod("load", {
        // Answers take a moment, so that some are under way at each kill.
        http: { url: "http://web/?ms=20", connections: 16, perSecond: 60 },
        fresh: { url: "http://web/", perSecond: 10 },
        grpc: { address: "web:50051", perSecond: 30 },
      }),
    );
    await mesh.up();
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["http", "fresh", "grpc"]);
    const victims = (await mesh.status()).pods.filter((pod) => pod.owner.endsWith("/web"));
    for (const victim of victims.slice(0, 2)) {
      kill(processesBelow(podGroup(mesh, victim)));
      const killedMs = Date.now();
      await mesh.until("the others to take over", async () => {
        const { by } = await load(mesh, loader, "report");
        return (by[victims[2]?.name ?? ""] ?? 0) > 0;
      });
      await mesh.until(
        "its return",
        async () => (await mesh.status()).pods.every((pod) => pod.ready),
        60_000,
      );
      t.diagnostic(`the pod was ready again after ${Date.now() - killedMs} ms`);
      const report = await load(mesh, loader, "mark");
      t.diagnostic(`around the kill: ${summary(report)}`);
      t.diagnostic(report.failed === 0 ? "no request failed" : `by cause:\n${causes(report)}`);
      const noticedMs = 1_000 * (await slowness(mesh));
      for (const failure of report.failures) {
        assert.match(
          failure.reason,
          UNDER_WAY,
          `a request failed that nobody can have served: ${JSON.stringify(failure)}`,
        );
        assert.ok(
          failure.atMs < killedMs + noticedMs,
          `a request failed ${failure.atMs - killedMs} ms after the kill: ${failure.reason}`,
        );
      }
    }
    await mesh.until("every replica to answer", async () => {
      const { by } = await load(mesh, loader, "report");
      return victims.every((pod) => (by[pod.name] ?? 0) > 0);
    });
    noFailures(await load(mesh, loader, "stop"));
  } finally {
    await mesh.close();
  }
});
