/** Opaque connections that share a carrier between two whole sidecars: to policy, limits and metrics each is one by itself. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "#/base/conn.ts";
import { SeededRandom } from "#/base/random.ts";
import { at, identityOf, SimMesh, type SimPod } from "./sim-mesh.ts";

const VIP = "10.9.0.1";
const PORT = 7000;
/** Nobody listens there. */
const DEAD_PORT = 7001;

interface Session {
  conn: Conn | null;
  heard: string;
  /** "" while it is open. */
  ended: "" | "clean" | "reset";
}

class Scene {
  readonly mesh = new SimMesh(new SeededRandom(5));
  readonly client: SimPod;
  readonly server: SimPod;
  readonly programs: Conn[] = [];

  constructor(environment: Readonly<Record<string, string>> = {}) {
    const { mesh } = this;
    this.client = mesh.pod("client", "10.1.0.1", { isMeshed: true });
    this.server = mesh.pod("server", "10.1.0.2", { isMeshed: true, environment });
    for (const port of [PORT, DEAD_PORT]) {
      mesh.control.service(at(VIP, port), `svc:${port}`, "opaque");
      mesh.control.endpoints(`svc:${port}`, [mesh.endpoint(this.server, port)]);
    }
    this.server.host.listen(PORT, (conn) => {
      this.programs.push(conn);
      conn.setHandler({
        onData: (bytes) => void conn.write(new Uint8Array(bytes)),
        onEnd: () => conn.end(),
        onDrain: () => undefined,
        onClose: () => undefined,
      });
    });
  }

  open(port: number = PORT): Session {
    const session: Session = { conn: null, heard: "", ended: "" };
    this.client.host.dial(at(VIP, port), (_error, conn) => {
      session.conn = conn;
      conn?.setHandler({
        onData: (bytes) => void (session.heard += Buffer.from(bytes).toString()),
        onEnd: () => undefined,
        onDrain: () => undefined,
        onClose: (error) => void (session.ended = error === null ? "clean" : "reset"),
      });
      conn?.write(Buffer.from("hello"));
    });
    this.mesh.clock.run(200);
    return session;
  }

  metric({ registry }: SimPod, pattern: RegExp): number {
    const lines = registry.render().split("\n");
    return lines
      .filter((line) => pattern.test(line))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }
}

test("each connection has its own series, with who is at the other end", () => {
  const scene = new Scene();
  const sessions = Array.from({ length: 5 }, () => scene.open());
  assert.equal(
    sessions.every(({ heard }) => heard === "hello"),
    true,
  );
  const ofClient = new RegExp(
    `^tcp_open_total\\{direction="inbound",peer="src",.*client_id="${identityOf("client")}"`,
  );
  const ofServer = new RegExp(
    `^tcp_open_total\\{direction="outbound",peer="dst",.*server_id="${identityOf("server")}"`,
  );
  assert.equal(scene.metric(scene.server, ofClient), 5);
  assert.equal(scene.metric(scene.client, ofServer), 5);
  assert.equal(scene.metric(scene.server, /^tcp_read_bytes_total\{direction="inbound",peer="src"/), 25);
  assert.equal(scene.metric(scene.server, /target_port="7000".*client_id=.* 5$/), 5);
  // They share one connection, which counts beside them.
  assert.equal(scene.server.sidecar?.inbound.connections.count, 6);
  sessions[0]?.conn?.end();
  scene.programs[1]?.reset();
  scene.mesh.clock.run(200);
  assert.deepEqual(
    sessions.map(({ ended }) => ended),
    ["clean", "reset", "", "", ""],
  );
  assert.equal(scene.metric(scene.server, /^tcp_open_connections\{direction="inbound",peer="src"/), 3);
});

test("an application that refuses ends the one connection, and says so", () => {
  const scene = new Scene();
  const alive = scene.open();
  const refused = scene.open(DEAD_PORT);
  assert.deepEqual([alive.ended, refused.ended], ["", "reset"]);
  assert.equal(
    scene.metric(scene.server, /^inbound_tcp_errors_total\{error="connect_refused",target_port="7001"/),
    1,
  );
});

test("streams count against the bound on connections from one address, as connections do", () => {
  const scene = new Scene({ PILLION_CONNECTIONS_PER_CLIENT_MAX: "4" });
  const sessions = Array.from({ length: 6 }, () => scene.open());
  assert.deepEqual(
    sessions.map(({ ended }) => ended),
    ["", "", "", "reset", "reset", "reset"],
  );
  assert.equal(scene.metric(scene.server, /^inbound_tcp_errors_total\{error="too_many_connections"/), 3);
  assert.equal(scene.metric(scene.server, /^pillion_limit_reached_total\{.*connections_per_client/), 3);
});

test("a sidecar that is killed ends all of them, and the next finds another carrier once it is back", () => {
  const scene = new Scene();
  const sessions = [scene.open(), scene.open()];
  scene.server.sidecar?.inbound.connections.cutAll();
  scene.mesh.clock.run(200);
  assert.deepEqual(
    sessions.map(({ ended }) => ended),
    ["reset", "reset"],
  );
  assert.equal(scene.open().heard, "hello");
});

test("a server that drains lets open connections go on, until it cuts what is left", async () => {
  const scene = new Scene();
  const sessions = [scene.open(), scene.open()];
  const drained = scene.server.sidecar?.drain(5_000);
  scene.mesh.clock.run(1_000);
  sessions[0]?.conn?.write(Buffer.from(" again"));
  scene.mesh.clock.run(1_000);
  assert.equal(sessions[0]?.heard, "hello again");
  sessions[0]?.conn?.end();
  scene.mesh.clock.run(1_000);
  assert.deepEqual([sessions[0]?.ended, sessions[1]?.ended], ["clean", ""]);
  scene.mesh.clock.run(5_000);
  assert.equal(sessions[1]?.ended, "reset");
  await drained;
});

test("a connection from before there was an endpoint goes on as bytes once there is one that is opaque", () => {
  const scene = new Scene();
  const { mesh } = scene;
  const port = 7002;
  mesh.control.service(at(VIP, port), "svc:new", "detect");
  mesh.control.endpoints("svc:new", []);
  // The beginning of a request, for all that can be told.
  const session = scene.open(port);
  assert.deepEqual([session.heard, session.ended], ["", ""]);
  mesh.control.endpoints("svc:new", [{ ...mesh.endpoint(scene.server, PORT), protocolHint: "opaque" }]);
  mesh.clock.run(500);
  assert.equal(session.heard, "hello");
});
