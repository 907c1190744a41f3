import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { PodStatus } from "#/model/pod-plan.ts";
import { Mesh, NAMESPACE } from "./mesh.ts";
import { MachineCapture } from "./fixtures/capture.ts";
import {
  keepDead,
  kill,
  load,
  loadPod,
  podGroup,
  processesBelow,
  service,
  warmed,
} from "./fixtures/scene.ts";
import type { Knocked } from "./fixtures/knock.ts";

const KNOCK = fileURLToPath(new URL("fixtures/knock.ts", import.meta.url));
const CONNECTIONS = 1_000;
const ANSWER_CANARY = "answer-canary-5c1f";
const REQUEST_CANARY = "request-canary-91be";
const CONTROL_CANARY = "control-canary-77d0";

test("without its sidecar a pod takes no connection and makes none; without the agent all still goes through it", async (t) => {
  const mesh = new Mesh("closed");
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web", { env: { CANARY: ANSWER_CANARY } }));
    mesh.write(
      "load.yaml",
      loadPod("load", { fresh: { url: `http://web/${REQUEST_CANARY}`, perSecond: 10 } }),
    );
    const { agentPid } = await mesh.up();
    const web = await mesh.pod("web");
    const loader = await mesh.pod("load");
    await warmed(mesh, loader, ["fresh"]);
    const capture = await MachineCapture.start(mesh);

    // The accept log and the capture do see what there is to see.
    const proof = await knock(mesh, web, 20, CONTROL_CANARY);
    assert.equal(proof.answered, 20);
    assert.ok((await accepted(mesh, web)).through > 0);

    await t.test("sidecar killed, and again whenever it returns", async (t) => {
      const dead = keepDead(`${podGroup(mesh, web)}/sidecar`);
      // Without a word: one that is still answered would be seen on the wire.
      await mesh.until("the sidecar's end", async () => (await knock(mesh, web, 1)).refused === 1);
      const before = await acceptedInTheEnd(mesh, web);
      const knocked = await knock(mesh, web, CONNECTIONS, REQUEST_CANARY);
      const killed = dead.release();
      const after = await accepted(mesh, web);
      say(t, knocked, `${killed} processes killed`);
      assert.equal(knocked.refused, CONNECTIONS);
      assert.equal(after.past, 0, "connections that came past the sidecar");
      assert.equal(after.through, before.through);
    });

    await t.test("the client's sidecar killed: its program reaches nobody", async () => {
      const { ip } = await mesh.pod("web");
      const dead = keepDead(`${podGroup(mesh, loader)}/sidecar`);
      await mesh.until(
        "the sidecar's end",
        async () => (await mesh.exec(loader.name, "curl", "-s", "--max-time", "1", "http://web/")).code !== 0,
      );
      for (const url of [`http://web/${REQUEST_CANARY}`, `http://${ip}:8080/${REQUEST_CANARY}`]) {
        const { code, stdout } = await mesh.exec(loader.name, "curl", "-s", "--max-time", "2", url);
        assert.notEqual(code, 0, `${url} answered ${stdout}`);
      }
      dead.release();
    });

    await mesh.until("both sidecars' return", async () =>
      (await mesh.status()).pods.every((pod) => pod.ready),
    );

    await t.test("agent killed: connections go through the sidecar as before", async (t) => {
      await load(mesh, loader, "mark");
      kill([agentPid]);
      const knocked = await knock(mesh, web, CONNECTIONS);
      say(t, knocked, "no agent");
      assert.equal(knocked.connected, CONNECTIONS);
      assert.equal((await accepted(mesh, web)).past, 0, "connections that came past the sidecar");
    });

    await t.test("agent and sidecar killed: nothing comes in", async (t) => {
      const sidecar = `${podGroup(mesh, web)}/sidecar`;
      kill(processesBelow(sidecar));
      // SIGKILL is sent, not done: until the process is gone it still answers.
      await mesh.until("the sidecar's end", async () => processesBelow(sidecar).length === 0);
      const before = await acceptedInTheEnd(mesh, web);
      const knocked = await knock(mesh, web, CONNECTIONS, REQUEST_CANARY);
      const after = await accepted(mesh, web);
      say(t, knocked, "no agent, no sidecar");
      assert.equal(knocked.refused, CONNECTIONS);
      assert.deepEqual(after, before);
    });

    await t.test(
      "the next agent brings the sidecar back, and nothing was sent in plaintext meanwhile",
      async () => {
        await mesh.up();
        const { stdout } = await mesh.exec(loader.name, "curl", "-s", "http://web/");
        assert.match(stdout, /^web-/);
        assert.equal((await accepted(mesh, web)).past, 0);
        const [control = 0, answers, requests] = await capture.count(
          CONTROL_CANARY,
          ANSWER_CANARY,
          REQUEST_CANARY,
        );
        assert.ok(control > 0, "the capture shows plaintext where there is some");
        // What the outside client was answered, before: one answer on each interface for each of its requests.
        assert.equal(answers, control);
        assert.equal(requests, 0);
      },
    );
  } finally {
    await mesh.close();
  }
});

function say(t: TestContext, knocked: Knocked, what: string): void {
  t.diagnostic(
    `${what}: of ${CONNECTIONS} connections ${knocked.refused} refused, ${knocked.connected} taken, ${knocked.answered} answered`,
  );
}

/** From the pretended machine, outside all pods. */
async function knock(mesh: Mesh, pod: PodStatus, count: number, words = ""): Promise<Knocked> {
  const { stdout, stderr } = await mesh.run(process.execPath, KNOCK, pod.ip, "8080", String(count), words);
  assert.notEqual(stdout, "", stderr);
  return JSON.parse(stdout) as Knocked;
}

/** Connections in the application's own log: through its sidecar (which dials from the pod itself) and past it. */
async function accepted(mesh: Mesh, pod: PodStatus): Promise<{ through: number; past: number }> {
  const file = `${mesh.dir}/state/${mesh.name}/agent/pods/${pod.uid}/logs/main.log`;
  const { stdout } = await mesh.run("cat", file);
  const from = stdout
    .split("\n")
    .filter((line) => line.startsWith("accept 8080 "))
    .map((line) => line.slice(12).replace("::ffff:", ""))
    // Reset before it was accepted, as by a sidecar that is killed: nobody knows its peer any more, and no byte came.
    .filter((ip) => ip !== "undefined");
  const through = from.filter((ip) => ip === pod.ip || ip.startsWith("127.")).length;
  return { through, past: from.length - through };
}

/** … once the application has told of all that came through a sidecar that is gone now: of a readiness probe each second, and of the load. */
async function acceptedInTheEnd(mesh: Mesh, pod: PodStatus): ReturnType<typeof accepted> {
  let seen = await accepted(mesh, pod);
  return await mesh.until("the application's log to stand still", async () => {
    const earlier = seen.through;
    seen = await accepted(mesh, pod);
    return seen.through === earlier && seen;
  });
}
