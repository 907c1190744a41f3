import assert from "node:assert/strict";
import type { ServerHttp2Stream } from "node:http2";
import { after, before, describe, test } from "node:test";
import { cannotRun, Mesh, type Pod, until } from "./rig/mesh.ts";
import type { WorkerContext } from "./rig/worker.ts";

const skip = cannotRun() ?? false;
const VIP = "10.214.0.2";

/** Echoes what comes in an extended CONNECT, and answers other requests. */
function serveHttp2({ http2, state }: WorkerContext, port: number): Promise<null> {
  const server = http2.createServer({ settings: { enableConnectProtocol: true } });
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    stream.on("error", () => undefined);
    stream.respond({ ":status": 200, "x-protocol": String(headers[":protocol"] ?? "-") });
    if (headers[":method"] === "CONNECT") stream.pipe(stream);
    else stream.end("hello");
  });
  state[`h2 ${port}`] = server;
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

/** Knows HTTP/1 only, and echoes what comes after an upgrade. */
function serveHttp1({ http, state }: WorkerContext, port: number): Promise<null> {
  const server = http.createServer();
  server.on("upgrade", (request, socket) => {
    socket.on("error", () => undefined);
    const hasKey = /^[\w+/]{22}==$/.test(String(request.headers["sec-websocket-key"]));
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Key: ${hasKey}\r\n\r\n`,
    );
    socket.pipe(socket);
  });
  state[`h1 ${port}`] = server;
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

/** Answers at once, or never, and counts what it has seen. */
function serveMaybe(
  { http2, state }: WorkerContext,
  port: number,
  name: string,
  answers: boolean,
): Promise<null> {
  const server = http2.createServer();
  state["seen"] = 0;
  server.on("stream", (stream: ServerHttp2Stream) => {
    state["seen"] = Number(state["seen"]) + 1;
    stream.on("error", () => undefined);
    if (!answers) return;
    stream.respond({ ":status": 200 });
    stream.end(name);
  });
  state[`maybe ${port}`] = server;
  return new Promise((done) => server.listen(port, "0.0.0.0", () => done(null)));
}

function seen({ state }: WorkerContext): number {
  return Number(state["seen"]);
}

function ask({ http2 }: WorkerContext, ip: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const session = http2.connect(`http://${ip}:${port}`);
    session.on("error", reject);
    const stream = session.request({ ":path": "/" });
    let text = "";
    let status = 0;
    stream.on("error", reject);
    stream.on("response", (headers) => (status = Number(headers[":status"])));
    stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
    stream.on("end", () => {
      session.close();
      resolve(`${status} ${text}`);
    });
  });
}

interface Opened {
  isOffered: boolean;
  status: number;
  headers: Record<string, string>;
  echoedBytes: number;
  isIntact: boolean;
}

/** Opens a WebSocket over HTTP/2, sends as many bytes and its end, and reads what comes back. */
function openWebSocket({ http2 }: WorkerContext, ip: string, port: number, bytes: number): Promise<Opened> {
  return new Promise((resolve, reject) => {
    const session = http2.connect(`http://${ip}:${port}`);
    session.on("error", reject);
    session.once("remoteSettings", (settings) => {
      const stream = session.request(
        { ":method": "CONNECT", ":protocol": "websocket", ":path": "/echo", "sec-websocket-version": "13" },
        { endStream: false },
      );
      let echoedBytes = 0;
      let isIntact = true;
      let answer: Record<string, unknown> = {};
      stream.on("error", reject);
      stream.on("response", (headers) => {
        answer = headers as Record<string, unknown>;
        stream.end(Buffer.alloc(bytes, "0123456789"));
      });
      stream.on("data", (chunk: Buffer) => {
        for (let i = 0; i < chunk.length; i++) isIntact &&= chunk[i] === 0x30 + ((echoedBytes + i) % 10);
        echoedBytes += chunk.length;
      });
      stream.on("end", () => {
        session.close();
        resolve({
          isOffered: settings.enableConnectProtocol === true,
          status: Number(answer[":status"]),
          headers: answer as Record<string, string>,
          echoedBytes,
          isIntact,
        });
      });
    });
  });
}

describe("HTTP/2 between two sidecars", { skip }, () => {
  let mesh: Mesh;
  let client: Pod;
  let server: Pod;
  before(async () => {
    mesh = await Mesh.start();
    server = await mesh.pod("server", { isMeshed: true, inboundPorts: [8080, 8081] });
    client = await mesh.pod("client", { isMeshed: true });
    await mesh.set({
      services: {
        [`${VIP}:80`]: { protocol: "http2", path: "web:80" },
        [`${VIP}:81`]: { protocol: "http2", path: "web:81" },
      },
      endpoints: { "web:80": [server.endpoint(8080)], "web:81": [server.endpoint(8081)] },
    });
    await server.run(serveHttp2, 8080);
    await server.run(serveHttp1, 8081);
  });
  after(() => mesh.close());

  test("a WebSocket is opened by extended CONNECT and carries bytes both ways (RFC 8441)", async () => {
    const opened = await client.run(openWebSocket, VIP, 80, 5_000_000);
    assert.equal(opened.isOffered, true);
    assert.equal(opened.status, 200);
    assert.equal(opened.headers["x-protocol"], "websocket");
    assert.equal(opened.echoedBytes, 5_000_000);
    assert.equal(opened.isIntact, true);
  });

  test("… and by Upgrade where the application knows HTTP/1 only (RFC 6455, RFC 8441 §5)", async () => {
    const opened = await client.run(openWebSocket, VIP, 81, 1_000_000);
    assert.equal(opened.status, 200);
    assert.equal(opened.headers["x-key"], "true");
    assert.equal(opened.headers["upgrade"], undefined);
    assert.equal(opened.echoedBytes, 1_000_000);
    assert.equal(opened.isIntact, true);
  });

  test("a request at a pod that went silent is answered by another (RFC 9113 §6.7, RFC 9110 §9.2.2)", async () => {
    const a = await mesh.pod("a", { isMeshed: true, inboundPorts: [8080] });
    const b = await mesh.pod("b", { isMeshed: true, inboundPorts: [8080] });
    const impatient = await mesh.pod("impatient", {
      isMeshed: true,
      env: { PILLION_HTTP2_KEEP_ALIVE: "300ms", PILLION_HTTP2_KEEP_ALIVE_TIMEOUT: "1s" },
    });
    await a.run(serveMaybe, 8080, "a", false);
    await b.run(serveMaybe, 8080, "b", true);
    await mesh.set({
      services: { ...mesh.table.services, [`${VIP}:82`]: { protocol: "http2", path: "web:82" } },
      endpoints: { ...mesh.table.endpoints, "web:82": [a.endpoint(8080)] },
    });
    const answer = impatient.run(ask, VIP, 82);
    await until(async () => (await a.run(seen)) === 1, "the request is at a");
    // As when a's machine loses its power: no FIN, no RST.
    a.configure("link", "set", "eth0", "down");
    await mesh.set({
      endpoints: { ...mesh.table.endpoints, "web:82": [a.endpoint(8080), b.endpoint(8080)] },
    });
    assert.equal(await answer, "200 b");
  });
});
