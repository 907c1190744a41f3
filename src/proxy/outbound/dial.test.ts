import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { IpAddress } from "#/base/address.ts";
import type { Conn } from "#/base/conn.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import { SystemClock } from "#/net/clock.ts";
import { SILENT } from "#/net/log.ts";
import { NodeTransport } from "#/net/node-transport.ts";
import { testLeaf, testRoot } from "#/net/testing.ts";
import { Tls } from "#/net/tls.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { TransportMetrics } from "#/stack/metrics/transport.ts";
import { Dialler } from "./dial.ts";

const SERVER = "server.shop.serviceaccount.identity.pillion.cluster.local";
const HERE = "127.0.0.1" as IpAddress;
const clock = new SystemClock();
const root = testRoot("cluster.local");

function transportOf(account: string): NodeTransport {
  const { keyPem, pem } = testLeaf(root, { account });
  const tls = new Tls(clock);
  tls.setAnchors(new Map([["cluster.local", root.pem]]));
  tls.setLeaf({ keyPem, chainPem: pem });
  return new NodeTransport(clock, tls, {
    backlog: 16,
    connectionsMax: 16,
    acceptKeepAliveMs: 0,
    localIp: null,
    originalDestination: (_fd, { local }) => local,
  });
}

/** What the server has seen of each connection, in turn. */
interface Seen {
  readonly conn: Conn;
  bytes: number;
  ended: boolean;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const stopAtMs = performance.now() + 30_000;
  while (!condition()) {
    assert.ok(performance.now() < stopAtMs, what);
    await pause(2);
  }
}

const seen: Seen[] = [];
const far = transportOf("server");
const listener = await far.listen({ ip: HERE, port: 0 }, ({ conn }) =>
  far.secureServer(conn, { alpn: ["pillion/2"], timeoutMs: 20_000 }, (_error, result) => {
    if (result === null) return;
    const one: Seen = { conn: result.conn, bytes: 0, ended: false };
    seen.push(one);
    result.conn.setHandler({
      onData: (bytes) => void (one.bytes += bytes.length),
      onEnd: () => {
        one.ended = true;
        result.conn.end();
      },
      onDrain: () => undefined,
      onClose: () => undefined,
    });
  }),
);
after(() => listener.close());

test("a root that is trusted no more has a carrier proven by one handshake that carries nothing", async () => {
  const registry = new Registry();
  let trusted = true;
  let aheadMs = 0;
  const dialler = new Dialler({
    transport: transportOf("web"),
    clock: {
      nowMs: () => clock.nowMs() + aheadMs,
      wallMs: () => clock.wallMs() + aheadMs,
      after: (delayMs, callback) => clock.after(delayMs, callback),
      soon: (callback) => clock.soon(callback),
    },
    log: SILENT,
    registry,
    metrics: new TransportMetrics(registry),
    connectTimeoutMs: 20_000,
    handshakeTimeoutMs: 20_000,
    keepAliveMs: 0,
    localIps: [],
    random: { next: () => 0.5 },
    carrierMachine: {},
    trusts: () => trusted,
  });
  const endpoint: Endpoint = {
    address: { ip: HERE, port: 5432 },
    weight: 1,
    identity: { name: SERVER, serverName: SERVER },
    protocolHint: "opaque",
    tunnelPort: listener.address.port,
    authorityOverride: null,
    labels: {},
  };
  const dialled = Promise.withResolvers<Conn>();
  dialler.dial(endpoint, "opaque", (error, conn) => {
    if (conn === null) dialled.reject(error ?? new Error("no connection"));
    else dialled.resolve(conn);
  });
  const tunnel = await dialled.promise;
  let closed = false;
  tunnel.setHandler({
    onData: () => undefined,
    onEnd: () => undefined,
    onDrain: () => undefined,
    onClose: () => void (closed = true),
  });
  assert.equal(dialler.proofs.peerCount, 1);
  await until(() => (seen[0]?.bytes ?? 0) > 0, "the transport header has come");

  trusted = false;
  dialler.proofs.trustChanged();
  // Servers move what they can in the first minute.
  aheadMs = 120_000;
  dialler.proofs.trustChanged();
  await until(() => seen[1]?.ended === true, "the second handshake has ended");
  assert.equal(seen.length, 2);
  assert.equal(seen[1]?.bytes, 0);
  assert.equal(closed, false);
  assert.match(registry.render(), /^pillion_identity_proofs_total\{result="proven"\} 1$/m);
  // The client names what protects it; of both connections one is counted as the workload's.
  assert.match(
    registry.render(),
    /^tcp_open_total\{.*tls_cipher="TLS_AES_128_GCM_SHA256",tls_group="X25519MLKEM768"\} 1$/m,
  );

  // The carrier, that is: a stream alone proves nothing.
  tunnel.reset();
  seen[0]?.conn.reset();
  await until(() => dialler.proofs.peerCount === 0, "nothing is kept of a peer without connections");
});
