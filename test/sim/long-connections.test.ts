/** Connections that outlive the certificates they began with: whole sidecars on virtual time, leaves of two hours renewed at 70 %. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import { SeededRandom } from "#/base/random.ts";
import { Http1Server } from "#/stack/http/http1-server.ts";
import { SPENT, type HttpService } from "#/stack/http/exchange.ts";
import { GRACE_MS } from "#/proxy/identity/proofs.ts";
import { at, SimMesh, type SimPod } from "./sim-mesh.ts";

const LIFE_MS = 2 * 3_600_000;
const VIP = "10.9.0.1";

/** A leaf that is renewed for as long as `renews`. */
class Leaf {
  renews = true;
  endsAtMs: number;
  constructor({ clock }: SimMesh) {
    this.endsAtMs = clock.wallMs() + LIFE_MS;
    const renew = (): void => {
      if (!this.renews) return;
      this.endsAtMs = clock.wallMs() + LIFE_MS;
      clock.after(0.7 * LIFE_MS, renew);
    };
    clock.after(0.7 * LIFE_MS, renew);
  }
}

interface World {
  readonly mesh: SimMesh;
  readonly client: SimPod;
  readonly server: SimPod;
  readonly leaves: { readonly client: Leaf; readonly server: Leaf };
}

function world(port: number, seed: number): World {
  const mesh = new SimMesh(new SeededRandom(seed));
  const leaves = { client: new Leaf(mesh), server: new Leaf(mesh) };
  const pod = (name: "client" | "server", ip: string): SimPod =>
    mesh.pod(name, ip, { isMeshed: true, leafEndsAtMs: () => leaves[name].endsAtMs });
  const client = pod("client", "10.1.0.1");
  const server = pod("server", "10.1.0.2");
  mesh.control.service(at(VIP, port), `svc:${port}`, "detect");
  mesh.control.endpoints(`svc:${port}`, [mesh.endpoint(server, port)]);
  return { mesh, client, server, leaves };
}

function metric({ registry }: SimPod, pattern: RegExp): number {
  return registry
    .render()
    .split("\n")
    .filter((line) => pattern.test(line))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

/** A database's connection: what it says is echoed. */
class Session {
  heard = "";
  error: ConnError | null = null;
  isClosed = false;
  #conn: Conn | null = null;

  constructor({ client, server }: World, port: number) {
    server.host.listen(port, (conn) => {
      conn.setHandler({
        onData: (bytes) => void conn.write(bytes),
        onEnd: () => conn.end(),
        onDrain: () => undefined,
        onClose: () => undefined,
      });
    });
    client.host.dial(at(VIP, port), (_error, conn) => {
      this.#conn = conn;
      conn?.setHandler({
        onData: (bytes) => void (this.heard += Buffer.from(bytes).toString("latin1")),
        onEnd: () => undefined,
        onDrain: () => undefined,
        onClose: (error) => {
          this.error = error;
          this.isClosed = true;
        },
      });
      this.say("\0 hello");
    });
  }

  say(text: string): void {
    this.#conn?.write(Buffer.from(text, "latin1"));
  }
}

for (const seed of [1, 2, 3]) {
  test(`a silent tunnel outlives five certificates of both its ends, by a few handshakes (seed ${seed})`, () => {
    const one = world(7000, seed);
    const session = new Session(one, 7000);
    one.mesh.clock.run(5 * LIFE_MS);
    session.say(" and still here");
    one.mesh.clock.run(1000);
    assert.equal(session.heard, "\0 hello and still here");
    assert.equal(session.isClosed, false);
    const proofs = metric(one.client, /^pillion_identity_proofs_total\{result="proven"\}/);
    assert.ok(proofs >= 4 && proofs <= 15, String(proofs));
    // A handshake that carries nothing is nobody's error, and leaves nothing open.
    assert.equal(metric(one.server, /^inbound_tcp_errors_total/), 0);
    assert.equal(one.server.sidecar?.inbound.connections.count, 2, "a stream and its carrier");
  });

  test(`a tunnel whose client's certificate is not renewed is cut in the grace after its end, by both sides (seed ${seed})`, () => {
    const one = world(7000, seed);
    one.leaves.client.renews = false;
    const session = new Session(one, 7000);
    one.mesh.clock.run(LIFE_MS + GRACE_MS - 30_000);
    assert.equal(session.isClosed, false);
    one.mesh.clock.run(60_000);
    assert.equal(session.isClosed, true);
    assert.notEqual(session.error, null);
    const expired = /^(in|out)bound_tcp_errors_total.*error="expired_identity"/;
    assert.ok(metric(one.server, expired) + metric(one.client, expired) >= 1);
    assert.equal(one.server.sidecar?.inbound.connections.count, 0);
  });

  test(`a server whose certificate is not renewed is left likewise (seed ${seed})`, () => {
    const one = world(7000, seed);
    one.leaves.server.renews = false;
    const session = new Session(one, 7000);
    one.mesh.clock.run(LIFE_MS + GRACE_MS + 30_000);
    assert.equal(session.isClosed, true);
  });

  test(`requests move to connections that prove more, and none is lost (seed ${seed})`, () => {
    const one = world(8000, seed);
    const application: HttpService = {
      call: (_head, _last, reply) => {
        reply.head({ status: 200, reason: "OK", version: "1.1", fields: ["content-length", "2"] }, false);
        reply.body(Uint8Array.of(111, 107), 0, 2);
        reply.finish(null);
        return SPENT;
      },
    };
    one.server.host.listen(
      8000,
      (conn) => void new Http1Server(conn, application, one.mesh.clock, () => undefined),
    );
    // A program that keeps its connection to its sidecar.
    let text = "";
    let asked = 0;
    one.client.host.dial(at(VIP, 8000), (_error, conn) => {
      conn?.setHandler({
        onData: (bytes) => void (text += Buffer.from(bytes).toString("latin1")),
        onEnd: () => conn.end(),
        onDrain: () => undefined,
        onClose: () => undefined,
      });
      const ask = (): void => {
        conn?.write(Buffer.from("GET / HTTP/1.1\r\nhost: web\r\n\r\n"));
        if (++asked < 600) one.mesh.clock.after(60_000, ask);
      };
      ask();
    });
    one.mesh.clock.run(5 * LIFE_MS + 60_000);
    assert.equal(asked, 600);
    assert.equal(text.split("HTTP/1.1 200").length - 1, 600);
    const connections = metric(one.server, /^tcp_open_total\{direction="inbound",peer="src".*tls="true"/);
    assert.ok(connections >= 5 && connections <= 16, String(connections));
    // Each move is a proof, so the client needs no handshake for that alone.
    assert.equal(metric(one.client, /^pillion_identity_proofs_total/), 0);
    assert.equal(metric(one.server, /^inbound_tcp_errors_total/), 0);
    assert.equal(metric(one.client, /^outbound_tcp_errors_total/), 0);
  });
}
