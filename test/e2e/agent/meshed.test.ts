import assert from "node:assert/strict";
import { existsSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { PodStatus } from "#/model/pod-plan.ts";
import { Mesh, NAMESPACE, workload, type MeshStatus } from "../mesh/mesh.ts";
import { leftovers } from "./machine.ts";

const mesh = new Mesh("agent");

const SERVER =
  "import http from 'node:http'; http.createServer((q, s) => s.end('hello from ' + process.env.HOSTNAME)).listen(8080)";
const STATEFUL = `apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db, namespace: test }
spec:
  serviceName: db
  replicas: 2
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec:
      terminationGracePeriodSeconds: 2
      containers: [{ name: main, command: ["sleep", "1000"] }]
---
apiVersion: v1
kind: Service
metadata: { name: db, namespace: test }
spec: { clusterIP: None, selector: { app: db }, ports: [{ name: sql, port: 5432 }] }
`;

before(async () => {
  mesh.write("a.yaml", NAMESPACE);
  mesh.write(
    "web.yaml",
    workload({
      name: "web",
      command: ["node", "--input-type=module", "-e", SERVER],
      ports: { http: [80, 8080] },
      readyPort: 8080,
    }),
  );
  // Its init container is a client of the mesh: the sidecar must serve before it starts.
  const early = `      initContainers:
        - name: early
          command: ["curl", "--silent", "--show-error", "--fail", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", "--output", "/dev/null", "http://web/"]`;
  mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "1000"], podExtra: early }));
  mesh.write("db.yaml", STATEFUL);
  await mesh.up();
});
after(() => mesh.close());

const status = (pid: number): string => readFileSync(`/proc/${pid}/status`, "latin1");
const field = (text: string, name: string): string =>
  new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(text)?.[1] ?? "";
const sidecarOf = (pod: PodStatus): NonNullable<PodStatus["sidecar"]> =>
  pod.sidecar ?? assert.fail(`${pod.name} has no sidecar`);
const groupPids = (path: string): number[] =>
  spawnSync(
    "sh",
    [
      "-c",
      `cat $(find /sys/fs/cgroup -path '*pillion/${mesh.name}/${path}/cgroup.procs') 2>/dev/null | sort -u`,
    ],
    { encoding: "utf8" },
  )
    .stdout.split("\n")
    .filter(Boolean)
    .map(Number);
const left = async (): Promise<string[]> => {
  const links = (await mesh.run("ip", "-o", "link")).stdout;
  const tables = (await mesh.run("nft", "list", "tables")).stdout;
  return leftovers(mesh.name, mesh.dir, (program) => (program === "ip" ? links : tables));
};

test("a sidecar has its own user, no capabilities, its own process namespace and cgroup, and cannot be traced", async () => {
  const [web, client] = [await mesh.pod("web"), await mesh.pod("client")];
  const { pid, uid } = sidecarOf(web);
  const text = status(pid);
  assert.equal(field(text, "Uid"), `${uid}\t${uid}\t${uid}\t${uid}`);
  assert.ok(uid >= 61_100 && uid !== sidecarOf(client).uid);
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
    assert.equal(field(text, set), "0000000000000000", set);
  assert.equal(field(text, "NoNewPrivs"), "1");
  assert.equal(field(text, "Groups"), "");
  assert.match(field(text, "NSpid"), /^\d+\t2$/);
  const app = groupPids(`${web.uid}/app/main`).at(-1) ?? 0;
  for (const space of ["pid", "mnt", "ipc"])
    assert.notEqual(
      readlinkSync(`/proc/${pid}/ns/${space}`),
      readlinkSync(`/proc/${app}/ns/${space}`),
      space,
    );
  assert.equal(readlinkSync(`/proc/${pid}/ns/net`), readlinkSync(`/proc/${app}/ns/net`));
  assert.match(
    readFileSync(`/proc/${pid}/cgroup`, "latin1"),
    new RegExp(`0::/pillion/${mesh.name}/${web.uid}/sidecar`),
  );
  // Not dumpable: its memory and descriptors belong to root.
  assert.equal(spawnSync("stat", ["-c", "%u", `/proc/${pid}/mem`], { encoding: "utf8" }).stdout.trim(), "0");
});

