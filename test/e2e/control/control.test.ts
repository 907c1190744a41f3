import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { Destination } from "../../../src/gen/linkerd/destination_pb.ts";
import { Identity } from "../../../src/gen/linkerd/identity_pb.ts";
import { InboundServerPolicies } from "../../../src/gen/linkerd/inbound_pb.ts";
import { OutboundPolicies } from "../../../src/gen/linkerd/outbound_pb.ts";
import { Svid } from "../../../src/gen/pillion/svid_pb.ts";
import { Trust } from "../../../src/gen/pillion/trust_pb.ts";
import { makeCsr } from "../../../src/proxy/identity/csr.ts";
import type { FakeAgent, Held, RpcFailure } from "./rig.ts";
import { derPem, newKey, Rig, RpcClient, statusOf } from "./rig.ts";

const WEB = "web.shop.serviceaccount.identity.pillion.cluster.local";

const SHOP = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      containers:
        - name: web
          command: [/usr/bin/web]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: http}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
`;

const shop = (replicas: number): string => SHOP.replace("REPLICAS", String(replicas));

async function withShop(rig: Rig, replicas = 2): Promise<FakeAgent> {
  const agent = await rig.start();
  agent.report();
  agent.folder({ "shop.yaml": shop(replicas) });
  await agent.planThat((plan) => plan.pods.length === replicas);
  agent.obey();
  await agent.planThat(
    (plan) => plan.services[0]?.endpoints.filter((endpoint) => endpoint.ready).length === replicas,
  );
  return agent;
}

function anchorsOf(agent: FakeAgent): string {
  return agent.plan?.pods[0]?.sidecar?.env["LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS"] ?? "";
}

async function certify(port: number, anchors: string, token: string, held?: Held): Promise<Held> {
  const { key, publicKey, pem } = newKey();
  using client = await RpcClient.secure(port, { anchors, ...(held === undefined ? {} : { held }) });
  const answer = await client.call(Identity.method.certify, {
    identity: WEB,
    token: Buffer.from(token),
    certificateSigningRequest: makeCsr(WEB, key, publicKey),
  });
  const leaf = new X509Certificate(answer.leafCertificate);
  return {
    key: pem,
    cert: [answer.leafCertificate, ...answer.intermediateCertificates].map(derPem).join(""),
    leaf,
    anchors,
  };
}

test("a sidecar gets its certificate by token and asks for everything else with it", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig);
  const pod = agent.plan!.pods[0]!;
  const { token, error } = await agent.attest(pod.uid);
  assert.equal(error, "");
  const held = await certify(rig.port, anchorsOf(agent), token);
  assert.equal(held.leaf.subjectAltName, `DNS:${WEB}, URI:spiffe://cluster.local/ns/shop/sa/web`);

  // OpenSSL's own opinion of the chain, for both purposes.
  const file = (name: string, text: string): string => {
    const path = join(rig.dir, name);
    writeFileSync(path, text);
    return path;
  };
  const [leafPem, issuerPem] = held.cert.split(/(?<=-----END CERTIFICATE-----\n)/) as [string, string];
  for (const purpose of ["sslclient", "sslserver"]) {
    const said = execFileSync("openssl", [
      "verify",
      "-x509_strict",
      "-purpose",
      purpose,
      "-CAfile",
      file("root.pem", held.anchors),
      "-untrusted",
      file("issuer.pem", issuerPem),
      file("leaf.pem", leafPem),
    ]).toString();
    assert.match(said, /leaf\.pem: OK/);
  }

  using client = await RpcClient.secure(rig.port, { anchors: held.anchors, held, alpn: false });
  const update = await client.watch(Destination.method.get, { path: "web.shop.svc.cluster.local:80" }).next();
  assert.equal(update.update.case, "add");
  assert.equal(update.update.case === "add" && update.update.value.addrs.length, 2);
  const server = await client.call(InboundServerPolicies.method.getPort, {
    workload: `shop:${pod.name}`,
    port: 8080,
  });
  assert.equal(server.protocol?.kind.case, "detect");
  const policy = await client.call(OutboundPolicies.method.get, {
    target: { case: "authority", value: "web.shop.svc.cluster.local:80" },
  });
  assert.equal(policy.protocol?.kind.case, "detect");
});

