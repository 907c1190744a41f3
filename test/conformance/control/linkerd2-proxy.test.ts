import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import test from "node:test";
import { makeCsr } from "../../../src/proxy/identity/csr.ts";
import { newKey, Rig } from "../../e2e/control/rig.ts";

const PROXY = process.env["PILLION_LINKERD2_PROXY"];
const NAME = "web.shop.serviceaccount.identity.pillion.cluster.local";
const READY_MS = 20_000;

const FOLDER = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  serviceAccountName: web
  containers: [{name: web, command: [web], ports: [{containerPort: 8080}]}]
`;

// The boot rig of Linkerd's own facts, without redirection: what a proxy needs of its control plane to become ready.
// Only where PILLION_LINKERD2_PROXY names a binary: none is distributed in a form that an installer could fetch.
if (PROXY !== undefined) {
  test("a linkerd2-proxy boots under our control plane and becomes ready", async () => {
    await using rig = new Rig();
    const agent = await rig.start();
    agent.report();
    agent.folder({ "web.yaml": FOLDER });
    const plan = await agent.planThat((one) => one.pods.length === 1);
    agent.obey();
    const [pod] = plan.pods;
    const { token } = await agent.attest(pod!.uid);
    const { key, publicKey } = newKey();
    writeFileSync(join(rig.dir, "key.p8"), key.export({ type: "pkcs8", format: "der" }), { mode: 0o600 });
    writeFileSync(join(rig.dir, "csr.der"), makeCsr(NAME, key, publicKey));
    writeFileSync(join(rig.dir, "token"), token, { mode: 0o600 });
    const control = `localhost.:${rig.plaintextPort}`;
    const admin = await freePort();
    const proxy = spawn(PROXY!, [], {
      stdio: ["ignore", "inherit", "inherit"],
      env: {
        ...pod!.sidecar!.env,
        LINKERD2_PROXY_IDENTITY_DIR: rig.dir,
        LINKERD2_PROXY_IDENTITY_TOKEN_FILE: join(rig.dir, "token"),
        LINKERD2_PROXY_IDENTITY_SVC_ADDR: control,
        LINKERD2_PROXY_DESTINATION_SVC_ADDR: control,
        LINKERD2_PROXY_POLICY_SVC_ADDR: control,
        LINKERD2_PROXY_INBOUND_LISTEN_ADDR: `127.0.0.1:${await freePort()}`,
        LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS: `127.0.0.1:${await freePort()}`,
        LINKERD2_PROXY_CONTROL_LISTEN_ADDR: `127.0.0.1:${await freePort()}`,
        LINKERD2_PROXY_ADMIN_LISTEN_ADDR: `127.0.0.1:${admin}`,
        LINKERD2_PROXY_LOG: "warn",
      },
    });
    const exited = new Promise<never>((_, reject) => {
      proxy.once("exit", (code) => reject(new Error(`linkerd2-proxy ended with ${code}`)));
      proxy.once("error", reject);
    });
    exited.catch(() => {});
    try {
      await Promise.race([exited, untilReady(admin)]);
    } finally {
      proxy.kill("SIGKILL");
    }
  });
}

async function untilReady(port: number): Promise<void> {
  const deadline = Date.now() + READY_MS;
  for (;;) {
    if ((await statusOf(port)) === 200) return;
    assert.ok(Date.now() < deadline, `/ready did not answer 200 within ${READY_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function statusOf(port: number): Promise<number> {
  return await new Promise((resolve) => {
    const asked = request({ host: "127.0.0.1", port, path: "/ready" }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    asked.on("error", () => resolve(0));
    asked.end();
  });
}

async function freePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