test("a sidecar sees neither the state folder nor other pods, and its token is nowhere", async () => {
  const { pid } = sidecarOf(await mesh.pod("web"));
  const mounts = readFileSync(`/proc/${pid}/mounts`, "latin1");
  assert.doesNotMatch(mounts, /cgroup|bpf|nsfs/);
  for (const path of ["state", "run"])
    assert.equal(existsSync(`/proc/${pid}/root${join(mesh.dir, path)}`), false, path);
  const environ = readFileSync(`/proc/${pid}/environ`, "latin1");
  assert.match(environ, /PILLION_TOKEN_FD=6/);
  assert.doesNotMatch(environ + readFileSync(`/proc/${pid}/cmdline`, "latin1"), /TOKEN_FILE|eyJ/);
});

test("root in a meshed pod sees no trace of its sidecar's process, key or machine", async () => {
  const { stdout } = await mesh.exec(
    "client",
    "sh",
    "-c",
    "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls -A /run/netns /sys/fs/bpf /sys/fs/cgroup /var/lib/pillion /run/pillion 2>/dev/null",
  );
  assert.doesNotMatch(stdout, /main\.(js|ts) sidecar|pillion-sidecar|pods|agent\.sock/);
  const shutdown = await mesh.exec(
    "client",
    "sh",
    "-c",
    "kill -9 -1; for p in $(seq 3 400); do kill -0 $p 2>/dev/null && cat /proc/$p/cmdline; done; true",
  );
  assert.doesNotMatch(shutdown.stdout, /sidecar/);
  assert.equal(sidecarOf(await mesh.pod("client")).restartCount, 0);
  await mesh.until("the client is ready again", async () => (await mesh.pod("client")).ready);
});

test("the sidecar is ready and intercepting before the first init container runs", async () => {
  const client = await mesh.pod("client");
  const early = client.containers.find((each) => each.name === "early");
  assert.deepEqual([early?.state, early?.exitCode, early?.restartCount], ["terminated", 0, 0]);
  assert.ok(sidecarOf(client).startedAtMs > 0);
});

test("the control plane and the name server run as their own users, the one without any capability", async () => {
  const { controlPid } = await mesh.status();
  assert.equal(field(status(controlPid), "Uid"), Array(4).fill("61000").join("\t"));
  assert.equal(field(status(controlPid), "CapEff"), "0000000000000000");
  assert.equal(field(status(controlPid), "CapBnd"), "0000000000000000");
  const dns = groupPids("dns").at(-1) ?? 0;
  assert.equal(field(status(dns), "Uid"), Array(4).fill("61001").join("\t"));
  assert.equal(field(status(dns), "CapEff"), "0000000000000400");
  const writable = readFileSync(`/proc/${controlPid}/mounts`, "latin1")
    .split("\n")
    .filter((line) => line.startsWith("/dev/") && / rw,/.test(line) && !line.includes(" /dev/"));
  assert.deepEqual(writable.map((line) => line.split(" ")[1]).toSorted(), [
    `${mesh.dir}/run/${mesh.name}/control`,
    `${mesh.dir}/state/${mesh.name}/control`,
  ]);
});

test("names: services by every form, headless pods, host names, SRV, the way back, and NXDOMAIN", async () => {
  const dig = async (...args: string[]): Promise<string> =>
    (await mesh.exec("client", "dig", "+search", "+short", ...args)).stdout.trim();
  const { services, pods } = await mesh.status();
  const vip = services.find((each) => each.name === "web")?.clusterIp ?? "none";
  for (const name of ["web", "web.test", "web.test.svc", "web.test.svc.cluster.local"])
    assert.equal(await dig(name), vip, name);
  assert.equal(await dig("+tcp", "web"), vip);
  const dbs = pods
    .filter((each) => each.owner.endsWith("/db"))
    .map((each) => each.ip)
    .toSorted();
  assert.deepEqual((await dig("db")).split("\n").toSorted(), dbs);
  assert.equal(await dig("db-1.db"), pods.find((each) => each.name === "db-1")?.ip);
  assert.equal(
    await dig("-t", "SRV", "_sql._tcp.db.test.svc.cluster.local"),
    "0 100 5432 db-0.db.test.svc.cluster.local.\n0 100 5432 db-1.db.test.svc.cluster.local.",
  );
  assert.equal(await dig("-x", vip), "web.test.svc.cluster.local.");
  assert.match(
    (await mesh.exec("client", "dig", "nobody.test.svc.cluster.local")).stdout,
    /status: NXDOMAIN/,
  );
  assert.equal((await mesh.exec("db-0", "hostname", "-f")).stdout.trim(), "db-0.db.test.svc.cluster.local");
});

