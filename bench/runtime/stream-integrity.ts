/**
 * Random streams over plain TCP and TLS in one process: random sizes, random pauses, bytes put back, half-closes in
 * random order, some resets. Every stream that was not reset must arrive whole, in order, with one end and one close.
 * A seed repeats the choices (not the timing).   RUNTIME bench/runtime/stream-integrity.ts SECONDS [SEED]
 */
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls, createServer as createTlsServer, type ConnectionOptions } from "node:tls";
import { makeCertificates, MESH_ALPN, SERVER_NAME } from "./certs.ts";

const seconds = Number(process.argv[2] ?? 20);
let seed = Number(process.argv[3] ?? Date.now() % 1_000_000);
console.log(`${process.versions["bun"] ?? process.version}, seed ${seed}`);

/** mulberry32 */
function random(): number {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
}
const below = (limit: number): number => Math.floor(random() * limit);

const folder = mkdtempSync(join(tmpdir(), "stream-integrity-"));
makeCertificates(folder);
const pem = (name: string): Buffer => readFileSync(join(folder, name));
const identity = (leaf: string) => ({
  key: pem(`${leaf}.key`),
  cert: pem(`${leaf}.pem`),
  ca: [pem("root.pem")],
});

const faults: string[] = [];
let whole = 0;
let resets = 0;
let bytesMoved = 0;

/** Accepted sides by the dialler's port; either side of a conversation may be first to know of it. */
const accepted = new Map<number, Socket>();
const tlsServer = createTlsServer({
  ...identity("server"),
  requestCert: true,
  rejectUnauthorized: true,
  ALPNProtocols: [MESH_ALPN],
  allowHalfOpen: true,
});
const arrive = (socket: Socket): void => {
  socket.on("error", () => undefined);
  accepted.set(socket.remotePort ?? 0, socket);
};
tlsServer.on("secureConnection", arrive);
const plainServer = createServer({ allowHalfOpen: true }, arrive);
const peekingServer = createServer({ allowHalfOpen: true }, (socket) => {
  socket.once("data", (bytes) => {
    socket.pause();
    socket.unshift(bytes);
    tlsServer.emit("connection", socket);
  });
});
for (const server of [plainServer, peekingServer])
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const portOf = (tls: boolean): number => ((tls ? peekingServer : plainServer).address() as AddressInfo).port;

/** Sends `size` bytes of a known pattern in random pieces, heeding back-pressure; then ends its half. */
function send(socket: Socket, size: number, digest: (hex: string) => void): void {
  const hash = createHash("sha1");
  let left = size;
  const more = (): void => {
    while (left > 0 && !socket.destroyed) {
      const piece = Buffer.alloc(Math.min(left, 1 + below(random() < 0.2 ? 200_000 : 3000)), below(256));
      left -= piece.length;
      hash.update(piece);
      if (left === 0) {
        digest(hash.digest("hex"));
        socket.end(piece);
        return;
      }
      if (!socket.write(piece)) {
        socket.once("drain", more);
        return;
      }
      if (random() < 0.1) {
        setTimeout(more, below(5));
        return;
      }
    }
  };
  if (size === 0) {
    digest(hash.digest("hex"));
    socket.end();
  } else more();
}

/** Reads to the end with random pauses; some bytes are put back once. */
function receive(socket: Socket, done: (hex: string, size: number) => void): void {
  const hash = createHash("sha1");
  let size = 0;
  let ended = false;
  socket.on("data", (bytes: Buffer) => {
    if (ended) faults.push("data after end");
    if (random() < 0.03 && bytes.length > 1) {
      const keep = 1 + below(bytes.length - 1);
      hash.update(bytes.subarray(0, keep));
      size += keep;
      socket.pause();
      socket.unshift(bytes.subarray(keep));
      setTimeout(() => socket.resume(), below(3));
      return;
    }
    hash.update(bytes);
    size += bytes.length;
    if (random() < 0.05) {
      socket.pause();
      setTimeout(() => socket.resume(), below(10));
    }
  });
  socket.on("end", () => {
    if (ended) faults.push("second end");
    ended = true;
    done(hash.digest("hex"), size);
  });
}

async function conversation(): Promise<void> {
  const tls = random() < 0.5;
  const name = tls ? "TLS" : "plain";
  const dialled = connect({ port: portOf(tls), host: "127.0.0.1", allowHalfOpen: true });
  await new Promise((resolve) => dialled.once("connect", resolve));
  const port = dialled.localPort ?? 0;
  const left = tls
    ? connectTls({
        socket: dialled,
        servername: SERVER_NAME,
        ...identity("client"),
        ALPNProtocols: [MESH_ALPN],
        allowHalfOpen: true,
      } as ConnectionOptions)
    : dialled;
  left.on("error", () => undefined);
  const untilMs = Date.now() + 5000;
  while (!accepted.has(port) && Date.now() < untilMs) await sleep(1);
  const right = accepted.get(port);
  accepted.delete(port);
  if (right === undefined) {
    faults.push(`${name}: not accepted within 5 s`);
    left.destroy();
    return;
  }

  const sides = [
    {
      from: left,
      to: right,
      size: below(random() < 0.1 ? 3_000_000 : 60_000),
      sent: "",
      got: "",
      gotSize: -1,
    },
    {
      from: right,
      to: left,
      size: below(random() < 0.1 ? 3_000_000 : 60_000),
      sent: "",
      got: "",
      gotSize: -1,
    },
  ];
  const isReset = random() < 0.05;
  let closes = 0;
  for (const socket of [left, right]) socket.on("close", () => closes++);
  for (const side of sides) {
    receive(side.to, (hex, size) => {
      side.got = hex;
      side.gotSize = size;
    });
    send(side.from, side.size, (hex) => (side.sent = hex));
  }
  if (isReset) setTimeout(() => dialled.resetAndDestroy(), below(10));
  const stop = Date.now() + 20_000;
  while (closes < 2 && Date.now() < stop) await sleep(5);
  if (closes !== 2)
    faults.push(
      `${name}: ${closes} closes within 20 s${isReset ? " after a reset" : ""}, got ${sides.map((s) => `${s.gotSize}/${s.size}`).join(" ")}`,
    );
  if (isReset) resets++;
  else {
    for (const side of sides) {
      bytesMoved += side.size;
      if (side.got !== side.sent || side.gotSize !== side.size)
        faults.push(
          `${name}: ${side.gotSize} of ${side.size} bytes, ${side.got === side.sent ? "same" : "other"} hash`,
        );
    }
    whole++;
  }
  left.destroy();
  right.destroy();
}

const stopMs = Date.now() + seconds * 1000;
await Promise.all(
  Array.from({ length: 24 }, async () => {
    while (Date.now() < stopMs) await conversation();
  }),
);
const mib = Math.round(bytesMoved / 1_048_576);
const rssMib = Math.round(process.memoryUsage().rss / 1_048_576);
console.log(
  `${whole} conversations whole (${mib} MiB), ${resets} reset, ${faults.length} faults, ${rssMib} MiB RSS at the end`,
);
for (const fault of faults.slice(0, 10)) console.log(`  ${fault}`);
rmSync(folder, { recursive: true });
process.exit(faults.length === 0 ? 0 : 1);
