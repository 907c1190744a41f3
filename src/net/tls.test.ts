import assert from "node:assert/strict";
import { syncBuiltinESMExports } from "node:module";
import { mock, test } from "node:test";
import moduleOfTls, { connect } from "node:tls";
import type { Conn } from "#/base/conn.ts";
import { addressKey, type IpAddress } from "#/base/address.ts";
import type { ConnError } from "#/base/errors.ts";
import { readRefusalNote } from "#/wire/refusal-note.ts";
import { SystemClock } from "./clock.ts";
import { NodeTransport } from "./node-transport.ts";
import { testCertificate, testLeaf, testRoot, type TestCertificate, type TestIssued } from "./testing.ts";
import { Tls, type TlsLeaf } from "./tls.ts";
import type { SecureError, SecureResult } from "./transport.ts";

const NAME = "web.shop.serviceaccount.identity.pillion.cluster.local";
const root = testRoot("cluster.local");
const leaf = testLeaf(root);
const other = testRoot("other.example");

const clock = new SystemClock();
const tls = new Tls(clock);
tls.setAnchors(new Map([["cluster.local", root.pem]]));
tls.setLeaf({ keyPem: leaf.keyPem, chainPem: leaf.pem });
const transportOver = (own: Tls): NodeTransport =>
  new NodeTransport(clock, own, {
    backlog: 16,
    connectionsMax: 16,
    acceptKeepAliveMs: 0,
    localIp: null,
    originalDestination: (_fd, { local }) => local,
  });
const transport = transportOver(tls);
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
  clientTls: Tls = tls,
  refusedByPeer: (reason: string, detail: string) => void = () => undefined,
  serverTransport: NodeTransport = transport,
): Promise<{ client: SecureResult | SecureError; server: SecureResult | SecureError }> {
  const server = Promise.withResolvers<SecureResult | SecureError>();
  const client = Promise.withResolvers<SecureResult | SecureError>();
  const listener = await serverTransport.listen(loopback, ({ conn, originalDestination }) => {
    assert.notEqual(originalDestination, null);
    assert.equal(addressKey(conn.local), addressKey(listener.address));
    serverTransport.secureServer(conn, { alpn: serverAlpn, timeoutMs: 2000 }, (error, result) =>
      server.resolve((error ?? result)!),
    );
  });
  transport.connect(listener.address, { timeoutMs: 1000, keepAliveMs: 0 }, (_error, conn) => {
    const common = { serverName: NAME, expected, alpn: clientAlpn, timeoutMs: 2000, isAnonymous: false };
    clientTls.connect(conn!, { ...common, refusedByPeer }, (error, result) =>
      client.resolve((error ?? result)!),
    );
  });
  const both = { client: await client.promise, server: await server.promise };
  listener.close();
  return both;
}

test("proves both peers and agrees on an ALPN", async () => {
  const { client, server } = await pair(NAME, ["a", "pillion/2"], ["pillion/2"]);
  assert("conn" in client && "conn" in server);
  assert.equal(client.peer.name, NAME);
  assert.deepEqual(server.peer.identity, {
    trustDomain: "cluster.local",
    namespace: "shop",
    serviceAccount: "web",
  });
  for (const { proof } of [client, server])
    assert.deepEqual(proof, {
      endsAtMs: leaf.certificate.validToDate.getTime(),
      root: root.certificate.fingerprint256,
    });
  assert.equal(tls.trusts(client.proof.root), true);
  assert.equal(tls.trusts(other.certificate.fingerprint256), false);
  // Node tells the client alone of the group.
  assert.deepEqual(client.crypto, { cipher: "TLS_AES_128_GCM_SHA256", group: "X25519MLKEM768" });
  assert.deepEqual(server.crypto, { cipher: "TLS_AES_128_GCM_SHA256", group: "" });
  assert.equal(client.alpn, "pillion/2");
  assert.equal(server.alpn, "pillion/2");
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
  const { server } = await pair(NAME, ["pillion/2"], []);
  assert("refusal" in server);
  assert.equal(server.refusal, "no_alpn");
});

test("refuses a client that offers a foreign ALPN", async () => {
  const { server } = await pair(NAME, ["pillion/2"], ["h2"]);
  assert("refusal" in server);
  assert.equal(server.refusal, "foreign_alpn");
});

