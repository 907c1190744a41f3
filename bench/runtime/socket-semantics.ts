/**
 * Socket behaviour that back-pressure, failure handling and identity rest on, tried in the process that runs this file.
 * Run it once under each candidate:   RUNTIME bench/runtime/socket-semantics.ts
 */
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  connect as connectTls,
  createSecureContext,
  createServer as createTlsServer,
  type TLSSocket,
} from "node:tls";
import { makeCertificates, MESH_ALPN, SERVER_NAME } from "./certs.ts";

type Verdict = [ok: boolean, detail: string];

const folder = mkdtempSync(join(tmpdir(), "socket-semantics-"));
makeCertificates(folder);
const pem = (name: string): Buffer => readFileSync(join(folder, name));
const identity = (leaf: string) => ({
  key: pem(`${leaf}.key`),
  cert: pem(`${leaf}.pem`),
  ca: [pem("root.pem")],
});
const MIB = 1024 * 1024;

async function until(wanted: () => boolean, withinMs = 3000): Promise<boolean> {
  for (const stop = Date.now() + withinMs; Date.now() < stop; await sleep(5)) if (wanted()) return true;
  return wanted();
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** A connected pair: `left` dialled, `right` was accepted (through peek, unshift and emit when `tls`). */
async function pair(tls: boolean): Promise<{ left: Socket; right: Socket; close: () => void }> {
  let right: Socket | undefined;
  const tlsServer = createTlsServer({
    ...identity("server"),
    requestCert: true,
    rejectUnauthorized: true,
    ALPNProtocols: [MESH_ALPN],
    allowHalfOpen: true,
  });
  tlsServer.on("secureConnection", (socket) => (right = socket));
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    if (!tls) {
      right = socket;
      return;
    }
    socket.once("data", (bytes) => {
      socket.pause();
      socket.unshift(bytes);
      tlsServer.emit("connection", socket);
    });
  });
  const port = await listen(server);
  const raw = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const secureContext = createSecureContext({ ...identity("client"), minVersion: "TLSv1.3" });
  const left = tls
    ? connectTls({ socket: raw, servername: SERVER_NAME, secureContext, ALPNProtocols: [MESH_ALPN] })
    : raw;
  await until(() => right !== undefined);
  if (right === undefined) throw new Error("no connection");
  const accepted = right;
  for (const socket of [left, accepted]) socket.on("error", () => undefined);
  const close = (): void => {
    left.destroy();
    accepted.destroy();
    server.close();
  };
  return { left, right: accepted, close };
}

/** A writer that heeds `write() === false` against a reader that reads nothing: how much piles up, and where? */
async function backPressure(tls: boolean): Promise<Verdict> {
  const { left, right, close } = await pair(tls);
  right.pause();
  right.on("data", (bytes) => (received += bytes.length));
  right.pause();
  let received = 0;
  let written = 0;
  const chunk = Buffer.alloc(65_536, 97);
  const goal = 64 * MIB;
  let drains = 0;
  const pump = (): void => {
    while (written < goal) {
      written += chunk.length;
      if (!left.write(chunk)) return;
    }
  };
  left.on("drain", () => {
    drains++;
    pump();
  });
  pump();
  await sleep(400);
  const stalledAt = written;
  const buffered = left.writableLength;
  const receivedWhilePaused = received;
  right.resume();
  const all = await until(() => received === goal, 8000);
  close();
  const ok = stalledAt < 16 * MIB && receivedWhilePaused === 0 && all && drains > 0;
  const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;
  return [
    ok,
    `stalled after ${mib(stalledAt)}, ${mib(buffered)} in writableLength; ${all ? "all" : mib(received)} arrived after resume`,
  ];
}

/** A pause in the middle of a stream must stop delivery at once, or nearly so. */
async function pauseInside(tls: boolean): Promise<Verdict> {
  const { left, right, close } = await pair(tls);
  let afterPause = 0;
  let paused = false;
  right.on("data", (bytes) => {
    if (paused) afterPause += bytes.length;
    else {
      paused = true;
      right.pause();
    }
  });
  for (let i = 0; i < 64; i++) left.write(Buffer.alloc(16_384));
  await until(() => paused);
  await sleep(200);
  close();
  return [afterPause === 0, `${afterPause} bytes delivered after pause()`];
}

async function dialRefused(): Promise<Verdict> {
  const server = createServer();
  const port = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  let code: string | undefined;
  const socket = connect(port, "127.0.0.1");
  socket.on("error", (error: NodeJS.ErrnoException) => (code = error.code));
  await until(() => socket.closed);
  return [code === "ECONNREFUSED" && socket.closed, `code ${code ?? "none"}`];
}

async function peerReset(tls: boolean): Promise<Verdict> {
  const { left, right, close } = await pair(tls);
  let code: string | undefined;
  right.on("error", (error: NodeJS.ErrnoException) => (code = error.code));
  right.resume();
  const below = (left as TLSSocket & { _parent?: Socket })._parent ?? left;
  below.resetAndDestroy();
  await until(() => right.destroyed);
  close();
  return [code === "ECONNRESET", `the other side sees ${code ?? "a clean end"}`];
}

/** Node's handle refuses to be reset while its shutdown is under way. */
async function resetAfterEnd(): Promise<Verdict> {
  const { left, right, close } = await pair(false);
  const events: string[] = [];
  left.on("error", (error: NodeJS.ErrnoException) => events.push(`error ${error.code ?? ""}`));
  left.on("close", () => events.push("close"));
  let code: string | undefined;
  right.on("error", (error: NodeJS.ErrnoException) => (code = error.code));
  right.resume();
  left.end("last words");
  left.resetAndDestroy();
  await until(() => code !== undefined && events.includes("close"), 500);
  close();
  const ok = events.join() === "close" && code !== undefined;
  return [ok, `this side: ${events.join(", ")}; the other side: ${code ?? "a clean end"}`];
}

