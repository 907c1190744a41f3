import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { cannotRun, Mesh, until, type Pod } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.3";

function echo({ net }: WorkerContext, port: number): Promise<null> {
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

function ask(
  { net }: WorkerContext,
  host: string,
  port: number,
): Promise<{ text: string; error: string; ms: number }> {
  return new Promise((resolve) => {
    const outcome = { text: "", error: "", ms: 0 };
    const startedAtMs = performance.now();
    const socket = net.connect({ host, port }, () => socket.write("\x00ping"));
    socket.on("data", (bytes) => {
      outcome.text += bytes.toString("latin1");
      socket.destroy();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => (outcome.error = error.code ?? ""));
    socket.on("close", () => {
      outcome.ms = performance.now() - startedAtMs;
      resolve(outcome);
    });
  });
}

/** A connection that stays, and answers whether it still echoes. */
function keep({ net, state }: WorkerContext, host: string, port: number): Promise<null> {
  const socket = net.connect({ host, port });
  state["kept"] = socket;
  return new Promise((done, failed) => {
    socket.once("error", failed);
    socket.once("data", () => done(null));
    socket.write("\x00a");
  });
}
function kept({ state }: WorkerContext): Promise<string> {
  const socket = state["kept"] as Socket;
  return new Promise((done) => {
    if (socket.destroyed) done("destroyed");
    socket.once("data", (bytes: Buffer) => done(bytes.toString("latin1")));
    socket.once("close", () => done("closed"));
    socket.write("still here");
  });
}

describe("a sidecar and its control plane", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let server: Pod;
  let stranger: Pod;
  before(async () => {
    mesh = await Mesh.start();
    await mesh.set({ certificateSeconds: 4 });
    server = await mesh.pod("server", { isMeshed: true, inboundPorts: [7000] });
    client = await mesh.pod("client", { isMeshed: true, env: { PILLION_DISCOVERY_TIMEOUT: "1500ms" } });
    stranger = await mesh.pod("stranger", { isMeshed: false });
    await mesh.set({
      services: { [`${VIP}:7000`]: { protocol: "opaque", path: "echo:7000" } },
      endpoints: { "echo:7000": [server.endpoint(7000)] },
    });
    await server.run(echo, 7000);
    await stranger.run(echo, 7001);
  });
  after(() => mesh.close());

  test("renews its certificate in time, proven by the one in force, and no connection notices", async () => {
    await client.run(keep, VIP, 7000);
    const renewals = (): number =>
      mesh.controlLines.filter((line) => line === `certified ${client.identity} certificate`).length;
    await until(() => renewals() >= 2, "two renewals by certificate", 12_000);
    assert.equal(mesh.controlLines.filter((line) => line === `certified ${client.identity} token`).length, 1);
    assert.equal(await client.run(kept), "still here");
    assert.equal((await client.run(ask, VIP, 7000)).text, "\x00ping");
    assert.ok((await client.metric(/^control_identity_cert_refreshes_total/)) >= 3);
  });

  test("keeps the certificate in force when a renewal fails, and is ready until it ends", async () => {
    await mesh.set({ certificateSeconds: 3600 });
    await until(
      () =>
        client.logs.some(
          (line) => line["message"] === "certificate issued" && Number(line["validSeconds"]) > 3000,
        ),
      "a long certificate",
      10_000,
    );
    assert.equal((await client.admin("/ready")).status, 200);
  });

  test("serves known targets while the control plane is away, new connections included", async () => {
    await client.run(ask, VIP, 7000);
    await mesh.killControl();
    await until(async () => (await client.metric(/^pillion_control_connected/)) === 0, "the sidecar noticed");
    for (let i = 0; i < 20; i++) assert.equal((await client.run(ask, VIP, 7000)).text, "\x00ping");
    assert.equal(await client.run(kept), "still here");
  });

  test("an unknown target of the mesh then fails with a reason, within its bound; one outside is passed through", async () => {
    const inside = await client.run(ask, "10.214.0.77", 7000);
    assert.equal(inside.error, "ECONNRESET");
    assert.ok(inside.ms > 1400 && inside.ms < 4000, `${inside.ms} ms`);
    assert.ok(client.refusals().includes("no_answer"));
    // The mesh is 10.213.0.0/16 and 10.214.0.0/16; the stranger has an address outside of it, too.
    stranger.configure("addr", "add", "10.220.0.1/32", "dev", "eth0");
    client.configure("route", "add", "10.220.0.1", "via", stranger.ip);
    assert.equal((await client.run(ask, "10.220.0.1", 7001)).text, "\x00ping");
  });

  test("is found again within 5 s when it is back", async () => {
    await mesh.startControl();
    await until(
      async () => (await client.metric(/^pillion_control_connected/)) === 1,
      "the sidecar is connected again",
      5000,
    );
    assert.equal((await client.run(ask, VIP, 7000)).text, "\x00ping");
  });

  test("keeps its key in memory alone, has no capabilities, and cannot be traced by its own user", () => {
    const pid = client.sidecar?.pid ?? 0;
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    assert.match(status, /CapEff:\t0000000000000000\n/);
    assert.match(status, /CapPrm:\t0000000000000000\n/);
    assert.match(status, /Uid:\t61100\t61100\t61100\t61100\n/);
    // PR_SET_DUMPABLE 0: its files in /proc belong to root.
    assert.equal(statSync(`/proc/${pid}/environ`).uid, 0);
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      let file = "";
      try {
        file = readlinkSync(`/proc/${pid}/fd/${fd}`);
      } catch {
        // Closed since it was listed.
      }
      assert.doesNotMatch(file, /token/);
    }
  });

  test("the admin server reads for anybody, and changes state for loopback only", async () => {
    const outside = (path: string, method: string): Promise<number> =>
      stranger.run(
        ({ http }, host, at, verb) =>
          new Promise<number>((resolve, reject) => {
            const request = http.request(
              { host, port: 4191, path: at, method: verb, agent: false },
              (response) => {
                response.resume();
                resolve(response.statusCode ?? 0);
              },
            );
            request.on("error", reject);
            request.end();
          }),
        client.ip,
        path,
        method,
      );
    assert.equal(await outside("/live", "GET"), 200);
    assert.equal(await outside("/metrics", "GET"), 200);
    assert.equal(await outside("/shutdown", "POST"), 403);
    assert.equal(await outside("/proxy-log-level", "PUT"), 403);
    assert.equal((await client.admin("/nothing")).status, 404);
    assert.equal((await client.admin("/proxy-log-level")).text, "debug\n");
    await client.run(({ state }) => void (state["kept"] as Socket).destroy());
    assert.equal((await client.admin("/shutdown", "POST")).status, 200);
    await until(() => client.sidecar?.exitCode === 0, "the sidecar has ended");
  });
});
