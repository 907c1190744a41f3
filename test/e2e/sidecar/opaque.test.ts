import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { cannotRun, Mesh, type Pod } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.1";

/** Listens on a port with one of a few plain behaviours; what it saw stays in `ctx.state`. */
function serve(
  { net, state }: WorkerContext,
  port: number,
  behaviour: "echo" | "greet" | "half-close" | "reset",
): Promise<null> {
  const seen: string[] = [];
  state[`seen${port}`] = seen;
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    let text = "";
    socket.on("error", (error: NodeJS.ErrnoException) => seen.push(`error ${error.code}`));
    socket.on("data", (bytes) => {
      text += bytes.toString("latin1");
      if (behaviour === "echo") socket.write(bytes);
      if (behaviour === "reset")
        socket.write("last words", () => setTimeout(() => socket.resetAndDestroy(), 20));
    });
    socket.on("end", () => {
      seen.push(`end after ${text.length}`);
      if (behaviour === "half-close") socket.end(`you said ${text.length} bytes`);
      else socket.end();
    });
    if (behaviour === "greet") socket.write("220 hello\r\n");
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

/** A server with TLS of its own that echoes in upper case. */
function serveTls({ tls }: WorkerContext, port: number, key: string, cert: string): Promise<null> {
  const server = tls.createServer({ key, cert, ALPNProtocols: ["own/2", "own/1"] }, (socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (bytes) => socket.end(bytes.toString().toUpperCase()));
  });
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

/** What a client with TLS of its own gets, and whose certificate it saw. */
function talkTls(
  { tls }: WorkerContext,
  host: string,
  port: number,
  servername: string,
  ca: string,
): Promise<{ text: string; subject: string; alpn: string; error: string }> {
  return new Promise((resolve) => {
    const outcome = { text: "", subject: "", alpn: "", error: "" };
    const name = servername === "" ? {} : { servername };
    const options = {
      host,
      port,
      ca,
      ALPNProtocols: ["own/1"],
      checkServerIdentity: () => undefined,
      ...name,
    };
    const socket = tls.connect(options, () => {
      outcome.subject = String(socket.getPeerCertificate().subject.CN);
      outcome.alpn = String(socket.alpnProtocol);
      socket.write("hello");
    });
    socket.on("data", (bytes) => (outcome.text += bytes.toString()));
    socket.on("error", (error) => (outcome.error = error.message));
    socket.on("close", () => resolve(outcome));
  });
}

interface Outcome {
  text: string;
  bytes: number;
  ended: boolean;
  error: string;
  firstByteMs: number;
}

/** Connects, says something (or nothing), optionally ends its half, and tells what came until the connection was over. */
function talk(
  { net }: WorkerContext,
  host: string,
  port: number,
  say: string,
  end: boolean,
  untilText: string,
): Promise<Outcome> {
  return new Promise((resolve) => {
    const outcome = { text: "", bytes: 0, ended: false, error: "", firstByteMs: -1 };
    const startedAtMs = performance.now();
    const socket = net.connect({ host, port, allowHalfOpen: true }, () => {
      if (say !== "") socket.write(say);
      if (end) socket.end();
    });
    socket.on("data", (bytes) => {
      if (outcome.firstByteMs < 0) outcome.firstByteMs = performance.now() - startedAtMs;
      outcome.bytes += bytes.length;
      if (outcome.text.length < 10_000) outcome.text += bytes.toString("latin1");
      if (untilText !== "" && outcome.text.includes(untilText)) socket.destroy();
    });
    socket.on("end", () => {
      outcome.ended = true;
      socket.end();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => (outcome.error = error.code ?? ""));
    socket.on("close", () => resolve(outcome));
    setTimeout(() => socket.destroy(), 8000).unref();
  });
}

describe("opaque bytes between two sidecars", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let server: Pod;
  let stranger: Pod;
  before(async () => {
    mesh = await Mesh.start();
    server = await mesh.pod("server", { isMeshed: true, inboundPorts: [7000, 7001, 7002, 7003, 7443] });
    client = await mesh.pod("client", { isMeshed: true });
    stranger = await mesh.pod("stranger", { isMeshed: false });
    await mesh.set({
      services: {
        ...Object.fromEntries(
          [7000, 7001, 7002, 7003, 7009, 7443].map((port) => [
            `${VIP}:${port}`,
            { protocol: "detect" as const, path: `svc:${port}` },
          ]),
        ),
        // Declared as TLS.
        [`${VIP}:7444`]: { protocol: "tls" as const, path: "svc:7443" },
      },
      endpoints: {
        ...Object.fromEntries(
          [7000, 7001, 7002, 7003, 7443].map((port) => [`svc:${port}`, [server.endpoint(port)]]),
        ),
        "svc:7009": [server.endpoint(7009)],
      },
    });
    await server.run(serve, 7000, "echo");
    await server.run(serve, 7001, "greet");
    await server.run(serve, 7002, "half-close");
    await server.run(serve, 7003, "reset");
    await stranger.run(serve, 7001, "greet");
  });
  after(() => mesh.close());

  test("echoes, under mutual TLS with both identities", async () => {
    const { text } = await client.run(talk, VIP, 7000, "\x00\x01binary", false, "binary");
    assert.equal(text, "\x00\x01binary");
    assert.equal(
      await client.metric(
        new RegExp(`^tcp_open_total.*peer="dst".*tls="true".*server_id="${server.identity}"`),
      ),
      1,
    );
    assert.equal(
      await server.metric(
        new RegExp(`^tcp_open_total.*peer="src".*tls="true".*client_id="${client.identity}"`),
      ),
      1,
    );
  });

  test("carries megabytes both ways and keeps half-close", async () => {
    const { text, ended } = await client.run(talk, VIP, 7002, "\x01".repeat(3_000_000), true, "");
    assert.equal(text, "you said 3000000 bytes");
    assert.equal(ended, true);
    const echoed = await client.run(talk, VIP, 7000, "\x01".repeat(2_000_000), true, "");
    assert.equal(echoed.bytes, 2_000_000);
    assert.equal(echoed.error, "");
  });

  test("a server's reset arrives as a reset, after its last words", async () => {
    const { text, error, ended } = await client.run(talk, VIP, 7003, "\x00", false, "");
    assert.equal(text, "last words");
    assert.equal(error, "ECONNRESET");
    assert.equal(ended, false);
  });

  test("a dead application behind the far sidecar ends in RST, not FIN", async () => {
    const { error, ended } = await client.run(talk, VIP, 7009, "\x00", false, "");
    assert.equal(error, "ECONNRESET");
    assert.equal(ended, false);
  });

  test("a server that speaks first is heard within 50 ms more: meshed to meshed, to unmeshed, and from unmeshed", async () => {
    for (const [from, host] of [
      [client, VIP],
      [client, stranger.ip],
      [stranger, server.ip],
    ] as const) {
      // In turn with the same past the mesh, so that both meet the same machine.
      const [meshMs, directMs] = [[] as number[], [] as number[]];
      for (let i = 0; i < 20; i++)
        for (const [times, pod, at] of [
          [meshMs, from, host],
          [directMs, stranger, "127.0.0.1"],
        ] as const) {
          const { text, firstByteMs } = await pod.run(talk, at, 7001, "", false, "hello");
          assert.match(text, /^220 hello/);
          times.push(firstByteMs);
        }
      const [median = Infinity, direct = 0] = [meshMs, directMs].map(
        (times) => times.toSorted((a, b) => a - b)[10],
      );
      assert.ok(
        median < direct + 50,
        `median of ${from.name} to ${host}: ${median.toFixed(1)} ms, past the mesh ${direct.toFixed(1)}`,
      );
    }
  });

  test("TLS of the workload's own passes untouched, and its server name is told", async () => {
    const own = mesh.selfSigned("own", "subjectAltName=DNS:db.example");
    await server.run(serveTls, 7443, own.key, own.cert);
    const passed = /^pillion_passed_tls_connections_total.*target_port="7443".*server_name="db.example"/;
    for (const [from, host] of [
      [client, VIP],
      [stranger, server.ip],
    ] as const) {
      assert.deepEqual(await from.run(talkTls, host, 7443, "db.example", own.cert), {
        text: "HELLO",
        subject: "own",
        alpn: "own/1",
        error: "",
      });
    }
    assert.equal(await client.metric(passed), 1);
    assert.equal(await server.metric(passed), 1);
    assert.equal((await client.run(talkTls, VIP, 7444, "db.example", own.cert)).text, "HELLO");
    assert.equal(
      await client.metric(
        /^pillion_passed_tls_connections_total.*target_port="7444".*server_name="db.example"/,
      ),
      1,
    );
    assert.equal((await client.run(talkTls, VIP, 7443, "", own.cert)).text, "HELLO");
    assert.equal(await client.metric(/^pillion_passed_tls_connections_total.*server_name=""/), 1);
  });

  test("an unknown address outside of the mesh is passed through in plaintext", async () => {
    const { text } = await client.run(talk, stranger.ip, 7001, "", false, "hello");
    assert.match(text, /^220 hello/);
    assert.equal((await client.metric(/^tcp_open_total.*peer="dst".*tls="no_identity"/)) > 0, true);
  });

  test("answers the self-test of interception in both directions", async () => {
    const outbound = await client.run(talk, "192.0.2.1", 20001, "", true, "");
    assert.equal(outbound.text, "pillion-intercept ok\n");
    const inbound = await stranger.run(talk, server.ip, 20001, "", true, "");
    assert.equal(inbound.text, "pillion-intercept ok\n");
  });
});
