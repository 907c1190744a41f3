/**
 * The SPIFFE Workload API in real pods, as go-spiffe sees it: the socket is there for those who ask and for nobody else, each gets its own
 * identity, and keys are made in the sidecar alone.
 */
import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { goTool } from "../../tools/go-tool.ts";
import { Mesh, NAMESPACE, workload, type Run } from "./mesh.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const ASKS = { "pillion.dev/workload-api": "enabled" };
const SOCKET = "/run/spiffe/agent.sock";
const WEB_ID = "spiffe://cluster.local/ns/test/sa/web";
const DB_ID = "spiffe://cluster.local/ns/test/sa/db";

describe("the Workload API in pods", () => {
  const mesh = new Mesh("workload-api");
  let program = "";

  before(async () => {
    // Containers see the checkout at one place, wherever it lies.
    program = join("/.pillion/mesh", relative(ROOT, await goTool("go-spiffe")));
    const user = (uid: number): string =>
      `          securityContext: { runAsUser: ${uid}, runAsGroup: ${uid} }`;
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write(
      "web.yaml",
      workload({ name: "web", command: ["sleep", "100000"], annotations: ASKS, containerExtra: user(1001) }),
    );
    mesh.write(
      "db.yaml",
      workload({
        name: "db",
        command: ["sh", "-c", `${program} serve 0.0.0.0:9443 & exec ${program} serve 0.0.0.0:9444`],
        ports: { meshed: [9443, 9443], skipped: [9444, 9444] },
        annotations: {
          ...ASKS,
          "config.linkerd.io/skip-inbound-ports": "9444",
          "config.linkerd.io/opaque-ports": "9443",
        },
      }),
    );
    mesh.write(
      "skipping.yaml",
      workload({
        name: "skipping",
        command: ["sleep", "100000"],
        annotations: { ...ASKS, "config.linkerd.io/skip-outbound-ports": "9444" },
      }),
    );
    mesh.write("plain.yaml", workload({ name: "plain", command: ["sleep", "100000"] }));
    mesh.write(
      "declines.yaml",
      `apiVersion: v1
kind: Namespace
metadata: { name: generous, annotations: ${JSON.stringify(ASKS)} }
---
${workload({ name: "inherits", namespace: "generous", command: ["sleep", "100000"] })}
---
${workload({
  name: "declines",
  namespace: "generous",
  command: ["sleep", "100000"],
  annotations: { "pillion.dev/workload-api": "disabled" },
})}`,
    );
    await mesh.up("--timeout", "120");
  });
  after(async () => await mesh.close());

  /** JSON, a line each. */
  const lines = ({ stdout }: Run): Record<string, unknown>[] =>
    stdout
      .trim()
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const inPod = async (pod: string, ...args: string[]): Promise<Run> =>
    await mesh.exec(pod, program, ...args);

  test("a program that runs as the container's user gets its pod's identity, by the variable that says where", async () => {
    const run = await inPod("web", "x509", "1");
    assert.equal(run.code, 0, run.stderr);
    assert.equal(lines(run)[0]?.["id"], WEB_ID);
  });

  test("its key is another than the sidecar's own", async () => {
    const { ip } = await mesh.pod("web");
    const name = "web.test.serviceaccount.identity.pillion.cluster.local";
    const { stdout } = await mesh.run(
      "sh",
      "-c",
      `openssl s_client -connect ${ip}:4143 -servername ${name} -alpn transport.l5d.io/v1 </dev/null 2>/dev/null`,
    );
    const pem = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(stdout)?.[0];
    assert.ok(pem, stdout);
    const spki = new X509Certificate(pem).publicKey.export({ type: "spki", format: "der" });
    const sidecars = createHash("sha256").update(spki).digest("hex");
    const given = lines(await inPod("web", "x509", "1"))[0]?.["key"];
    assert.match(String(given), /^[0-9a-f]{64}$/);
    assert.notEqual(given, sidecars);
  });

  test("a token is signed for its own identity, and go-spiffe and the server find it valid", async () => {
    const run = await inPod("web", "jwt", "db");
    assert.equal(run.code, 0, run.stderr);
    assert.equal(lines(run)[0]?.["id"], WEB_ID);
    assert.equal(lines(run)[0]?.["validated"], WEB_ID);
    // Also in another pod, whose sidecar has heard of the keys by itself.
    const there = await inPod("db", "validate", "db", String(lines(run)[0]?.["token"]));
    assert.deepEqual(lines(there), [{ id: WEB_ID }], there.stderr);
  });

  test("programs of two pods speak mutual TLS by spiffetls, through the mesh and past it", async () => {
    for (const [client, port] of [
      ["web", 9443],
      ["skipping", 9444],
    ] as const) {
      const run = await mesh.until(`${client} reaches db:${port}`, async () => {
        const found = await inPod(client, "dial", `db:${port}`, DB_ID);
        return found.code === 0 && found;
      });
      assert.equal(lines(run)[0]?.["answer"], `hello from spiffe://cluster.local/ns/test/sa/${client}`);
    }
    const wrong = await inPod("web", "dial", "db:9443", WEB_ID);
    assert.match(wrong.stderr, /unexpected ID/);
  });

  test("attack: a pod that did not ask has neither socket nor variable, and reaches no other pod's", async () => {
    for (const pod of ["plain", "declines"]) {
      const { stdout } = await mesh.exec(
        pod,
        "sh",
        "-c",
        `ls /run/spiffe 2>/dev/null; find / -name agent.sock 2>/dev/null; echo "[$SPIFFE_ENDPOINT_SOCKET]"; grep agent.sock /proc/net/unix`,
      );
      assert.equal(stdout.trim(), "[]");
    }
    const run = await mesh.exec(
      "plain",
      "env",
      `SPIFFE_ENDPOINT_SOCKET=unix://${SOCKET}`,
      program,
      "x509",
      "1",
    );
    assert.equal(lines(run)[0]?.["error"], "Unavailable");
    assert.match(String(lines(run)[0]?.["reason"]), /no such file/);
  });

  test("a namespace may ask for all of its pods", async () => {
    const run = await inPod("inherits", "x509", "1");
    assert.equal(lines(run)[0]?.["id"], "spiffe://cluster.local/ns/generous/sa/inherits", run.stderr);
  });

  test("attack: a user that no container runs as is refused by the kernel's word", async () => {
    const run = await mesh.exec(
      "db",
      ...["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", program, "x509", "1"],
    );
    assert.equal(lines(run)[0]?.["error"], "PermissionDenied", run.stderr);
    assert.match(
      String(lines(run)[0]?.["reason"]),
      /user 1234 is none that a container of this pod runs as \(0\)/,
    );
    assert.match(await mesh.log("db", "pillion-sidecar"), /refused the Workload API/);
  });

  test("attack: root in a container can neither replace the socket nor read the folder of another pod", async () => {
    const { stdout } = await mesh.exec(
      "db",
      "sh",
      "-c",
      `rm -f ${SOCKET}; mv ${SOCKET} /run/spiffe/x; touch /run/spiffe/y; ls /run/spiffe`,
    );
    assert.equal(stdout.trim(), "agent.sock");
  });

  test("the agent makes an empty folder for the socket: no key is in it, in the run folder, or in the agent's state", async () => {
    const folders = [join(mesh.dir, "run"), join(mesh.dir, "state", mesh.name, "agent")];
    const sockets: string[] = [];
    for (const folder of folders) {
      for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
        const path = join(entry.parentPath, entry.name);
        if (entry.isSocket() && entry.name === "agent.sock" && path.includes("/pods/")) sockets.push(path);
        // Namespaces of pods are files without content.
        if (!entry.isFile() || statSync(path).size === 0) continue;
        assert.doesNotMatch(readFileSync(path, "latin1"), /PRIVATE KEY-----\s*[A-Za-z0-9+/]{40}/, path);
      }
    }
    // web, db, skipping, inherits
    assert.equal(sockets.length, 4);
    for (const socket of sockets) assert.deepEqual(readdirSync(join(socket, "..")), ["agent.sock"]);
  });

  test("attack: a sidecar that was taken over cannot fill the machine's memory by the one folder that it may write", async () => {
    const { uid } = await mesh.pod("web");
    const folder = join(mesh.dir, "run", mesh.name, "pods", uid, "volumes", ".workload-api");
    const { stdout } = await mesh.run("findmnt", "--noheadings", "--output", "FSTYPE,SIZE,OPTIONS", folder);
    assert.match(stdout, /^tmpfs\s+4K\s+.*nosuid,nodev,noexec/);
  });

  test("a sidecar that is killed serves a new socket, and the library finds it by itself", async () => {
    const child = mesh.spawnIn("web", program, "x509", "1000");
    const said = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const next = async (): Promise<Record<string, unknown>> => {
      const { value, done } = await said.next();
      assert.notEqual(done, true, "the program ended");
      return JSON.parse(value as string) as Record<string, unknown>;
    };
    const first = await next();
    assert.equal(first["id"], WEB_ID);
    const { sidecar } = await mesh.pod("web");
    process.kill(sidecar!.pid, "SIGKILL");
    let state = await next();
    for (let i = 0; i < 100 && "error" in state; i++) state = await next();
    assert.equal(state["id"], WEB_ID);
    assert.notEqual(state["key"], first["key"]);
    child.kill("SIGKILL");
  });

  test("a root and its issuer are replaced under a program that watches: each state that it gets verifies, the old root goes last", async () => {
    const child = mesh.spawnIn("web", program, "x509", "1000");
    const states: Record<string, unknown>[] = [];
    createInterface({ input: child.stdout! }).on("line", (line) =>
      states.push(JSON.parse(line) as Record<string, unknown>),
    );
    let stderr = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    await mesh.until("the first state", () => Promise.resolve(states.length > 0));
    const rotated = await mesh.pillion("identity", "rotate", "--root", "--timeout", "120");
    assert.equal(rotated.code, 0, rotated.stderr);
    const last = await mesh.until("the new root alone", () => {
      const state = states.at(-1)!;
      return Promise.resolve(state["roots"] === 1 && state["issuer"] !== states[0]!["issuer"] && state);
    });
    // The program ends with an error where the library does not accept a state: chain to the bundle that came with it.
    assert.equal(child.exitCode, null, stderr);
    assert.equal(last["id"], WEB_ID);
    assert.ok(states.some((state) => state["roots"] === 2));
    assert.ok(!states.some((state) => "error" in state), JSON.stringify(states));
    // By the old issuer still, when the new root had come: nobody is signed for by what others may not know.
    assert.equal(states.find((state) => state["roots"] === 2)?.["issuer"], states[0]!["issuer"]);
    child.kill("SIGKILL");
    // Both ends have new certificates now.
    await mesh.until(
      "mutual TLS again",
      async () => (await inPod("web", "dial", "db:9443", DB_ID)).code === 0,
    );
  });

  test("a revoked identity gets no token and no certificate any more, until that is undone", async () => {
    const revoke = async (...more: string[]): Promise<Run> =>
      await mesh.pillion("identity", "revoke", DB_ID, ...more);
    const revoked = await revoke();
    assert.equal(revoked.code, 0, revoked.stderr);
    const refused = await inPod("db", "jwt", "web");
    assert.match(refused.stderr, /PermissionDenied.*was revoked/);
    assert.equal((await revoke("--undo")).code, 0);
    assert.equal((await inPod("db", "jwt", "web")).code, 0);
  });

  test("metrics count calls by method and status, and say when the certificate ends", async () => {
    const pod = await mesh.pod("db");
    const calls = await mesh.metric(pod, "pillion_workload_api_calls_total", {
      method: "FetchX509SVID",
      grpc_status: "7",
    });
    assert.ok(calls > 0);
    const { stdout } = await mesh.run("curl", "-s", "--max-time", "5", `http://${pod.ip}:4191/metrics`);
    const ends = /^pillion_workload_svid_expiration_timestamp_seconds (\d+)$/m.exec(stdout)?.[1];
    assert.ok(Number(ends) * 1000 > Date.now(), String(ends));
  });
});