const at = (changes: TestCertificate): TlsLeaf => leafOf(testLeaf(root, {}, changes));
const leafOf = ({ keyPem, pem }: TestIssued): TlsLeaf => ({ keyPem, chainPem: pem });
const dns = (value: string): { kind: "dns"; value: string } => ({ kind: "dns", value });
const uri = (value: string): { kind: "uri"; value: string } => ({ kind: "uri", value });
const URI = "spiffe://cluster.local/ns/shop/sa/web";
const refusals: readonly [name: string, refusal: string, detail: RegExp, leaf: () => TlsLeaf][] = [
  [
    "a valid certificate of another trust domain",
    "unknown_issuer",
    /UNABLE_TO/,
    () => leafOf(testLeaf(other, { trustDomain: "other.example" })),
  ],
  [
    "one of our root that names another trust domain",
    "foreign_trust_domain",
    /other\.example is not ours/,
    () => leafOf(testLeaf(root, { trustDomain: "other.example" })),
  ],
  [
    "a self-signed certificate",
    "self_signed",
    /DEPTH_ZERO_SELF_SIGNED_CERT/,
    () => leafOf(testCertificate({ names: [dns(NAME)], keyUsage: [0] })),
  ],
  ["an expired certificate", "expired", /ended at 20/, () => at({ beginsInMs: -9000, endsInMs: -5000 })],
  ["one whose time has not come", "not_yet_valid", /begins at 20/, () => at({ beginsInMs: 600_000 })],
  ["two URIs", "ambiguous_name", /2 URIs/, () => at({ names: [uri(URI), uri(URI)] })],
  ["two DNS names", "ambiguous_name", /2 DNS names/, () => at({ names: [dns(NAME), dns(NAME)] })],
  [
    "a DNS name and a URI that disagree",
    "ambiguous_name",
    /not the same workload/,
    () => at({ names: [dns(NAME), uri(`${URI}2`)] }),
  ],
  ["a CA used as a leaf", "signing_certificate", /CA's/, () => at({ isAuthority: true, keyUsage: [0, 5] })],
  ["a key that may sign certificates", "signing_certificate", /keyCertSign/, () => at({ keyUsage: [0, 5] })],
  ["no name at all", "unnamed_peer", /names nobody/, () => at({ names: [] })],
];
for (const [name, refusal, detail, leafOfCase] of refusals)
  test(`both sides say why a client is refused: ${name}`, async () => {
    const bad = new Tls(clock);
    bad.setAnchors(new Map([["cluster.local", root.pem]]));
    bad.setLeaf(leafOfCase());
    const told = Promise.withResolvers<string>();
    const { client, server } = await pair(NAME, ["pillion/2"], ["pillion/2"], bad, (reason, why) =>
      told.resolve(`${reason}: ${why}`),
    );
    assert("refusal" in server);
    assert.equal(server.refusal, refusal);
    assert.match(server.error.message, detail);
    // RFC 8446 §2: for the client the handshake is over before the server has seen its certificate.
    assert("conn" in client);
    client.conn.write(Buffer.from("what must not be lost with the reason".repeat(1000)));
    const seen = new Seen(client.conn);
    const error = await seen.closed.promise;
    assert.equal(error?.code, "IDENTITY_REFUSED");
    assert.match(error.message, new RegExp(`refused our certificate: ${refusal}: .*${detail.source}`));
    assert.match(await told.promise, new RegExp(`^${refusal}: .*${detail.source}`));
    assert.equal(seen.text, "");
  });

test("with two trust domains each proves its own identities by its own root, over an issuer that was shown, and not the other's", async () => {
  const both = new Tls(clock);
  both.setAnchors(
    new Map([
      ["cluster.local", root.pem],
      ["other.example", other.pem],
    ]),
  );
  both.setLeaf(leafOf(leaf));
  const issuer = testCertificate({ commonName: "issuer", isAuthority: true, keyUsage: [5] }, other);
  for (const trustDomain of ["other.example", "cluster.local"]) {
    const { keyPem, pem } = testLeaf(issuer, { trustDomain });
    const own = new Tls(clock);
    own.setAnchors(new Map([["cluster.local", root.pem]]));
    own.setLeaf({ keyPem, chainPem: pem + issuer.pem });
    const ended = Promise.withResolvers<void>();
    const { client, server } = await pair(
      NAME,
      ["pillion/2"],
      ["pillion/2"],
      own,
      () => ended.resolve(),
      transportOver(both),
    );
    assert("conn" in client);
    if (trustDomain === "other.example") {
      assert("peer" in server);
      assert.equal(server.peer.identity.trustDomain, trustDomain);
      assert.equal(server.proof.root, other.certificate.fingerprint256);
      client.conn.reset();
    } else {
      assert("refusal" in server);
      assert.equal(server.refusal, "foreign_trust_domain");
      new Seen(client.conn);
      await ended.promise;
    }
  }
});

test("a client that was proven is proven anew once the roots have changed, though OpenSSL knows the same", async () => {
  const far = new Tls(clock);
  const anchors = (ours: TestIssued, theirs: TestIssued): Map<string, string> =>
    new Map([
      ["cluster.local", ours.pem],
      ["other.example", theirs.pem],
    ]);
  far.setAnchors(anchors(root, other));
  far.setLeaf(leafOf(leaf));
  const meet = async (): Promise<string> => {
    const { client, server } = await pair(
      NAME,
      ["pillion/2"],
      ["pillion/2"],
      tls,
      undefined,
      transportOver(far),
    );
    if ("conn" in client) client.conn.reset();
    return "refusal" in server ? server.refusal : server.peer.name;
  };
  assert.equal(await meet(), NAME);
  assert.equal(await meet(), NAME);
  far.setAnchors(anchors(other, root));
  assert.equal(await meet(), "foreign_trust_domain");
});

test("both sides say why a client is refused: no certificate", async () => {
  const outcome = Promise.withResolvers<SecureError | null>();
  const listener = await transport.listen(loopback, ({ conn }) => {
    transport.secureServer(conn, { alpn: ["pillion/2"], timeoutMs: 2000 }, (error) => outcome.resolve(error));
  });
  const socket = connect({
    port: listener.address.port,
    host: "127.0.0.1",
    servername: NAME,
    ca: root.pem,
    checkServerIdentity: () => undefined,
    ALPNProtocols: ["pillion/2"],
  });
  const said: Buffer[] = [];
  socket.on("data", (bytes: Buffer) => void said.push(bytes)).on("error", () => undefined);
  await new Promise((done) => socket.on("close", done));
  listener.close();
  assert.equal((await outcome.promise)?.refusal, "no_client_certificate");
  assert.deepEqual(readRefusalNote(Buffer.concat(said)), {
    reason: "no_client_certificate",
    detail: "no certificate was shown",
  });
});

test("a client that does not speak pillion/2 is cut off without a word", async () => {
  const bad = new Tls(clock);
  bad.setAnchors(new Map([["cluster.local", root.pem]]));
  bad.setLeaf(leafOf(testLeaf(root, { trustDomain: "other.example" })));
  const { client, server } = await pair(NAME, ["pillion/2", "a"], ["a"], bad);
  assert("refusal" in server && "conn" in client);
  const seen = new Seen(client.conn);
  assert.notEqual((await seen.closed.promise)?.code, "IDENTITY_REFUSED");
  assert.equal(seen.text, "");
});

test("connections share one context for each role, and a change makes new ones", async () => {
  const made = mock.method(moduleOfTls, "createSecureContext");
  syncBuiltinESMExports();
  try {
    const own = new Tls(clock);
    own.setAnchors(new Map([["cluster.local", root.pem]]));
    own.setLeaf(leafOf(leaf));
    for (let i = 0; i < 10; i++) {
      const { client, server } = await pair(NAME, ["pillion/2"], ["pillion/2"], own);
      assert("conn" in client && "conn" in server);
      client.conn.reset();
    }
    // For clients without a certificate, and for those with one; servers of an ALPN have theirs since the first test.
    assert.equal(made.mock.callCount(), 2);
    own.setLeaf(leafOf(leaf));
    assert.equal(made.mock.callCount(), 3);
  } finally {
    made.mock.restore();
    syncBuiltinESMExports();
  }
});

test("a reset under TLS arrives as a reset", async () => {
  const { client, server } = await pair(NAME, [], []);
  assert("conn" in client && "conn" in server);
  const seen = new Seen(server.conn);
  new Seen(client.conn);
  client.conn.reset();
  assert.equal((await seen.closed.promise)?.code, "RESET");
});
