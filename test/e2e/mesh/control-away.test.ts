import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Mesh, NAMESPACE } from "./mesh.ts";
import {
  isAlive,
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

const AWAY_MS = 60_000;
const FOUND_MS = 5_000;

test("the control plane away for 60 s costs no request, and what moved meanwhile is found when it is back", async (t) => {
  const mesh = new Mesh("control");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web", { replicas: 2 }));
    mesh.write("mover.yaml", service("mover"));
    mesh.write("shifter.yaml", service("shifter"));
    mesh.write(
      "load.yaml",
      loadPod("load", {
        http: { url: "http://web/", connections: 4, perSecond: 20 },
        fresh: { url: "http://web/", perSecond: 10 },
        grpc: { address: "web:50051", perSecond: 10 },
        tcp: { host: "web", port: 7000, connections: 2, perSecond: 10 },
      }),
    );
    await mesh.up();
    const loader = await mesh.pod("load");
    const mover = await mesh.pod("mover");
    const shifter = await mesh.pod("shifter");
    // One look at each, so that they are known targets.
    await mesh.until("the mover", async () => (await askFor("mover")).startsWith("mover-"));
    await mesh.until("the shifter", async () => (await askFor("shifter")).startsWith("shifter-"));
    await warmed(mesh, loader, ["http", "fresh", "grpc", "tcp"]);

    const hold = join(mesh.dir, "run", mesh.name, "hold-control");
    writeFileSync(hold, "");
    const { controlPid } = await mesh.status();
    kill([controlPid]);
    const killedMs = Date.now();
    await mesh.until("the agent to notice", async () => !(await mesh.status()).controlConnected);
    let asked = 0;
    let isMoverDead = false;
    for (let round = 0; Date.now() - killedMs < AWAY_MS; round++) {
      // A new process and a new connection each time, to a target that the sidecar knows.
      const answer = await mesh.exec(loader.name, "curl", "-sS", "--max-time", "5", "http://web/");
      assert.match(answer.stdout, /^web-/, answer.stderr);
      // A Service that this pod has never dialled: its name is answered all the same.
      const { stdout } = await mesh.exec(loader.name, "getent", "ahostsv4", "mover.test.svc.cluster.local");
      assert.match(stdout, /^10\.202\./);
      asked++;
      if (!isMoverDead && Date.now() - killedMs > AWAY_MS / 2) {
        // One dies and comes back where it was; the other is to be another pod, at another address.
        kill([...processesBelow(podGroup(mesh, mover)), ...processesBelow(podGroup(mesh, shifter))]);
        mesh.write("shifter.yaml", service("shifter", { env: { CANARY: "new" } }));
        isMoverDead = true;
      }
      await new Promise((resolve) => setTimeout(resolve, 2_000));
    }
    assert.equal((await mesh.status()).controlConnected, false, "it was kept away");
    assert.ok(!isAlive(controlPid));
    const report = await load(mesh, loader, "mark");
    t.diagnostic(
      `control plane away: ${summary(report)}; ${asked} new processes asked the Service and the name server`,
    );
    noFailures(report);

    assert.doesNotMatch(await askFor("mover"), /^mover-/, "it cannot be back: nobody attests it");
    rmSync(hold);
    await mesh.until("the control plane's return", async () => (await mesh.status()).controlConnected);
    const backMs = Date.now();
    await mesh.until(
      "the mover to be found",
      async () => (await askFor("mover")).startsWith("mover-"),
      60_000,
    );
    const foundMs = Date.now() - backMs;
    t.diagnostic(`the pod that was killed meanwhile is found ${foundMs} ms after the control plane's return`);
    assert.ok(foundMs < FOUND_MS * (await slowness(mesh)), `${foundMs} ms`);
    const shifted = await mesh.until(
      "the shifter's successor",
      async () => {
        const name = (await askFor("shifter")).split(" ")[0] ?? "";
        const pod = (await mesh.status()).pods.find((each) => each.name === name);
        return pod !== undefined && pod.uid !== shifter.uid && pod;
      },
      60_000,
    );
    t.diagnostic(
      `the successor at another address answers after ${Date.now() - backMs} ms, its start included`,
    );
    assert.notEqual(shifted.ip, shifter.ip);

    const settled = await load(mesh, loader, "stop");
    t.diagnostic(`after its return: ${summary(settled)}`);
    noFailures(settled);

    async function askFor(name: string): Promise<string> {
      return (await mesh.exec(loader.name, "curl", "-s", "--max-time", "2", `http://${name}/`)).stdout;
    }
  } finally {
    await mesh.close();
  }
});