test("nothing but Certify is served to a client without a certificate", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig);
  using client = await RpcClient.secure(rig.port, { anchors: anchorsOf(agent) });
  await assert.rejects(
    client.watch(Destination.method.get, { path: "web.shop.svc.cluster.local:80" }).next(),
    (error: RpcFailure) => error.status === 16,
  );
  await assert.rejects(
    client.call(OutboundPolicies.method.get, {}),
    (error: RpcFailure) => error.status === 16,
  );
  await assert.rejects(
    client.call(InboundServerPolicies.method.getPort, {}),
    (error: RpcFailure) => error.status === 16,
  );
});

test("a client whose certificate comes from elsewhere is let in for nothing", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig);
  await using other = new Rig();
  const otherAgent = await withShop(other);
  const foreign = await certify(
    other.port,
    anchorsOf(otherAgent),
    (await otherAgent.attest(otherAgent.plan!.pods[0]!.uid)).token,
  );
  await assert.rejects(async () => {
    using client = await RpcClient.secure(rig.port, { anchors: anchorsOf(agent), held: foreign });
    await client.watch(Destination.method.get, { path: "web.shop.svc.cluster.local:80" }).next();
  });
});

test("a certificate is renewed by the one in force, for its own identity only", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig);
  const held = await certify(
    rig.port,
    anchorsOf(agent),
    (await agent.attest(agent.plan!.pods[0]!.uid)).token,
  );
  const renewed = await certify(rig.port, held.anchors, "", held);
  assert.equal(renewed.leaf.subjectAltName, held.leaf.subjectAltName);
  assert.notEqual(renewed.leaf.serialNumber, held.leaf.serialNumber);
  using client = await RpcClient.secure(rig.port, { anchors: held.anchors, held });
  const other = "db.shop.serviceaccount.identity.pillion.cluster.local";
  const { key, publicKey } = newKey();
  await assert.rejects(
    client.call(Identity.method.certify, {
      identity: other,
      certificateSigningRequest: makeCsr(other, key, publicKey),
    }),
    (error: RpcFailure) => error.status === 7,
  );
});

test("endpoints follow the pods: Add before Remove, at once, and to every watcher", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig);
  using client = RpcClient.plaintext(rig.plaintextPort);
  const watch = client.watch(Destination.method.get, { path: "web.shop.svc.cluster.local:80" });
  await watch.next();
  const [first, second] = [...agent.statuses.values()];
  agent.set({ ...first!, ready: false });
  agent.report();
  const removed = await watch.next();
  assert.equal(removed.update.case, "remove");
  agent.set({ ...first!, ip: "10.201.0.99" });
  agent.set({ ...second!, ready: false });
  agent.report();
  const [added, gone] = [await watch.next(), await watch.next()];
  assert.equal(added.update.case, "add");
  assert.equal(gone.update.case, "remove");
  agent.folder({ "shop.yaml": shop(2).replace(/---\napiVersion: v1\nkind: Service\n[^]*$/, "") });
  const absent = await watch.next();
  assert.deepEqual(absent.update.case === "noEndpoints" && absent.update.value.exists, false);
});

test("asks again later before the machine's pods are known", async () => {
  await using rig = new Rig();
  await rig.start();
  using client = RpcClient.plaintext(rig.plaintextPort);
  await assert.rejects(
    client.watch(Destination.method.get, { path: "web.shop.svc.cluster.local:80" }).next(),
    (error: RpcFailure) => error.status === 14,
  );
});

