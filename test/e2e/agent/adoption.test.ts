import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { readFileSync } from "node:fs";
import { Machine, container, pod, sh } from "./machine.ts";

const machine = new Machine("adopt");
before(() => machine.start());
after(() => machine.close());

const steady = pod(
  "steady",
  [
    sh("echo started >> /out/log; sleep 1000", {
      mounts: [{ volume: "out", mountPath: "/out", subPath: null, readOnly: false }],
    }),
  ],
  {
    volumes: [{ name: "out", kind: "emptyDir", medium: "", sizeLimitBytes: null }],
  },
);
const mortal = pod("mortal", [container()]);
const brief = pod("brief", [sh("sleep 0.3; exit 4")], { restartPolicy: "Never" });

const pidsOf = (name: string): number[] =>
  machine
    .run(
      "sh",
      "-c",
      `cat $(find /sys/fs/cgroup -path '*pillion/${machine.name}/uid-${name}/app/main/cgroup.procs' | head -1)`,
    )
    .stdout.split("\n")
    .filter(Boolean)
    .map(Number);

test("the next agent takes over pods whose agent was killed", async () => {
  await machine.apply(steady, mortal, brief);
  await machine.until(
    "ready",
    async () => (await machine.pod("steady"))?.ready === true && (await machine.pod("mortal"))?.ready,
  );
  const [before, ip] = [pidsOf("steady"), (await machine.pod("steady"))?.ip];
  await machine.kill();
  const victims = pidsOf("mortal").filter(
    (pid) => !readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith("bwrap"),
  );
  machine.run("kill", "-KILL", ...victims.map(String));
  await machine.start();
  await machine.apply(steady, mortal, brief);
  await machine.until("steady is ready", async () => (await machine.pod("steady"))?.ready);
  assert.deepEqual(pidsOf("steady"), before);
  const status = await machine.pod("steady");
  assert.equal(status?.ip, ip);
  assert.equal(status?.containers[0]?.restartCount, 0);
  assert.equal((await machine.exec("steady", "main", "cat", "/out/log")).stdout, "started\n");
  // What ended meanwhile is told apart: restarted, or over with its exit code.
  await machine.until("mortal runs again", async () => {
    const pod = await machine.pod("mortal");
    return pod?.ready === true && pod.containers[0]?.restartCount === 1;
  });
  await machine.until(
    "brief has failed",
    async () => (await machine.pod("brief"))?.containers[0]?.exitCode === 4,
  );
});

test("an adopted container's end is noticed, and pods that are planned no more end", async () => {
  await machine.exec("steady", "main", "true");
  for (const pid of pidsOf("steady")) {
    if (!readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith("bwrap")) process.kill(pid, "SIGTERM");
  }
  await machine.until("restarted", async () => {
    const status = await machine.pod("steady");
    return status?.ready === true && status.containers[0]?.restartCount === 1;
  });
  await machine.apply(steady);
  await machine.until("only one is left", async () => (await machine.status()).length === 1);
});

test("after everything was killed, pods begin anew: init containers first", async () => {
  const order = pod(
    "order",
    [container({ mounts: [{ volume: "out", mountPath: "/out", subPath: null, readOnly: false }] })],
    {
      volumes: [{ name: "out", kind: "claim", claim: "order", readOnly: false }],
      initContainers: [
        sh("echo init >> /out/log", {
          name: "init",
          mounts: [{ volume: "out", mountPath: "/out", subPath: null, readOnly: false }],
        }),
      ],
    },
  );
  await machine.apply(steady, order);
  await machine.until("ready", async () => (await machine.pod("order"))?.ready);
  await machine.kill();
  for (const name of ["steady", "order"]) machine.run("kill", "-KILL", ...pidsOf(name).map(String));
  await machine.start();
  await machine.apply(steady, order);
  await machine.until(
    "ready again",
    async () => (await machine.pod("order"))?.ready === true && (await machine.pod("steady"))?.ready,
  );
  assert.equal((await machine.exec("order", "main", "cat", "/out/log")).stdout, "init\ninit\n");
});

test("nothing is left after the end of all pods and a sweep", async () => {
  await machine.ask("stop-all");
  assert.deepEqual(await machine.status(), []);
  assert.deepEqual(await machine.ask("sweep"), []);
  assert.deepEqual(machine.leftovers(), []);
});

test("nothing is left by a sweep after the agent was killed with pods running", async () => {
  await machine.ask("open");
  await machine.apply(steady, mortal);
  await machine.until(
    "ready",
    async () => (await machine.pod("steady"))?.ready === true && (await machine.pod("mortal"))?.ready,
  );
  await machine.kill();
  assert.notDeepEqual(machine.leftovers(), []);
  await machine.start(false);
  assert.deepEqual(await machine.ask("sweep"), []);
  assert.deepEqual(machine.leftovers(), []);
});