test("a sidecar that is killed is back with a fresh identity, alone", async (t) => {
  const [web, before] = [await mesh.pod("web"), await mesh.status()];
  process.kill(sidecarOf(web).pid, "SIGKILL");
  const startedMs = Date.now();
  await mesh.until("another sidecar is ready", async () => {
    const pod = await mesh.pod("web");
    return pod.ready && pod.sidecar?.restartCount === 1;
  });
  t.diagnostic(`back after ${Date.now() - startedMs} ms`);
  assert.equal((await mesh.pod("web")).containers[0]?.restartCount, 0);
  const others = (status: MeshStatus): number[] =>
    status.pods.filter((pod) => pod.uid !== web.uid).map((pod) => sidecarOf(pod).pid);
  assert.deepEqual(others(await mesh.status()), others(before));
  assert.match(
    (await mesh.exec("client", "curl", "-s", "--max-time", "5", "http://web/")).stdout,
    /^hello from web-/,
  );
});

test("the next agent takes over pods, sidecars, control plane and name server, and no pod leaves discovery", async () => {
  const before = await mesh.status();
  const dns = groupPids("dns");
  process.kill(before.agentPid, "SIGKILL");
  const answer = await mesh.exec("client", "true");
  assert.notEqual(answer.code, 0);
  const adopted = await mesh.up();
  assert.notEqual(adopted.agentPid, before.agentPid);
  assert.equal(adopted.controlPid, before.controlPid);
  assert.deepEqual(groupPids("dns"), dns);
  const shape = (status: MeshStatus): unknown =>
    status.pods
      .map((pod) => [
        pod.name,
        pod.ip,
        pod.ready,
        sidecarOf(pod).pid,
        pod.containers.map((each) => each.restartCount),
      ])
      .toSorted();
  assert.deepEqual(shape(adopted), shape(before));
});

test("a sidecar of an earlier agent that dies is noticed and replaced", async () => {
  process.kill(sidecarOf(await mesh.pod("web")).pid, "SIGKILL");
  await mesh.until("another sidecar is ready", async () => {
    const pod = await mesh.pod("web");
    return pod.ready && pod.sidecar?.restartCount === 2;
  });
});

test("without the control plane names resolve and traffic goes on; it comes back by itself", async (t) => {
  const hold = join(mesh.dir, "run", mesh.name, "hold-control");
  t.after(() => rmSync(hold, { force: true }));
  writeFileSync(hold, "");
  process.kill((await mesh.status()).controlPid, "SIGKILL");
  await mesh.until("it is away", async () => !(await mesh.status()).controlConnected);
  for (let i = 0; i < 5; i++)
    assert.match(
      (await mesh.exec("client", "curl", "-s", "--max-time", "5", "http://web/")).stdout,
      /^hello from web-/,
    );
  rmSync(hold);
  await mesh.until("it is back", async () => (await mesh.status()).controlConnected);
});

test("the folder is followed: a new pod comes, a removed one goes, the others stay", async () => {
  const before = await mesh.status();
  mesh.write("extra.yaml", workload({ name: "extra", command: ["sleep", "1000"] }));
  await mesh.until(
    "it is ready",
    async () => (await mesh.status()).pods.find((pod) => pod.owner.endsWith("/extra"))?.ready,
  );
  mesh.remove("extra.yaml");
  await mesh.until("it is gone", async () =>
    (await mesh.status()).pods.every((pod) => !pod.owner.endsWith("/extra")),
  );
  const pids = (status: MeshStatus): number[] => status.pods.map((pod) => sidecarOf(pod).pid).toSorted();
  assert.deepEqual(pids(await mesh.status()), pids(before));
});

test("after everything was killed, up begins anew and down leaves nothing", async () => {
  process.kill((await mesh.status()).agentPid, "SIGKILL");
  for (const pid of spawnSync(
    "sh",
    ["-c", `cat $(find /sys/fs/cgroup -path '*pillion/${mesh.name}/*cgroup.procs') | sort -u`],
    { encoding: "utf8" },
  )
    .stdout.split("\n")
    .filter(Boolean)) {
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // It went with another.
    }
  }
  const anew = await mesh.up();
  assert.ok(anew.pods.every((pod) => pod.ready));
  assert.match(
    (await mesh.exec("client", "curl", "-s", "--max-time", "5", "http://web/")).stdout,
    /^hello from web-/,
  );
  assert.equal((await mesh.pillion("down")).code, 0);
  assert.deepEqual(await left(), []);
  assert.equal(existsSync(join(mesh.dir, "state", mesh.name, "control", "root.key")), true);
  await mesh.up();
});
