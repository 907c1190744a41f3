import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "#/base/conn.ts";
import { addressKey, type IpAddress } from "#/base/address.ts";
import type { ConnError } from "#/base/errors.ts";
import { TunnelConn } from "#/stack/tunnel-conn.ts";
import { SystemClock } from "./clock.ts";
import { NodeTransport } from "./node-transport.ts";
import { testLeaf, testRoot } from "./testing.ts";
import { Tls } from "./tls.ts";
import type { SecureError, SecureResult } from "./transport.ts";

const NAME = "web.shop.serviceaccount.identity.pillion.cluster.local";
const root = testRoot("cluster.local");
const leaf = testLeaf(root);

const clock = new SystemClock();
const tls = new Tls(clock);
tls.setAnchors(new Map([["cluster.local", root.pem]]));
tls.setLeaf({ keyPem: leaf.keyPem, chainPem: leaf.pem });
const transport = new NodeTransport(clock, tls, {
  backlog: 16,
  connectionsMax: 16,
  acceptKeepAliveMs: 0,
  localIp: null,
  originalDestination: (_fd, local) => local,
});
const loopback = { ip: "127.0.0.1" as IpAddress, port: 0 };

/** Everything one side saw, and a promise of its close. */
class Seen {
  text = "";
  ended = false;
  closed = Promise.withResolvers<ConnError | null>();
  constructor(conn: Conn, onEnd: () => void = () => undefined) {
    conn.setHandler({
      onData: (bytes) => void (this.text += Buffer.from(bytes).toString("latin1")),
      onEnd: () => {
        this.ended = true;
        onEnd();
      },
      onDrain: () => undefined,
      onClose: (error) => this.closed.resolve(error),
    });
  }
}

async function pair(
  expected: string,
  serverAlpn: string[],
  clientAlpn: string[],
): Promise<{ client: SecureResult | SecureError; server: SecureResult | SecureError }> {
  const server = Promise.withResolvers<SecureResult | SecureError>();
  const client = Promise.withResolvers<SecureResult | SecureError>();
  const listener = await transport.listen(loopback, ({ conn, originalDestination }) => {
    assert.notEqual(originalDestination, null);
    assert.equal(addressKey(conn.local), addressKey(listener.address));
    transport.secureServer(conn, { alpn: serverAlpn, timeoutMs: 2000 }, (error, result) =>
      server.resolve((error ?? result)!),
    );
  });
  transport.connect(listener.address, { timeoutMs: 1000, keepAliveMs: 0 }, (_error, conn) => {
    const options = { serverName: NAME, expected, alpn: clientAlpn, timeoutMs: 2000, isAnonymous: false };
    transport.secureClient(conn!, options, (error, result) => client.resolve((error ?? result)!));
  });
  const both = { client: await client.promise, server: await server.promise };
  listener.close();
  return both;
}

test("proves both peers and agrees on an ALPN", async () => {
  const { client, server } = await pair(NAME, ["a", "pillion/1"], ["pillion/1"]);
  assert("conn" in client && "conn" in server);
  assert.equal(client.peer.name, NAME);
  assert.deepEqual(server.peer.identity, {
    trustDomain: "cluster.local",
    namespace: "shop",
    serviceAccount: "web",
  });
  assert.equal(client.alpn, "pillion/1");
  assert.equal(server.alpn, "pillion/1");
  const seen = new Seen(server.conn, () => server.conn.end());
  const answer = new Seen(client.conn);
  client.conn.write(Buffer.from("hello "));
  client.conn.write(Buffer.from("there"));
  client.conn.end();
  assert.equal(await seen.closed.promise, null);
  assert.equal(await answer.closed.promise, null);
  assert.equal(seen.text, "hello there");
});

test("refuses who is not whom it dialled", async () => {
  const { client } = await pair("other.shop.serviceaccount.identity.pillion.cluster.local", [], []);
  assert("refusal" in client);
  assert.equal(client.refusal, "wrong_identity");
});

test("takes the SPIFFE form of the expected name for the same identity", async () => {
  const { client } = await pair("spiffe://cluster.local/ns/shop/sa/web", [], []);
  assert("conn" in client);
  client.conn.reset();
});

test("refuses a client that offers no ALPN where one is needed", async () => {
  const { server } = await pair(NAME, ["pillion/1"], []);
  assert("refusal" in server);
  assert.equal(server.refusal, "no_alpn");
});

test("refuses a client that offers a foreign ALPN", async () => {
  const { server } = await pair(NAME, ["pillion/1"], ["h2"]);
  assert("refusal" in server);
  assert.equal(server.refusal, "foreign_alpn");
});

test("a reset under TLS arrives as a reset", async () => {
  const { client, server } = await pair(NAME, [], []);
  assert("conn" in client && "conn" in server);
  const seen = new Seen(server.conn);
  new Seen(client.conn);
  client.conn.reset();
  assert.equal((await seen.closed.promise)?.code, "RESET");
});

test("a tunnel keeps half-close, and tells a cut carrier from an end", async () => {
  const { client, server } = await pair(NAME, ["pillion/1"], ["pillion/1"]);
  assert("conn" in client && "conn" in server);
  const near = new TunnelConn(clock, client.conn);
  const far = new TunnelConn(clock, server.conn);
  const answer = new Seen(near);
  const seen = new Seen(far, () => {
    far.write(Buffer.from("after your end"));
    far.end();
  });
  near.write(Buffer.from("x".repeat(300_000)));
  near.end();
  assert.equal(await answer.closed.promise, null);
  assert.equal(await seen.closed.promise, null);
  assert.equal(answer.text, "after your end");
  assert.equal(seen.text.length, 300_000);

  const second = await pair(NAME, ["pillion/1"], ["pillion/1"]);
  assert("conn" in second.client && "conn" in second.server);
  const cut = new Seen(new TunnelConn(clock, second.server.conn));
  new Seen(second.client.conn);
  second.client.conn.end();
  second.client.conn.pause();
  assert.equal((await cut.closed.promise)?.code, "RESET");
});

test("a tunnel delivers what was written before its reset", async () => {
  const { client, server } = await pair(NAME, ["pillion/1"], ["pillion/1"]);
  assert("conn" in client && "conn" in server);
  const near = new TunnelConn(clock, client.conn);
  const seen = new Seen(new TunnelConn(clock, server.conn));
  new Seen(near);
  near.write(Buffer.from("y".repeat(200_000)));
  near.reset();
  assert.equal((await seen.closed.promise)?.code, "RESET");
  assert.equal(seen.text.length, 200_000);
  assert.equal(seen.ended, false);
});
