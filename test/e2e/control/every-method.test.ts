import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { globSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import type { DescMethod, DescMethodServerStreaming, DescMethodUnary, DescService } from "@bufbuild/protobuf";
import { Identity } from "#/gen/linkerd/identity_pb.ts";
import { makeCsr } from "#/proxy/identity/csr.ts";
import { derPem, newKey, Rig, RpcClient, type Held, type RpcFailure } from "./rig.ts";

const UNIMPLEMENTED = 12;
const UNAUTHENTICATED = 16;
const PERMISSION_DENIED = 7;

const TWO = ["web", "db"]
  .map(
    (name) => `
apiVersion: v1
kind: ServiceAccount
metadata: {name: ${name}, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: shop}
spec: {serviceAccountName: ${name}, containers: [{name: main, command: [sleep, "1000"], ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: shop}
spec: {selector: {app: ${name}}, ports: [{port: 80, targetPort: 8080}]}
`,
  )
  .join("---");

const OF_DB = JSON.stringify({ ns: "shop", pod: "db" });

/**
 * Every method that is served, and how one workload is kept from another's: the request with which web asks for what is db's, or why
 * there is no such request. A new method needs a row.
 */
const STRANGERS: Readonly<Record<string, object | string>> = {
  "io.linkerd.proxy.identity.Identity/Certify":
    "of a request's own names and key; src/control/identity/certify.test.ts",
  "io.linkerd.proxy.destination.Destination/Get":
    "where a Service's pods are is told to every workload of the mesh",
  "io.linkerd.proxy.destination.Destination/GetProfile":
    "what a Service is, is told to every workload of the mesh",
  "io.linkerd.proxy.outbound.OutboundPolicies/Get": {
    sourceWorkload: OF_DB,
    target: { case: "authority", value: "web.shop.svc.cluster.local:80" },
  },
  "io.linkerd.proxy.outbound.OutboundPolicies/Watch": {
    sourceWorkload: OF_DB,
    target: { case: "authority", value: "web.shop.svc.cluster.local:80" },
  },
  "io.linkerd.proxy.inbound.InboundServerPolicies/GetPort": { workload: OF_DB, port: 8080 },
  "io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort": { workload: OF_DB, port: 8080 },
  "dev.pillion.trust.Trust/Watch": { workload: OF_DB },
  "dev.pillion.trust.Trust/Confirm": { workload: OF_DB },
  "dev.pillion.quota.Quota/Lease": { workload: OF_DB },
  "dev.pillion.keys.Keys/Refresh": { workload: OF_DB, port: 8080, issuer: "https://issuer.example" },
  "dev.pillion.svid.Svid/SignJwt": "of the identity in the certificate alone; src/control/rpc/svid.test.ts",
  "dev.pillion.svid.Svid/WatchJwtBundles": "public keys, told to every workload of the mesh",
};

async function allMethods(): Promise<DescMethod[]> {
  const folder = join(import.meta.dirname, "../../../src/gen");
  const modules = await Promise.all(
    globSync("**/*_pb.ts", { cwd: folder }).map(
      async (file) => (await import(join(folder, file))) as Record<string, { kind?: string }>,
    ),
  );
  const services = modules.flatMap((module) =>
    Object.values(module).filter((each): each is DescService => each?.kind === "service"),
  );
  return services.flatMap((service) => service.methods);
}

/** What a call ends with; -1 when a message came. */
async function outcome(client: RpcClient, method: DescMethod, request: object): Promise<number> {
  try {
    if (method.methodKind === "unary") await client.call(method as DescMethodUnary, request as never);
    else await client.watch(method as DescMethodServerStreaming, request as never).next();
    return -1;
  } catch (error) {
    return (error as RpcFailure).status;
  }
}

const nameOf = (method: DescMethod): string => `${method.parent.typeName}/${method.name}`;

test("without a certificate no method is served but Certify, whatever methods there are", async () => {
  await using rig = new Rig();
  const { anchors } = await twoWorkloads(rig);
  using client = await RpcClient.secure(rig.port, { anchors });
  const served: string[] = [];
  for (const method of await allMethods()) {
    const status = await outcome(client, method, {});
    if (status === UNIMPLEMENTED) continue;
    served.push(nameOf(method));
    if (nameOf(method) !== nameOf(Identity.method.certify))
      assert.equal(status, UNAUTHENTICATED, nameOf(method));
  }
  assert.deepEqual(
    served.toSorted(),
    Object.keys(STRANGERS).toSorted(),
    "each method that is served has a row which says how one workload is kept from another's",
  );
});

test("attack: with its own certificate a workload gets nothing of another's, by any method", async () => {
  await using rig = new Rig();
  const { anchors, held } = await twoWorkloads(rig);
  using client = await RpcClient.secure(rig.port, { anchors, held });
  for (const method of await allMethods()) {
    const request = STRANGERS[nameOf(method)];
    if (typeof request !== "object") continue;
    assert.equal(await outcome(client, method, request), PERMISSION_DENIED, nameOf(method));
    const own = JSON.parse(JSON.stringify(request).replaceAll('\\"db\\"', '\\"web\\"')) as object;
    assert.notEqual(await outcome(client, method, own), PERMISSION_DENIED, `its own ${nameOf(method)}`);
  }
});

/** Two pods of two identities, and the certificate of the first. */
async function twoWorkloads(rig: Rig): Promise<{ anchors: string; held: Held }> {
  const agent = await rig.start();
  agent.report();
  agent.folder({ "two.yaml": `apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---${TWO}` });
  const plan = await agent.planThat((each) => each.pods.length === 2);
  agent.obey();
  const { token, trustAnchorsPem: anchors } = await agent.attest(
    plan.pods.find((pod) => pod.name === "web")?.uid ?? "",
  );
  const { key, publicKey, pem } = newKey();
  const name = "web.shop.serviceaccount.identity.pillion.cluster.local";
  using client = await RpcClient.secure(rig.port, { anchors });
  const answer = await client.call(Identity.method.certify, {
    identity: name,
    token: Buffer.from(token),
    certificateSigningRequest: makeCsr(name, key, publicKey),
  });
  const cert = [answer.leafCertificate, ...answer.intermediateCertificates].map(derPem).join("");
  return { anchors, held: { key: pem, cert, leaf: new X509Certificate(answer.leafCertificate), anchors } };
}