/** The remote ended its half long ago; now it resets. Nobody reads any more, so who notices? */
async function resetAfterRemoteEnd(): Promise<Verdict> {
  const { left, right, close } = await pair(false);
  let closed = false;
  right.on("close", () => (closed = true));
  right.resume();
  left.end("question");
  await until(() => right.readableEnded);
  left.resetAndDestroy();
  await until(() => closed, 700);
  close();
  return [closed, closed ? "noticed" : "not noticed within 0.7 s"];
}

async function writeAfterPeerGone(): Promise<Verdict> {
  const { left, right, close } = await pair(false);
  let code: string | undefined;
  left.on("error", (error: NodeJS.ErrnoException) => (code = error.code));
  right.destroy();
  await sleep(20);
  for (let i = 0; i < 20 && code === undefined; i++) {
    left.write("x");
    await sleep(10);
  }
  await until(() => left.destroyed, 500);
  close();
  return [code === "EPIPE" || code === "ECONNRESET", `code ${code ?? "none"}`];
}

async function sourceAddress(): Promise<Verdict> {
  let seen: string | undefined;
  const server = createServer((socket) => {
    seen = socket.remoteAddress;
    socket.destroy();
  });
  const port = await listen(server);
  const socket = connect({ port, host: "127.0.0.1", localAddress: "127.7.7.7" });
  socket.on("error", () => undefined);
  await until(() => seen !== undefined, 500);
  socket.destroy();
  server.close();
  return [seen === "127.7.7.7", `server saw ${seen ?? "nobody"}`];
}

async function identityOfPeer(): Promise<Verdict> {
  const { right, close } = await pair(true);
  const tls = right as TLSSocket;
  const certificate = tls.getPeerX509Certificate();
  const root = new X509Certificate(pem("root.pem"));
  const chained =
    certificate !== undefined && certificate.checkIssued(root) && certificate.verify(root.publicKey);
  close();
  return [
    chained === true && /DNS:client/.test(certificate?.subjectAltName ?? ""),
    `${certificate?.subjectAltName ?? "none"}; chain re-verified: ${String(chained)}`,
  ];
}

async function bulk(tls: boolean): Promise<Verdict> {
  const { left, right, close } = await pair(tls);
  const goal = 256 * MIB;
  let received = 0;
  let reads = 0;
  right.on("data", (bytes) => {
    received += bytes.length;
    reads++;
  });
  let written = 0;
  const chunk = Buffer.alloc(65_536, 97);
  const pump = (): void => {
    while (written < goal) {
      written += chunk.length;
      if (!left.write(chunk)) return;
    }
  };
  left.on("drain", pump);
  const start = process.cpuUsage();
  const startMs = performance.now();
  pump();
  const all = await until(() => received === goal, 20_000);
  const seconds = (performance.now() - startMs) / 1000;
  const cpu = process.cpuUsage(start);
  close();
  const cpuPerGb = ((cpu.user + cpu.system) / 1e6 / goal) * 1e9;
  return [
    all,
    `${(goal / 1e6 / seconds).toFixed(0)} MB/s, ${cpuPerGb.toFixed(2)} CPU s per GB for both ends, ${Math.round(received / reads)} bytes a read`,
  ];
}

async function manyConnections(tls: boolean, count: number): Promise<Verdict> {
  const before = process.memoryUsage().rss;
  const pairs = [];
  for (let i = 0; i < count; i++) pairs.push(await pair(tls));
  await sleep(100);
  const after = process.memoryUsage().rss;
  let echoed = 0;
  for (const { left, right } of pairs) {
    right.on("data", () => echoed++);
    left.write("x");
  }
  const all = await until(() => echoed === count);
  for (const { close } of pairs) close();
  return [
    all,
    `${((after - before) / 1024 / count).toFixed(0)} KiB RSS for each pair of ends (with a listener each)`,
  ];
}

const checks: [string, () => Promise<Verdict>][] = [
  ["back-pressure on plain TCP", () => backPressure(false)],
  ["back-pressure over TLS", () => backPressure(true)],
  ["pause inside a plain stream", () => pauseInside(false)],
  ["pause inside a TLS stream", () => pauseInside(true)],
  ["a refused dial says ECONNREFUSED", dialRefused],
  ["a RST says ECONNRESET, plain", () => peerReset(false)],
  ["a RST says ECONNRESET, TLS", () => peerReset(true)],
  ["end and reset in one turn is a RST and closes", resetAfterEnd],
  ["a RST after the remote's own end is noticed", resetAfterRemoteEnd],
  ["writing to a peer that is gone fails", writeAfterPeerGone],
  ["dials from a chosen source address", sourceAddress],
  ["peer certificate as X509Certificate, chain verified again", identityOfPeer],
  ["bulk over plain TCP in one process", () => bulk(false)],
  ["bulk over TLS in one process", () => bulk(true)],
  ["200 plain connections", () => manyConnections(false, 200)],
  ["200 TLS connections", () => manyConnections(true, 200)],
];

let failed = 0;
console.log(`${process.execPath} ${process.versions["bun"] ?? process.version}`);
for (const [name, check] of checks) {
  const [ok, detail] = await check().catch((error: unknown): Verdict => [false, String(error)]);
  if (!ok) failed++;
  console.log(`${ok ? "yes" : "NO "}  ${name.padEnd(58)} ${detail}`);
}
rmSync(folder, { recursive: true });
process.exit(failed === 0 ? 0 : 1);
