import assert from "node:assert/strict";
import { test } from "node:test";
import { Mesh, NAMESPACE } from "./mesh.ts";
import {
  isAlive,
  kill,
  load,
  loadPod,
  noFailures,
  service,
  slowness,
  summary,
  warmed,
} from "./fixtures/scene.ts";

test("a killed sidecar hurts only its own pod and is back within 2 s", async (t) => {
  const mesh = new Mesh("sidecar");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web"));
    mesh.write("other.yaml", service("other"));
    mesh.write(
      "load.yaml",
      loadPod("load", {
        http: { url: "http://other/", connections: 4, perSecond: 40 },
        fresh: { url: "http://other/", perSecond: 10 },
        grpc: { address: "other:50051", perSecond: 10 },
      }),
    );
    await mesh.up();
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["http", "fresh", "grpc"]);
    const before = await mesh.pod("web");
    let fastestMs = Infinity;
    for (let round = 1; round <= 3; round++) {
      const { sidecar, name } = await mesh.pod("web");
      assert.ok(sidecar?.ready);
      const killedMs = Date.now();
      kill([sidecar.pid]);
      // From outside, through the interception: the first answer is the sidecar's return.
      await mesh.until(
        "the sidecar's return",
        async () => {
          const { stdout } = await mesh.run(
            "curl",
            "-s",
            "--max-time",
            "1",
            `http://${before.ip}:4191/ready`,
          );
          return stdout.startsWith("ready");
        },
        60_000,
      );
      const answeredMs = Date.now() - killedMs;
      const after = await mesh.until(
        "status to say so",
        async () => {
          const pod = await mesh.pod("web");
          return pod.ready && pod.sidecar !== null && pod.sidecar.pid !== sidecar.pid && pod;
        },
        60_000,
      );
      const readyMs = Date.now() - killedMs;
      t.diagnostic(
        `round ${round}: ready again on its admin port after ${answeredMs} ms, in status after ${readyMs} ms`,
      );
      assert.equal(after.name, name, "the pod is the same");
      assert.equal(after.containers[0]?.restartCount, 0, "its application was not restarted");
      assert.ok(isAlive(after.sidecar?.pid ?? 0));
      // What else runs on the machine is not the sidecar's doing.
      const slow = await slowness(mesh);
      fastestMs = Math.min(fastestMs, readyMs / slow);
    }
    assert.ok(fastestMs < 2_000, `${fastestMs} ms at best until the sidecar was back`);
    const report = await load(mesh, loader, "stop");
    t.diagnostic(`the others meanwhile: ${summary(report)}`);
    noFailures(report);
    const { stdout } = await mesh.exec(loader.name, "curl", "-s", "http://web/");
    assert.match(stdout, /^web-/);
  } finally {
    await mesh.close();
  }
});
