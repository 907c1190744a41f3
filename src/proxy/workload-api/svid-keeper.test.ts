import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { SILENT } from "#/net/log.ts";
import { ManualClock } from "#/stack/http/testing.ts";
import { Registry } from "#/stack/metrics/registry.ts";
import { GrpcStatus } from "#/wire/grpc.ts";
import { ProtoReader, ProtoWriter } from "#/wire/proto.ts";
import type { X509Svid } from "./messages.ts";
import { SvidKeeper } from "./svid-keeper.ts";
import { CallError } from "./unary-call.ts";

const WEB = { trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web" };
const DNS = "web.shop.serviceaccount.identity.pillion.cluster.local";
const WEB_ID = "spiffe://cluster.local/ns/shop/sa/web";
const DAY_S = 86_400;

let dir = "";
before(() => {
  dir = mkdtempSync(join(tmpdir(), "pillion-keeper-"));
  openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key");
  openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=root", "-days", "20000", "-out", "ca.crt");
});
after(() => rmSync(dir, { recursive: true }));

function openssl(...args: string[]): Buffer {
  return execFileSync("openssl", args, { cwd: dir, stdio: ["ignore", "pipe", "pipe"] });
}

/** A keeper whose identity service is OpenSSL. */
class Scene {
  readonly clock = new ManualClock();
  readonly requests: ProtoReader[] = [];
  names = `DNS:${DNS},URI:${WEB_ID}`;
  refusal: CallError | null = null;
  changes = 0;
  readonly keeper: SvidKeeper;

  constructor() {
    this.keeper = new SvidKeeper({
      clock: this.clock,
      random: { next: () => 0 },
      log: SILENT,
      registry: new Registry(),
      identity: WEB,
      anchorsPem: () => openssl("x509", "-in", "ca.crt").toString(),
      certify: (request) => this.#certify(request),
      leafChanged: () => this.changes++,
    });
  }

  #certify(request: Uint8Array): Promise<Uint8Array> {
    const reader = new ProtoReader(request);
    this.requests.push(new ProtoReader(request));
    if (this.refusal !== null) return Promise.reject(this.refusal);
    while (reader.next()) if (reader.field === 3) writeFileSync(join(dir, "csr.der"), reader.bytes());
    writeFileSync(join(dir, "ext"), `subjectAltName=${this.names}`);
    const leaf = openssl(
      ...["x509", "-req", "-inform", "DER", "-in", "csr.der", "-CA", "ca.crt", "-CAkey", "ca.key"],
      ...["-extfile", "ext", "-outform", "DER", "-days", "2"],
    );
    const notAfter = new ProtoWriter().uint(1, Math.floor(this.clock.wallMs() / 1000) + DAY_S);
    const issuer = openssl("x509", "-in", "ca.crt", "-outform", "DER");
    return Promise.resolve(new ProtoWriter().bytes(1, leaf).bytes(2, issuer).message(3, notAfter).finish());
  }

  /** Until keys are made and promises kept: work, not time. */
  async settled(isDone: () => boolean): Promise<void> {
    for (const end = Date.now() + 20_000; !isDone() && Date.now() < end;) {
      this.clock.settle();
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(isDone(), "it never came");
  }

  watch(): { svids: X509Svid[]; errors: CallError[]; cancel(): void } {
    const svids: X509Svid[] = [];
    const errors: CallError[] = [];
    const watching = this.keeper.watch({
      svid: (svid) => void svids.push(svid),
      failed: (error) => void errors.push(error),
    });
    return { svids, errors, cancel: () => watching.cancel() };
  }
}

test("nothing is asked for before a program asks; then key and certificate belong together (X.509-SVID §2)", async () => {
  const scene = new Scene();
  assert.equal(scene.requests.length, 0);
  const { svids } = scene.watch();
  await scene.settled(() => svids.length === 1);
  const [svid] = svids;
  assert.ok(svid);
  const key = createPrivateKey({ key: Buffer.from(svid.key), format: "der", type: "pkcs8" });
  const leaf = new X509Certificate(svid.chain);
  assert.ok(leaf.checkPrivateKey(key));
  assert.equal(svid.spiffeId, WEB_ID);
  assert.equal(key.asymmetricKeyDetails?.namedCurve, "prime256v1");
});

test("the request shows no token: it is for whom the sidecar's own certificate proves", async () => {
  const scene = new Scene();
  const { svids } = scene.watch();
  await scene.settled(() => svids.length === 1);
  const fields: number[] = [];
  const request = scene.requests[0]!;
  while (request.next()) {
    fields.push(request.field);
    if (request.field === 1) assert.equal(request.text(), DNS);
  }
  assert.deepEqual(fields, [1, 3]);
});

test("all that ask at once share one request, and who asks later gets what is in force", async () => {
  const scene = new Scene();
  const [a, b] = [scene.watch(), scene.watch()];
  await scene.settled(() => a.svids.length === 1 && b.svids.length === 1);
  assert.deepEqual(scene.watch().svids, a.svids);
  assert.equal(scene.requests.length, 1);
});

test("it is renewed at 70 % of its life with a new key, for all that watch", async () => {
  const scene = new Scene();
  const { svids } = scene.watch();
  const gone = scene.watch();
  await scene.settled(() => svids.length === 1);
  gone.cancel();
  scene.clock.advance(0.7 * DAY_S * 1000 - 2000);
  assert.equal(scene.requests.length, 1);
  scene.clock.advance(2001);
  await scene.settled(() => svids.length === 2);
  const publicKeys = svids.map(({ key }) =>
    createPublicKey(createPrivateKey({ key: Buffer.from(key), format: "der", type: "pkcs8" })).export({
      type: "spki",
      format: "der",
    }),
  );
  assert.notDeepEqual(publicKeys[0], publicKeys[1]);
  assert.equal(gone.svids.length, 1);
});

test("when another issuer signs, it is renewed at once; where nobody has asked for one, none is made", async () => {
  const scene = new Scene();
  assert.equal(scene.keeper.issuer, "");
  scene.keeper.renewWithin(0);
  scene.clock.advance(10_000);
  assert.equal(scene.requests.length, 0);
  const { svids } = scene.watch();
  await scene.settled(() => svids.length === 1);
  const root = new X509Certificate(openssl("x509", "-in", "ca.crt"));
  assert.equal(scene.keeper.issuer, root.fingerprint256.replaceAll(":", "").toLowerCase());
  assert.equal(scene.changes, 1);
  scene.keeper.renewWithin(3_000);
  scene.clock.advance(3_000);
  await scene.settled(() => svids.length === 2);
  assert.equal(scene.changes, 2);
});

test("one that cannot be renewed stays until it ends, and is tried again; then streams end with the reason", async () => {
  const scene = new Scene();
  const { svids, errors } = scene.watch();
  await scene.settled(() => svids.length === 1);
  scene.refusal = new CallError(GrpcStatus.UNAVAILABLE, "away");
  scene.clock.advance(0.7 * DAY_S * 1000 + 1);
  await scene.settled(() => scene.requests.length === 2);
  await new Promise((resolve) => setImmediate(resolve));
  scene.clock.advance(1_000);
  await scene.settled(() => scene.requests.length === 3);
  assert.deepEqual([errors.length, scene.watch().svids.length], [0, 1]);
  // Each try that fails is over before time goes on.
  for (let hours = 0; hours < 8; hours++) {
    scene.clock.advance(3_600_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await scene.settled(() => errors.length === 1);
  assert.match(errors[0]!.message, /has ended and could not be renewed/);
  // Whoever asks now begins anew.
  scene.refusal = null;
  const later = scene.watch();
  assert.deepEqual(later.svids, [], "one that has ended was given out");
  await scene.settled(() => later.svids.length === 1);
});

test("one that the workload may have no longer is taken back at the next renewal (Workload API §5.2.1)", async () => {
  const scene = new Scene();
  const { svids, errors } = scene.watch();
  await scene.settled(() => svids.length === 1);
  scene.refusal = new CallError(GrpcStatus.PERMISSION_DENIED, "it was revoked");
  scene.keeper.renew();
  await scene.settled(() => errors.length === 1);
  assert.equal(errors[0]?.status, GrpcStatus.PERMISSION_DENIED);
  assert.equal(scene.keeper.issuer, "");
  assert.deepEqual(scene.watch().svids, []);
});

test("without a first one, whoever waits is told why, and the next who asks tries again", async () => {
  const scene = new Scene();
  scene.refusal = new CallError(GrpcStatus.PERMISSION_DENIED, "no pod runs as this identity any more");
  const { errors } = scene.watch();
  await scene.settled(() => errors.length === 1);
  assert.equal(errors[0]?.status, GrpcStatus.PERMISSION_DENIED);
  scene.refusal = null;
  // The try that failed is over with its promise.
  await new Promise((resolve) => setImmediate(resolve));
  const { svids } = scene.watch();
  await scene.settled(() => svids.length === 1);
});

test("a certificate without the SPIFFE ID, or for somebody else, is not passed on", async () => {
  for (const [names, reason] of [
    [`DNS:${DNS}`, /without the SPIFFE ID/],
    [`DNS:other.${DNS},URI:${WEB_ID}`, /is not for web\.shop/],
    [`DNS:${DNS},URI:spiffe://cluster.local/ns/shop/sa/db`, /without the SPIFFE ID/],
  ] as const) {
    const scene = new Scene();
    scene.names = names;
    const { errors, svids } = scene.watch();
    await scene.settled(() => errors.length === 1);
    assert.match(errors[0]!.message, reason);
    assert.equal(svids.length, 0);
  }
});
