import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { cannotRun, Mesh, until, type Pod } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.2";

interface Reply {
  status: number;
  text: string;
  headers: Record<string, string | string[] | undefined>;
}

function serveHttp({ http, state }: WorkerContext, port: number, name: string): Promise<null> {
  const server = http.createServer((request, response) => {
    let bytes = 0;
    request.on("data", (chunk: Buffer) => (bytes += chunk.length));
    request.on("end", () => {
      const done = (): void =>
        void response.end(
          `${name} ${request.method} ${request.url} ${bytes} ${String(request.headers["l5d-client-id"] ?? "-")}`,
        );
      if (request.url === "/slow") setTimeout(done, 600);
      else done();
    });
  });
  state[`http${port}`] = server;
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

function get(
  { http }: WorkerContext,
  host: string,
  port: number,
  path: string,
  body: string,
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { host, port, path, method: body === "" ? "GET" : "POST", agent: false },
      (response) => {
        let text = "";
        response.on("data", (bytes: Buffer) => (text += bytes.toString()));
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, text, headers: response.headers }),
        );
        response.on("error", reject);
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}

describe("HTTP between two sidecars", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let a: Pod;
  let b: Pod;
  let stranger: Pod;
  before(async () => {
    mesh = await Mesh.start();
    a = await mesh.pod("a", { isMeshed: true, inboundPorts: [8080] });
    b = await mesh.pod("b", { isMeshed: true, inboundPorts: [8080] });
    client = await mesh.pod("client", { isMeshed: true });
    stranger = await mesh.pod("stranger", { isMeshed: false });
    await mesh.set({
      services: { [`${VIP}:80`]: { protocol: "detect", path: "web:80" } },
      endpoints: { "web:80": [a.endpoint(8080)] },
    });
    await a.run(serveHttp, 8080, "a");
    await b.run(serveHttp, 8080, "b");
    await stranger.run(serveHttp, 8081, "stranger");
  });
  after(() => mesh.close());

  test("goes as HTTP/2 under mutual TLS and tells the application who asked", async () => {
    const { status, text } = await client.run(get, VIP, 80, "/x?y=1", "");
    assert.equal(status, 200);
    assert.equal(text, `a GET /x?y=1 0 ${client.identity}`);
    assert.equal(
      await a.metric(/^inbound_tcp_transport_header_connections_total.*session_protocol="http\/2"/),
      1,
    );
    assert.equal(
      await a.metric(new RegExp(`^request_total.*direction="inbound".*client_id="${client.identity}"`)),
      1,
    );
    assert.equal(
      await client.metric(
        new RegExp(
          `^response_total.*direction="outbound".*server_id="${a.identity}".*classification="success"`,
        ),
      ),
      1,
    );
  });

  test("carries bodies of a megabyte", async () => {
    const { text } = await client.run(get, VIP, 80, "/", "z".repeat(1_000_000));
    assert.equal(text, `a POST / 1000000 ${client.identity}`);
  });

  test("reaches unmeshed servers, and meshed ones from unmeshed clients", async () => {
    assert.equal((await client.run(get, stranger.ip, 8081, "/", "")).text, "stranger GET / 0 -");
    assert.equal((await stranger.run(get, a.ip, 8080, "/", "")).text, "a GET / 0 -");
  });

  test("an endpoint that left gets nothing any more, and its successor is found at once", async () => {
    await mesh.set({ endpoints: { "web:80": [b.endpoint(8080)] } });
    await until(
      async () => (await client.run(get, VIP, 80, "/", "")).text.startsWith("b"),
      "requests go to b",
    );
    for (let i = 0; i < 20; i++) assert.match((await client.run(get, VIP, 80, "/", "")).text, /^b /);
  });

  test("an endpoint that cannot be reached is gone around", async () => {
    await mesh.set({
      endpoints: {
        "web:80": [a.endpoint(8080), b.endpoint(8080), { ...a.endpoint(8080), ip: "10.213.1.99" }],
      },
    });
    for (let i = 0; i < 20; i++) assert.equal((await client.run(get, VIP, 80, "/", "")).status, 200);
  });

  test("an answer of the mesh says which side gave it, and what to check", async () => {
    await mesh.set({ endpoints: { "web:80": [a.endpoint(8089)] } });
    await until(
      async () => (await client.run(get, VIP, 80, "/", "")).status === 502,
      "requests go to a port where nobody listens",
    );
    const server = await client.run(get, VIP, 80, "/", "");
    assert.match(server.text, /^server's sidecar \(a\.test\): .*8089.*; check .*\(CONNECT_FAILED\)\n$/);
    assert.match(String(server.headers["proxy-status"]), /^pillion;pillion-unseen;error=connection_refused;/);
    await mesh.set({ endpoints: { "web:80": [] } });
    await until(
      async () => (await client.run(get, VIP, 80, "/", "")).status === 504,
      "there is no endpoint",
      10_000,
    );
    const ours = await client.run(get, VIP, 80, "/", "");
    assert.match(ours.text, /^client's sidecar \(client\.test\): .*no ready endpoint.*\(NO_ENDPOINTS\)\n$/);
  });

  test("only whom the policy names may ask, and the answer says why", async () => {
    await mesh.set({
      endpoints: { "web:80": [a.endpoint(8080)] },
      ports: { "8080": { protocol: "detect", allow: b.identity } },
    });
    await until(
      async () => (await client.run(get, VIP, 80, "/", "")).status === 403,
      "the policy is in force",
    );
    const { headers, text } = await client.run(get, VIP, 80, "/", "");
    const line = String(headers["l5d-proxy-error"]);
    assert.match(
      line,
      /^server's sidecar \(a\.test\): client\.test.*was refused.*\[default\/stub\]; check .*NOT_AUTHORIZED/,
    );
    assert.equal(text, `${line}\n`);
    assert.match(String(headers["proxy-status"]), /^pillion;error=http_request_denied;.*pillion-side=server/);
    assert.equal((await stranger.run(get, a.ip, 8080, "/", "")).status, 403);
    await mesh.set({ ports: {} });
    await until(async () => (await client.run(get, VIP, 80, "/", "")).status === 200, "the policy is gone");
  });

  test("goes on to known targets while the control plane is away, and finds moved pods when it is back", async () => {
    await mesh.set({ endpoints: { "web:80": [a.endpoint(8080)] } });
    await until(
      async () => (await client.run(get, VIP, 80, "/", "")).text.startsWith("a"),
      "requests go to a",
    );
    await mesh.killControl();
    for (let i = 0; i < 20; i++) assert.equal((await client.run(get, VIP, 80, "/", "")).status, 200);
    await mesh.set({ endpoints: { "web:80": [b.endpoint(8080)] } });
    await mesh.startControl();
    await until(
      async () => (await client.run(get, VIP, 80, "/", "")).text.startsWith("b"),
      "requests go to b",
      5000,
    );
  });

  test("drains inbound on SIGUSR2: who comes is served and sent on, /drain tells, outbound goes on", async () => {
    await mesh.set({ endpoints: { "web:80": [a.endpoint(8080)] } });
    await until(
      async () => (await client.run(get, VIP, 80, "/", "")).text.startsWith("a"),
      "requests go to a",
    );
    const slow = client.run(get, VIP, 80, "/slow", "");
    await until(
      async () =>
        (JSON.parse((await a.admin("/drain")).text) as { inboundRequests: number }).inboundRequests === 1,
      "the request is under way",
    );
    a.sidecar?.kill("SIGUSR2");
    await until(
      async () => (JSON.parse((await a.admin("/drain")).text) as { draining: boolean }).draining,
      "a drains",
    );
    assert.equal((await slow).status, 200);
    // Nobody has told the client that there is another: a draining server serves who comes, and sends them on.
    for (let i = 0; i < 10; i++) {
      const { status, text } = await client.run(get, VIP, 80, "/", "");
      assert.deepEqual([status, text[0]], [200, "a"]);
    }
    const plain = await stranger.run(get, a.ip, 8080, "/", "");
    assert.deepEqual([plain.status, plain.headers["connection"]], [200, "close"]);
    await mesh.set({ endpoints: { "web:80": [a.endpoint(8080), b.endpoint(8080)] } });
    for (let i = 0; i < 10; i++) assert.equal((await client.run(get, VIP, 80, "/", "")).status, 200);
    assert.equal((await a.run(get, stranger.ip, 8081, "/", "")).status, 200);
  });

  test("ends by SIGTERM after the last request", async () => {
    await mesh.set({ endpoints: { "web:80": [b.endpoint(8080)] } });
    await until(
      async () => (await client.run(get, VIP, 80, "/", "")).text.startsWith("b"),
      "requests go to b",
    );
    const slow = client.run(get, VIP, 80, "/slow", "");
    await until(
      async () =>
        (JSON.parse((await b.admin("/drain")).text) as { inboundRequests: number }).inboundRequests === 1,
      "the request is under way",
    );
    b.sidecar?.kill("SIGTERM");
    assert.equal((await slow).status, 200);
    await until(() => b.sidecar?.exitCode === 0, "the sidecar of b has ended");
  });
});
