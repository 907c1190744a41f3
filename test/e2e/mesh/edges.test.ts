/** `edges` says of each pair of workloads whether it proves itself, with what, and why not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Edge } from "#/cli/edges/pairs.ts";
import { service } from "./fixtures/scene.ts";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const identity = (account: string): string => `${account}.test.serviceaccount.identity.pillion.cluster.local`;

test("edges shows a proven pair with cipher and hybrid key exchange, and an unmeshed client and server with the reason", async () => {
  const mesh = new Mesh("edges");
  const sleeper = ["sleep", "infinity"];
  const unmeshed = { "linkerd.io/inject": "disabled" };
  try {
    mesh.write("namespace.yaml", NAMESPACE);
    mesh.write("web.yaml", service("web"));
    mesh.write("bare.yaml", service("bare", { annotations: unmeshed }));
    mesh.write("client.yaml", workload({ name: "client", command: sleeper }));
    mesh.write("stranger.yaml", workload({ name: "stranger", command: sleeper, annotations: unmeshed }));
    await mesh.up();
    for (const [from, to] of [
      ["client", "web"],
      ["client", "web"],
      ["client", "bare"],
      ["stranger", "web"],
    ] as const) {
      const { stdout, stderr } = await mesh.exec(from, "curl", "-s", "--max-time", "20", `http://${to}/`);
      assert.notEqual(stdout, "", `${from} → ${to}: ${stderr}`);
    }
    const { code, stdout, stderr } = await mesh.pillion("edges", "-o", "json");
    assert.equal(code, 0, stderr);
    const found = JSON.parse(stdout) as Edge[];
    const between = (client: string, server: string): Edge => {
      const edge = found.find((one) => one.client === client && one.server === server);
      assert.ok(edge, `${client} → ${server} in ${stdout}`);
      return edge;
    };
    const proven = between("test/client", "test/web");
    assert.equal(proven.isMutualTls, true);
    assert.equal(proven.clientIdentity, identity("client"));
    assert.equal(proven.serverIdentity, identity("web"));
    assert.deepEqual(proven.ciphers, ["TLS_AES_128_GCM_SHA256"]);
    assert.deepEqual(proven.groups, ["X25519MLKEM768"]);
    assert.equal(proven.requests, 2);
    assert.ok(proven.connections >= 1);
    assert.equal(between("test/client", "test/bare").whyNot, "the server has no sidecar");
    assert.equal(between("unmeshed", "test/web").whyNot, "the client has no sidecar");
    const text = await mesh.pillion("edges");
    assert.match(
      text.stdout,
      /^test\/client +test\/web +client\.test +web\.test +yes +TLS_AES_128_GCM_SHA256 +X25519MLKEM768 /m,
    );
  } finally {
    await mesh.close();
  }
});
