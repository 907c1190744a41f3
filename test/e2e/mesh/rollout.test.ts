import assert from "node:assert/strict";
import { test } from "node:test";
import { Mesh, NAMESPACE } from "./mesh.ts";
import { load, loadPod, noFailures, service, summary, warmed } from "./fixtures/scene.ts";

/** Requests pass two Services, by HTTP and by gRPC. */
function services(annotations: Readonly<Record<string, string>>): Record<string, string> {
  const env = { NEXT_HTTP: "http://api/?ms=5", NEXT_GRPC: "price:50051" };
  return {
    "front.yaml": service("front", { replicas: 2, annotations, env }),
    "api.yaml": service("api", { replicas: 2, annotations }),
    // One alone: its successor has to be there before it goes.
    "price.yaml": service("price", { replicas: 1, annotations }),
  };
}

test("every Service rolled over to a changed sidecar setting under load loses no request", async (t) => {
  const mesh = new Mesh("rollout");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    for (const [file, yaml] of Object.entries(services({}))) mesh.write(file, yaml);
    mesh.write(
      "load.yaml",
      loadPod("load", {
        http: { url: "http://front/", connections: 8, perSecond: 20 },
        fresh: { url: "http://front/", perSecond: 5 },
        grpc: { address: "price:50051", perSecond: 20 },
      }),
    );
    await mesh.up();
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["http", "fresh", "grpc"]);
    const before = await mesh.status();

    for (const [file, yaml] of Object.entries(services({ "config.linkerd.io/proxy-log-level": "debug" })))
      mesh.write(file, yaml);
    const after = await mesh.until(
      "every pod to be replaced",
      async () => {
        const status = await mesh.status();
        const rolled = status.pods.filter((pod) => !pod.owner.endsWith("/load"));
        const isOld = (name: string): boolean => before.pods.some((pod) => pod.name === name);
        return rolled.length === 5 && rolled.every((pod) => pod.ready && !isOld(pod.name)) && status;
      },
      60_000,
    );
    const edited = await load(mesh, loader, "mark");
    t.diagnostic(`changed setting: ${summary(edited)}`);
    noFailures(edited);
    assert.equal(
      after.pods.find((pod) => pod.owner.endsWith("/load"))?.name,
      loader.name,
      "the unchanged workload stays",
    );

    const restarted = await mesh.pillion("rollout", "restart", "deployment/front", "-n", "test");
    assert.equal(restarted.code, 0, restarted.stderr);
    const ordered = await load(mesh, loader, "stop");
    t.diagnostic(`restart on command: ${summary(ordered)}`);
    noFailures(ordered);
  } finally {
    await mesh.close();
  }
});
