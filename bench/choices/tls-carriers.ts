/**
 * What `node:tls` costs over a stream written in JavaScript, which is how sockets of our own would have to hand it their bytes, against a
 * socket of Node's. Both ends in this process; prints one line of JSON.
 *
 *   tls-carriers.ts socket|stream CERTIFICATES SECONDS
 */
import { readFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { connect as connectTls, TLSSocket } from "node:tls";
import { cpuBetween, cpuUsed } from "../lib/process-cost.ts";
import { SERVER_NAME } from "../runtime/certs.ts";

const [kind, folder = "", seconds] = process.argv.slice(2);
const MESSAGE = Buffer.alloc(1024, "m");
const BULK = Buffer.alloc(64 * 1024, "b");
const pem = (name: string): Buffer => readFileSync(join(folder, name));

/** The thinnest stream that carries a socket's bytes. */
function asStream(socket: Socket): Duplex {
  const stream = new Duplex({
    read: () => void socket.resume(),
    write: (bytes, _encoding, done) => void socket.write(bytes as Buffer, done),
    final: (done) => void socket.end(done),
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  socket.on("data", (bytes: Buffer) => {
    if (!stream.push(bytes)) socket.pause();
  });
  socket.on("end", () => void stream.push(null));
  return stream;
}

const carrier = (socket: Socket): Socket | Duplex => (kind === "stream" ? asStream(socket) : socket);
const server = createServer({ noDelay: true }, (socket) => {
  const tls = new TLSSocket(carrier(socket) as Socket, {
    isServer: true,
    key: pem("server.key"),
    cert: pem("server.pem"),
    minVersion: "TLSv1.3",
  });
  tls.on("error", () => undefined);
  // Messages are answered; bulk, which comes in bigger pieces, is not.
  tls.on("data", (bytes: Buffer) => {
    if (bytes.length <= MESSAGE.length) tls.write(bytes);
    else received += bytes.length;
  });
});
let received = 0;
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const plain = connect({ host: "127.0.0.1", port: (server.address() as AddressInfo).port, noDelay: true });
const tls = connectTls({ socket: carrier(plain) as Socket, servername: SERVER_NAME, ca: [pem("root.pem")] });
await new Promise((resolve) => tls.once("secureConnect", resolve));

let trips = 0;
let isOver = false;
tls.on("data", () => {
  trips++;
  if (!isOver) tls.write(MESSAGE);
});
tls.write(MESSAGE);
await wait(300);
const tripsBefore = trips;
const cpuTrips = await during(Number(seconds));
const tripsDone = trips - tripsBefore;
isOver = true;
await wait(50);
let isPouring = true;
const pour = (): void => {
  while (isPouring && tls.write(BULK));
};
tls.on("drain", pour);
pour();
await wait(300);
const receivedBefore = received;
const cpuBulk = await during(Number(seconds));
const receivedDone = received - receivedBefore;
isPouring = false;
console.log(
  JSON.stringify({
    usPerTrip: cpuTrips / tripsDone,
    cpuSecondsPerGb: cpuBulk / 1e6 / (receivedDone / 1e9),
    mbPerSecond: receivedDone / 1e6 / Number(seconds),
  }),
);
process.exit();

async function during(runSeconds: number): Promise<number> {
  const before = cpuUsed(process.pid);
  await wait(runSeconds * 1000);
  const { userUs, systemUs } = cpuBetween(before, cpuUsed(process.pid));
  return userUs + systemUs;
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
