/**
 * OpenSSL and GnuTLS as judges of what we issue, and as peers of a sidecar's TLS: chains, versions, groups of key exchange.
 */
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { IpAddress } from "#/base/address.ts";
import { Authority, makeLeafKey } from "#/control/identity/authority.ts";
import { derToPem } from "#/control/identity/certificates.ts";
import { StateFolder } from "#/control/state-folder.ts";
import { SystemClock } from "#/net/clock.ts";
import { NodeTransport } from "#/net/node-transport.ts";
import { Tls } from "#/net/tls.ts";
import type { Listener, SecureError, SecureResult } from "#/net/transport.ts";

const account = (serviceAccount: string): Parameters<Authority["issue"]>[0] => ({
  trustDomain: "cluster.local",
  namespace: "shop",
  serviceAccount,
});
/** Over 64 characters: it does not fit into a common name, so the subject is empty and the SAN critical. */
const LONG = "a".repeat(60);

const clock = new SystemClock();
let dir = "";
let listener: Listener;
/** Of the next connections, in turn. */
const outcomes: (SecureResult | SecureError)[] = [];

before(async () => {
  dir = mkdtempSync(join(tmpdir(), "pillion-verifiers-"));
  const authority = await Authority.open(new StateFolder(join(dir, "state")), "cluster.local", Date.now);
  writeFileSync(join(dir, "root.pem"), authority.trustAnchorsPem);
  const make = async (name: string): Promise<{ keyPem: string; chainPem: string }> => {
    const { publicKey, privateKeyPem } = await makeLeafKey();
    const issued = await authority.issue(account(name), publicKey, "dns+spiffe");
    const chain = [issued.der, ...issued.intermediates].map(derToPem);
    writeFileSync(join(dir, `${name}.pem`), chain.join(""));
    writeFileSync(join(dir, `${name}-leaf.pem`), chain[0] as string);
    writeFileSync(join(dir, "issuer.pem"), chain[1] as string);
    writeFileSync(join(dir, `${name}-whole.pem`), chain.join("") + authority.trustAnchorsPem);
    writeFileSync(join(dir, `${name}.key`), privateKeyPem);
    return { keyPem: privateKeyPem, chainPem: chain.join("") };
  };
  const server = await make("web");
  await make("client");
  await make(LONG);
  const tls = new Tls(clock);
  tls.setAnchors(new Map([["cluster.local", authority.trustAnchorsPem]]));
  tls.setLeaf(server);
  const transport = new NodeTransport(clock, tls, {
    backlog: 16,
    connectionsMax: 64,
    acceptKeepAliveMs: 0,
    localIp: null,
    originalDestination: (_fd, { local }) => local,
  });
  listener = await transport.listen({ ip: "127.0.0.1" as IpAddress, port: 0 }, ({ conn }) =>
    transport.secureServer(conn, { alpn: ["pillion/2"], timeoutMs: 20_000 }, (error, result) => {
      outcomes.push((error ?? result)!);
      result?.conn.end();
    }),
  );
});
after(() => {
  listener.close();
  rmSync(dir, { recursive: true });
});

const run = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { cwd: dir, stdio: ["ignore", "pipe", "pipe"] }).toString();

test("OpenSSL verifies our chains, strictly and for both ends of a connection (RFC 5280)", () => {
  for (const name of ["web", LONG])
    for (const purpose of ["sslserver", "sslclient"]) {
      const files = ["-CAfile", "root.pem", "-untrusted", "issuer.pem", `${name}-leaf.pem`];
      assert.equal(
        run("openssl", "verify", "-x509_strict", "-purpose", purpose, ...files),
        `${name}-leaf.pem: OK\n`,
      );
    }
});

test("OpenSSL does not take our signing certificates for either end", () => {
  for (const purpose of ["sslserver", "sslclient"])
    assert.throws(() =>
      run("openssl", "verify", "-purpose", purpose, "-CAfile", "issuer.pem", "web-leaf.pem"),
    );
});