test("pods, addresses and keys outlive the control plane; a bad file found at its start keeps the last good state", async () => {
  await using rig = new Rig();
  const before = await withShop(rig);
  const anchors = anchorsOf(before);
  const plan = before.plan!;
  await rig.stop();
  before.close();
  const after = await rig.start();
  for (const pod of plan.pods) after.set(statusOf(pod, before.statuses.get(pod.uid)!.ip, true));
  after.report();
  after.folder({ "shop.yaml": "kind: Deployment\n  oops" });
  const again = await after.planThat((next) => next.pods.length > 0);
  assert.deepEqual(again.pods, plan.pods);
  assert.equal(again.services[0]!.clusterIp, plan.services[0]!.clusterIp);
  assert.equal(anchorsOf(after), anchors);
  const status = await after.ask({ kind: "status" });
  assert.equal(status.kind === "status" && status.problems.length, 1);
  for (const name of readdirSync(join(rig.dir, "state")))
    assert.equal(statSync(join(rig.dir, "state", name)).mode & 0o777, 0o600, name);
});

test("scaling touches no other pod; a rollout restart replaces each by its own rules", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig, 3);
  const before = new Set(agent.plan!.pods.map((pod) => pod.uid));
  agent.folder({ "shop.yaml": shop(5) });
  const scaled = await agent.planThat((plan) => plan.pods.length === 5);
  assert.equal(scaled.pods.filter((pod) => before.has(pod.uid)).length, 3);
  agent.obey();
  await agent.planThat(
    (plan) => plan.services[0]!.endpoints.filter((endpoint) => endpoint.ready).length === 5,
  );
  assert.deepEqual(
    await agent
      .ask({ kind: "rollout-restart", namespace: "shop", target: "deployment/nope" })
      .then((answer) => answer.kind),
    "error",
  );
  const old = new Set(agent.plan!.pods.map((pod) => pod.uid));
  const asked = await agent.ask({ kind: "rollout-restart", namespace: "shop", target: "deployment/web" });
  assert.equal(asked.kind, "ok");
  const begun = await agent.ask({ kind: "rollout-status", namespace: "shop", target: "deployment/web" });
  assert.equal(begun.kind === "ok" && begun.done, false);
  for (let round = 0; round < 40; round++) {
    const seen = agent.plan!;
    // Kubernetes' defaults: 25 % more, 25 % fewer.
    assert.ok(seen.pods.length <= 7, "never more than replicas and surge");
    if (seen.pods.length === 5 && seen.pods.every((pod) => !old.has(pod.uid))) break;
    agent.obey();
    await agent.planThat((plan) => plan.revision > seen.revision);
  }
  const done = await agent.ask({ kind: "rollout-status", namespace: "shop", target: "deployment/web" });
  assert.ok(agent.plan!.pods.every((pod) => !old.has(pod.uid)));
  assert.equal(done.kind === "ok" && done.done, true);
});

test("there is no token for a pod that nobody planned", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig);
  const answer = await agent.attest("no-such-uid");
  assert.equal(answer.token, "");
  assert.match(answer.error, /no meshed pod/);
});

