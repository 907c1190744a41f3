/**
 * gRPC on ports that say nothing of it: seen as HTTP/2 in every combination, also where the server speaks first (Go's
 * servers send SETTINGS before they have read anything). Proved by what the sidecars count: calls by their gRPC
 * status, and no connection that was opaque.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { PodStatus } from "#/model/pod-plan.ts";
import { Mesh, NAMESPACE, workload } from "./mesh.ts";

const FIXTURES = "/.pillion/mesh/test/e2e/mesh/fixtures";
const OUTSIDE = { "linkerd.io/inject": "disabled" };
const CALLS = 20;

const SERVERS = {
  "grpc-js": { program: "grpc-server.js", port: 7000 },
  "early-settings": { program: "unmarked-grpc-early-server.js", port: 7100 },
} as const;
type Server = keyof typeof SERVERS;

const WAYS = [
  { name: "meshed → meshed", client: "client", place: "in" },
  { name: "meshed → unmeshed", client: "client", place: "out" },
  { name: "unmeshed → meshed", client: "stranger", place: "in" },
] as const;

describe("gRPC on unmarked ports", () => {
  const mesh = new Mesh("unmarked-grpc");

  before(async () => {
    mesh.write("namespace.yaml", NAMESPACE);
    for (const [server, { program, port }] of Object.entries(SERVERS)) {
      for (const [place, annotations] of [
        ["in", {}],
        ["out", OUTSIDE],
      ] as const) {
        mesh.write(
          `${server}-${place}.yaml`,
          workload({
            name: `${server}-${place}`,
            command: ["node", `${FIXTURES}/${program}`, String(port)],
            ports: { main: [port, port] },
            // From inside, past the sidecar: the sidecars are to count nothing but what the tests do.
            containerExtra: `          readinessProbe: { exec: { command: ["bash", "-c", "</dev/tcp/127.0.0.1/${port}"] }, periodSeconds: 1 }`,
            annotations,
          }),
        );
      }
    }
    mesh.write("client.yaml", workload({ name: "client", command: ["sleep", "100000"] }));
    mesh.write(
      "stranger.yaml",
      workload({ name: "stranger", command: ["sleep", "100000"], annotations: OUTSIDE }),
    );
    await mesh.up("--timeout", "90");
  });
  after(async () => await mesh.close());

  /** What both sidecars of a way have counted so far; those that it lacks count nothing. */
  async function counted(client: PodStatus, server: PodStatus): Promise<{ calls: number[]; opaque: number }> {
    const calls: number[] = [];
    let opaque = 0;
    if (client.sidecar !== null) {
      calls.push(await mesh.metric(client, "response_total", { direction: "outbound", grpc_status: "0" }));
      opaque += await mesh.metric(client, "outbound_tcp_detect_http_results_total", { result: "not_http" });
    }
    if (server.sidecar !== null) {
      calls.push(await mesh.metric(server, "response_total", { direction: "inbound", grpc_status: "0" }));
      // Bytes that go through as they are, are authorized as a connection; HTTP is, as requests. (A far sidecar may have
      // dialled early, for a client that was slow to begin; that connection carries nothing.)
      opaque += await mesh.metric(server, "inbound_tcp_authz_allow_total", { tls: "no_identity" });
    }
    return { calls, opaque };
  }

  for (const server of Object.keys(SERVERS) as Server[]) {
    for (const { name, client, place } of WAYS) {
      test(`${server}, ${name}: ${CALLS} calls are counted by status, nothing is opaque`, async () => {
        const pods = [await mesh.pod(client), await mesh.pod(`${server}-${place}`)] as const;
        const earlier = await counted(...pods);
        const target = `${server}-${place}:${SERVERS[server].port}`;
        const { stdout, stderr } = await mesh.exec(
          client,
          "node",
          `${FIXTURES}/unmarked-grpc-client.js`,
          target,
          String(CALLS),
        );
        assert.equal(stdout.trim(), String(CALLS), stderr);
        const later = await counted(...pods);
        assert.deepEqual(
          later.calls.map((calls, i) => calls - (earlier.calls[i] ?? 0)),
          later.calls.map(() => CALLS),
        );
        assert.equal(later.opaque - earlier.opaque, 0);
      });

      test(`${server}, ${name}: so is a call of a client that is slow to begin`, async () => {
        const pods = [await mesh.pod(client), await mesh.pod(`${server}-${place}`)] as const;
        const earlier = await counted(...pods);
        const args = [`${server}-${place}`, SERVERS[server].port, 200].map(String);
        const { stdout, stderr } = await mesh.exec(
          client,
          "node",
          `${FIXTURES}/unmarked-grpc-slow-client.js`,
          ...args,
        );
        assert.equal(stdout.trim(), "0", stderr);
        const later = await counted(...pods);
        assert.deepEqual(
          later.calls.map((calls, i) => calls - (earlier.calls[i] ?? 0)),
          later.calls.map(() => 1),
        );
      });
    }
  }
});
