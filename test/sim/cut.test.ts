import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "#/base/conn.ts";
import { SeededRandom } from "#/base/random.ts";
import type { Connections } from "#/proxy/connections.ts";
import { ClientCarrier } from "#/stack/carrier/client-carrier.ts";
import { encodeTransportHeader } from "#/wire/transport-header.ts";
import { clientHello, SimTransport } from "./memory-net.ts";
import { at, identityOf, SimMesh, type SimPod } from "./sim-mesh.ts";

const VIP = "10.9.0.1";
const PORT = 7000;
const OWN_PORT = 4143;
const SERVER = identityOf("server");

interface Scene {
  readonly mesh: SimMesh;
  readonly client: SimPod;
  readonly server: SimPod;
  /** Of the client's and the application's connections, those that are not over. */
  readonly open: Set<Conn>;
}

/** A client that gets as far as this, and then says no more. */
interface Client {
  readonly port: number;
  said(scene: Scene, conn: Conn): void;
}

const SILENT: Client = { port: PORT, said: () => undefined };
const HTTP: Client = {
  port: PORT,
  said: (_scene, conn) => void conn.write(Buffer.from("GET / HTTP/1.1\r\nhost: a\r\n\r\n")),
};
const OPAQUE: Client = { port: PORT, said: (_scene, conn) => void conn.write(Buffer.from("\0hello")) };

const INBOUND: Readonly<Record<string, Client>> = {
  "says nothing": SILENT,
  "has said a part of a request": {
    port: PORT,
    said: (_scene, conn) => void conn.write(Buffer.from("GE")),
  },
  "waits for the answer to a request": HTTP,
  "has an opaque stream": OPAQUE,
  "began a handshake at the workload's port": {
    port: PORT,
    said: (_scene, conn) => void conn.write(clientHello(SERVER, [])),
  },
  "says nothing to the sidecar's own port": { port: OWN_PORT, said: () => undefined },
  "began a handshake at the sidecar's own port": {
    port: OWN_PORT,
    said: (_scene, conn) => void conn.write(clientHello(SERVER, ["pillion/2"])),
  },
  "sends no transport header": {
    port: OWN_PORT,
    said: (scene, conn) => secure(scene, conn, () => undefined),
  },
  "has a carrier": { port: OWN_PORT, said: (scene, conn) => carry(scene, conn) },
  "has a stream on a carrier": {
    port: OWN_PORT,
    said: (scene, conn) =>
      carry(scene, conn, (carrier) => {
        const stream = carrier.open([":method", "CONNECT", ":authority", `${scene.server.host.ip}:${PORT}`]);
        hold(scene, stream);
        stream.write(Buffer.from("hello"));
      }),
  },
};
const OUTBOUND: Readonly<Record<string, Client>> = {
  "says nothing": SILENT,
  "waits for the answer to a request": HTTP,
  "has an opaque stream": OPAQUE,
};

/** Beyond the patience of detection, with the dial, handshake and header that follow. */
const STEPS_MS = 30;
const EVERY_MS = 0.25;
/** A tunnel's last mark has so long to leave. */
const OVER_MS = 6_000;

for (const [what, client] of Object.entries(INBOUND)) {
  test(`inbound: a connection that ${what} is gone when it is cut, at any step`, () => {
    atAnyStep((seed) => {
      const scene = sceneOf(seed, false);
      open(scene, at(scene.server.host.ip, client.port), client);
      return { scene, connections: scene.server.sidecar!.inbound.connections };
    });
  });
}

for (const [what, client] of Object.entries(OUTBOUND)) {
  test(`outbound: a connection that ${what} is gone when it is cut, at any step`, () => {
    atAnyStep((seed) => {
      const scene = sceneOf(seed, true);
      open(scene, at(VIP, client.port), client);
      return { scene, connections: scene.client.sidecar!.outbound.connections };
    });
  });
}

function atAnyStep(begin: (seed: number) => { scene: Scene; connections: Connections }): void {
  for (let afterMs = 0; afterMs < STEPS_MS; afterMs += EVERY_MS) {
    const { scene, connections } = begin(1 + afterMs / EVERY_MS);
    const { clock } = scene.mesh;
    clock.runUntil(() => connections.count === 1, "it is accepted");
    clock.run(afterMs);
    // A stream counts beside its carrier.
    const { count } = connections;
    assert.ok(count === 1 || count === 2);
    assert.equal(connections.cutNewest(1), count);
    clock.run(1);
    assert.equal(connections.count, 0, `cut after ${afterMs} ms`);
    assert.equal(connections.cutNewest(1), 0, "nothing is cut twice");
    clock.run(OVER_MS);
    assert.equal(scene.open.size, 0, `cut after ${afterMs} ms: somebody holds a connection to nobody`);
  }
}

function sceneOf(seed: number, isMeshed: boolean): Scene {
  const mesh = new SimMesh(new SeededRandom(seed));
  const client = mesh.pod("client", "10.1.0.1", { isMeshed });
  const server = mesh.pod("server", "10.1.0.2", { isMeshed: true });
  const scene: Scene = { mesh, client, server, open: new Set() };
  server.host.listen(PORT, (conn) => hold(scene, conn));
  mesh.control.service(at(VIP, PORT), "svc:server", "detect");
  mesh.control.endpoints("svc:server", [mesh.endpoint(server, PORT)]);
  return scene;
}

function open(scene: Scene, to: ReturnType<typeof at>, client: Client): void {
  scene.client.host.dial(to, (_error, conn) => {
    assert.ok(conn !== null);
    hold(scene, conn);
    client.said(scene, conn);
  });
}

/** Answers nothing, and never ends by itself. */
function hold({ open: held }: Scene, conn: Conn): void {
  held.add(conn);
  conn.setHandler({
    onData: () => undefined,
    onEnd: () => undefined,
    onDrain: () => undefined,
    onClose: () => void held.delete(conn),
  });
}

function carry(scene: Scene, conn: Conn, carried: (carrier: ClientCarrier) => void = () => undefined): void {
  const { mesh, client } = scene;
  const transport = new SimTransport(mesh.net, client.host, { name: identityOf("client"), flaw: null });
  const options = { serverName: SERVER, expected: SERVER, alpn: ["pillion/2"], timeoutMs: 5_000 };
  transport.secureClient(conn, { ...options, isAnonymous: false }, (_failure, result) => {
    if (result === null) {
      scene.open.delete(conn);
      return;
    }
    result.conn.write(encodeTransportHeader({ port: OWN_PORT, name: null, protocol: null }));
    const closed = (): void => void scene.open.delete(conn);
    carried(
      new ClientCarrier(
        result.conn,
        mesh.clock,
        {},
        { retired: () => undefined, roomier: () => undefined, closed },
      ),
    );
  });
}

function secure(scene: Scene, conn: Conn, secured: () => void): void {
  const { mesh, client } = scene;
  const transport = new SimTransport(mesh.net, client.host, { name: identityOf("client"), flaw: null });
  const options = { serverName: SERVER, expected: SERVER, alpn: ["pillion/2"], timeoutMs: 5_000 };
  transport.secureClient(conn, { ...options, isAnonymous: false }, (_failure, result) => {
    // Cut meanwhile, or not: what is left to see is its end.
    hold(scene, conn);
    if (result === null) scene.open.delete(conn);
    else secured();
  });
}