test("a revoked identity gets no certificate and no token, over restarts too, until that is undone", async () => {
  await using rig = new Rig();
  let agent = await withShop(rig);
  const pod = agent.plan!.pods[0]!;
  const held = await certify(rig.port, anchorsOf(agent), (await agent.attest(pod.uid)).token);
  const revoke = async (isUndone: boolean): Promise<string> => {
    const answer = await agent.ask({ kind: "identity-revoke", name: "shop/web", isUndone });
    return "message" in answer ? answer.message : answer.kind;
  };
  assert.match(await revoke(false), /^spiffe:\/\/cluster\.local\/ns\/shop\/sa\/web is revoked/);
  assert.match(await revoke(false), /already revoked/);
  const refused = (error: RpcFailure): boolean => error.status === 7 && /was revoked/.test(error.message);
  await assert.rejects(certify(rig.port, held.anchors, "", held), refused);
  await assert.rejects(certify(rig.port, held.anchors, (await agent.attest(pod.uid)).token), refused);

  agent.close();
  await rig.stop();
  const statuses = [...agent.statuses.values()];
  agent = await rig.start();
  for (const status of statuses) agent.set(status);
  agent.report();
  agent.folder({ "shop.yaml": shop(2) });
  await agent.planThat((plan) => plan.pods.length === 2);
  {
    using client = await RpcClient.secure(rig.port, { anchors: held.anchors, held });
    await assert.rejects(client.call(Svid.method.signJwt, { audience: ["db"] }), refused);
  }
  await assert.rejects(certify(rig.port, held.anchors, "", held), refused);
  assert.match(await revoke(true), /is in use/);
  assert.ok(await certify(rig.port, held.anchors, "", held));
});

test("a sidecar is told of the next root, confirms it, and is named until it has; then the new issuer signs", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig, 1);
  const pod = agent.plan!.pods[0]!;
  const held = await certify(rig.port, anchorsOf(agent), (await agent.attest(pod.uid)).token);
  agent.set({ ...statusOf(pod, "10.201.0.10", true), sidecar: { state: "running" } as never });
  agent.report();
  using client = await RpcClient.secure(rig.port, { anchors: held.anchors, held });
  const workload = `shop:${pod.name}`;
  const watched = client.watch(Trust.method.watch, { workload });
  const first = await watched.next();
  assert.equal(first.bundles[0]?.authorities.length, 1);
  assert.equal(
    (await agent.ask({ kind: "identity-rotate", what: "root", isDryRun: false, isForced: false })).kind,
    "ok",
  );
  const second = await watched.next();
  assert.equal(second.bundles[0]?.authorities.length, 2);
  assert.ok(second.sequence > first.sequence);
  assert.deepEqual(second.issuer, first.issuer, "the new one signs nothing yet");
  const waiting = async (): Promise<readonly string[]> => {
    const answer = await agent.ask({ kind: "identity-status" });
    return answer.kind === "identity"
      ? (answer.identity.rotation?.waitingFor ?? []).map(({ name }) => name)
      : [];
  };
  assert.deepEqual(await waiting(), [pod.name]);
  await client.call(Trust.method.confirm, { workload, sequence: second.sequence });
  assert.deepEqual(await waiting(), []);
  const third = await watched.next();
  assert.notDeepEqual(third.issuer, first.issuer);
  // Proven by a leaf below the old root, and made below the new one.
  const anchors = second.bundles[0]!.authorities.map(derPem).join("");
  const renewed = await certify(rig.port, anchors, "", held);
  const issuer = new X509Certificate(renewed.cert.split(/(?<=-----END CERTIFICATE-----\n)/)[1]!);
  assert.equal(
    issuer.fingerprint256.replaceAll(":", "").toLowerCase(),
    Buffer.from(third.issuer).toString("hex"),
  );
  assert.equal(issuer.verify(new X509Certificate(held.anchors).publicKey), false);
});

test("a workload confirms roots for its own pods only", async () => {
  await using rig = new Rig();
  const agent = await withShop(rig, 1);
  const pod = agent.plan!.pods[0]!;
  const held = await certify(rig.port, anchorsOf(agent), (await agent.attest(pod.uid)).token);
  using client = await RpcClient.secure(rig.port, { anchors: held.anchors, held });
  await assert.rejects(
    client.call(Trust.method.confirm, { workload: "other:pod", sequence: 1n }),
    (error: RpcFailure) => error.status === 5,
  );
  using nobody = await RpcClient.secure(rig.port, { anchors: held.anchors });
  await assert.rejects(
    nobody.call(Trust.method.confirm, { workload: `shop:${pod.name}`, sequence: 1n }),
    (error: RpcFailure) => error.status === 16,
  );
});