test("GnuTLS verifies our chains", () => {
  for (const name of ["web", LONG]) {
    const files = ["--load-ca-certificate", "root.pem", "--infile", `${name}-whole.pem`];
    const said = run("certtool", "--verify", "--verify-profile", "medium", ...files);
    assert.match(said, /Chain verification output: Verified\. The certificate is trusted\./);
  }
});

/** What a client program says in the end, and what our side made of it. */
async function shake(
  program: string,
  ...args: string[]
): Promise<{ said: string; ours: SecureResult | SecureError }> {
  outcomes.length = 0;
  const said = await new Promise<string>((resolve) => {
    const child = execFile(program, args, { cwd: dir }, (_error, out, err) => resolve(out + err));
    child.stdin?.end();
  });
  // Every connection has an outcome of its own on our side, maybe after the program's end.
  const stopAtMs = performance.now() + 30_000;
  while (outcomes.length === 0 && performance.now() < stopAtMs) await setTimeout(5);
  const [ours] = outcomes;
  assert(ours !== undefined, said);
  return { said, ours };
}
const address = (): string => `127.0.0.1:${listener.address.port}`;
const sClient = (...args: string[]): ReturnType<typeof shake> => {
  const mine = [
    "-cert",
    "client.pem",
    "-cert_chain",
    "client.pem",
    "-key",
    "client.key",
    "-CAfile",
    "root.pem",
  ];
  const how = ["-verify_return_error", "-x509_strict", "-alpn", "pillion/2", "-brief"];
  return shake("openssl", "s_client", "-connect", address(), ...mine, ...how, ...args);
};

test("OpenSSL and a sidecar prove themselves to each other over TLS 1.3", async () => {
  const { said, ours } = await sClient("-tls1_3");
  assert.match(said, /Protocol version: TLSv1\.3/);
  assert.match(said, /Verification: OK/);
  assert("peer" in ours, "error" in ours ? ours.error.message : "");
  assert.equal(ours.peer.identity.serviceAccount, "client");
});

test("GnuTLS and a sidecar prove themselves to each other over TLS 1.3", async () => {
  const mine = ["--x509cafile", "root.pem", "--x509certfile", "client.pem", "--x509keyfile", "client.key"];
  const { said, ours } = await shake(
    "gnutls-cli",
    ...mine,
    "--alpn",
    "pillion/2",
    "--verify-hostname",
    "web.shop.serviceaccount.identity.pillion.cluster.local",
    "--sni-hostname",
    "web.shop.serviceaccount.identity.pillion.cluster.local",
    "--port",
    String(listener.address.port),
    "127.0.0.1",
  );
  assert.match(said, /Status: The certificate is trusted/);
  assert.match(said, /Description: \(TLS1\.3/);
  assert("peer" in ours, "error" in ours ? ours.error.message : "");
  assert.equal(ours.peer.identity.serviceAccount, "client");
});

test("TLS 1.2 and older are refused", async () => {
  for (const version of ["-tls1_2", "-tls1_1"]) {
    const { said, ours } = await sClient(version);
    assert.doesNotMatch(said, /CONNECTION ESTABLISHED/);
    assert("refusal" in ours, version);
  }
});

test("X25519 and P-256 are spoken, other groups refused", async () => {
  for (const [group, temp] of [
    ["X25519", /Server Temp Key: X25519/],
    ["P-256", /Server Temp Key: ECDH, prime256v1/],
  ] as const) {
    const { said, ours } = await sClient("-groups", group);
    assert.match(said, temp);
    assert("peer" in ours, "error" in ours ? ours.error.message : "");
  }
  for (const group of ["P-384", "X448", "ffdhe2048"]) {
    const { said, ours } = await sClient("-groups", group);
    assert.doesNotMatch(said, /CONNECTION ESTABLISHED/, group);
    assert("refusal" in ours, group);
  }
});

test("the key that a leaf is for is P-256, and nobody else's", () => {
  const web = new X509Certificate(run("openssl", "x509", "-in", "web-leaf.pem"));
  const key = createPrivateKey(run("openssl", "pkey", "-in", "web.key"));
  assert.equal(web.checkPrivateKey(key), true);
  assert.equal(web.publicKey.asymmetricKeyDetails?.namedCurve, "prime256v1");
});
