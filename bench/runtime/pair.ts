/**
 * A prototype sidecar pair for comparing runtimes: HTTP/1.1 in the clear → length-prefixed frames on one mutual-TLS
 * connection → HTTP/1.1 in the clear. Heads pass unparsed, no policy, no metrics: a floor, not a product. It uses
 * `node:net` and `node:tls` only, so every candidate runtime runs the same file.
 *
 *   pair.ts client CERTIFICATES LISTEN SERVER        pair.ts server CERTIFICATES LISTEN APP
 *   pair.ts hop - LISTEN APP  (one plain hop, no TLS)        pair.ts idle        Places are PORT or HOST:PORT.
 *   pair.ts client-epoll …    as client, the application's connections over an epoll loop of our own (Node only)
 */
import { readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls, createServer as createTlsServer } from "node:tls";
import { MESH_ALPN, SERVER_NAME } from "./certs.ts";

const [role = "", folder = "", listen = "0", target = "0"] = process.argv.slice(2);

/** `HOST:PORT`, or `PORT` on loopback. */
function place(text: string): { host: string; port: number } {
  const colon = text.lastIndexOf(":");
  return { host: colon < 0 ? "127.0.0.1" : text.slice(0, colon), port: Number(text.slice(colon + 1)) };
}
const here = { ...place(listen), backlog: 1024 };
const there = place(target);

/** What is needed of a socket to write to it. */
interface Written {
  readonly destroyed: boolean;
  write(bytes: Uint8Array): unknown;
}

/** Joins all writes of one turn of the loop into one. */
class Writer {
  readonly #socket: Written;
  #queue: Uint8Array[] = [];
  #scheduled = false;
  constructor(socket: Written) {
    this.#socket = socket;
  }
  write(bytes: Uint8Array): void {
    this.#queue.push(bytes);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#flush);
  }
  #flush = (): void => {
    const queue = this.#queue;
    this.#queue = [];
    this.#scheduled = false;
    const only = queue[0];
    if (this.#socket.destroyed || only === undefined) return;
    this.#socket.write(queue.length === 1 ? only : Buffer.concat(queue));
  };
}

/** Cuts HTTP/1.1 messages with a content-length (or none) out of a byte stream. Enough for the load used here. */
class MessageCutter {
  #pending: Buffer | null = null;
  readonly #message: (bytes: Buffer) => void;
  constructor(message: (bytes: Buffer) => void) {
    this.#message = message;
  }
  feed(bytes: Buffer): void {
    let rest = this.#pending === null ? bytes : Buffer.concat([this.#pending, bytes]);
    this.#pending = null;
    while (rest.length > 0) {
      const headEnd = rest.indexOf("\r\n\r\n");
      if (headEnd < 0) break;
      const stop = headEnd + 4 + contentLength(rest, headEnd);
      if (stop > rest.length) break;
      this.#message(rest.subarray(0, stop));
      rest = rest.subarray(stop);
    }
    if (rest.length > 0) this.#pending = rest;
  }
}

/** Value of content-length by bytes, any case; 0 without one. Looks at the first letter after each line end only. */
function contentLength(bytes: Buffer, headEnd: number): number {
  for (let at = bytes.indexOf(10); at >= 0 && at < headEnd; at = bytes.indexOf(10, at + 1)) {
    if ((bytes[at + 1]! | 32) !== 99 || bytes[at + 15] !== 58 || (bytes[at + 9]! | 32) !== 108) continue;
    let value = 0;
    for (let i = at + 16; bytes[i] !== 13; i++) if (bytes[i] !== 32) value = value * 10 + bytes[i]! - 48;
    return value;
  }
  return 0;
}

/** Frames: u32 length, u32 stream, payload. A length of 0 closes the stream. */
class FrameCutter {
  #pending: Buffer | null = null;
  readonly #frame: (stream: number, payload: Buffer) => void;
  constructor(frame: (stream: number, payload: Buffer) => void) {
    this.#frame = frame;
  }
  feed(bytes: Buffer): void {
    const all = this.#pending === null ? bytes : Buffer.concat([this.#pending, bytes]);
    this.#pending = null;
    let at = 0;
    while (all.length - at >= 8) {
      const stop = at + 8 + all.readUInt32BE(at);
      if (stop > all.length) break;
      this.#frame(all.readUInt32BE(at + 4), all.subarray(at + 8, stop));
      at = stop;
    }
    if (at < all.length) this.#pending = at === 0 ? all : all.subarray(at);
  }
}

function frame(stream: number, payload: Uint8Array): Uint8Array {
  const out = Buffer.allocUnsafe(8 + payload.length);
  out.writeUInt32BE(payload.length, 0);
  out.writeUInt32BE(stream, 4);
  out.set(payload, 8);
  return out;
}

const pem = (name: string): Buffer => readFileSync(join(folder, name));
const identity = (leaf: string) => ({
  key: pem(`${leaf}.key`),
  cert: pem(`${leaf}.pem`),
  ca: [pem("root.pem")],
  ALPNProtocols: [MESH_ALPN],
  minVersion: "TLSv1.3" as const,
});

/** An application's connection at the client's side. */
interface Local extends Written {
  begin(data: (bytes: Buffer) => void, close: () => void): void;
}

function listenByNet(accept: (local: Local) => void): void {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => undefined);
    accept(
      Object.assign(socket, {
        begin: (data: (bytes: Buffer) => void, close: () => void) =>
          void socket.on("data", data).on("close", close),
      }),
    );
  });
  server.listen(here, ready);
}

async function listenByEpoll(accept: (local: Local) => void): Promise<void> {
  const { EpollLoop } = await import("../choices/epoll-loop.ts");
  const loop = new EpollLoop();
  loop.listen(here.port, (conn) => {
    const local = {
      destroyed: false,
      write: (bytes: Uint8Array) => conn.write(bytes, bytes.length),
      begin: (data: (bytes: Buffer) => void, close: () => void) => {
        conn.received = (bytes, length) => {
          // The cutter keeps what is incomplete, and the loop reads into the same bytes again.
          if (length > 0) return data(Buffer.from(bytes.subarray(0, length)));
          local.destroyed = true;
          close();
        };
      },
    };
    accept(local);
  });
  loop.runInside();
  ready();
}

function runClient(listen: (accept: (local: Local) => void) => void | Promise<void>): void {
  const locals = new Map<number, Writer>();
  let nextStream = 1;
  const tls = connectTls({ ...there, servername: SERVER_NAME, ...identity("client") });
  tls.setNoDelay(true);
  const out = new Writer(tls);
  const cutter = new FrameCutter((stream, payload) => locals.get(stream)?.write(payload));
  tls.on("data", (bytes: Buffer) => cutter.feed(bytes));
  tls.on("close", () => process.exit(1));
  tls.on("error", (error) => console.error(error.message));
  const accept = (local: Local): void => {
    const stream = nextStream++;
    locals.set(stream, new Writer(local));
    const messages = new MessageCutter((message) => out.write(frame(stream, message)));
    local.begin(
      (bytes) => messages.feed(bytes),
      () => {
        locals.delete(stream);
        out.write(frame(stream, new Uint8Array(0)));
      },
    );
  };
  tls.once("secureConnect", () => void listen(accept));
}

function runServer(): void {
  const server = createTlsServer({ ...identity("server"), requestCert: true, rejectUnauthorized: true });
  server.on("secureConnection", (tls) => {
    tls.setNoDelay(true);
    const out = new Writer(tls);
    const apps = new Map<number, { socket: Socket; writer: Writer }>();
    const open = (stream: number): { socket: Socket; writer: Writer } => {
      const socket = connect({ ...there, noDelay: true });
      const messages = new MessageCutter((message) => out.write(frame(stream, message)));
      socket.on("data", (bytes: Buffer) => messages.feed(bytes));
      socket.on("error", () => undefined);
      const app = { socket, writer: new Writer(socket) };
      apps.set(stream, app);
      return app;
    };
    const cutter = new FrameCutter((stream, payload) => {
      if (payload.length > 0) (apps.get(stream) ?? open(stream)).writer.write(payload);
      else {
        apps.get(stream)?.socket.end();
        apps.delete(stream);
      }
    });
    tls.on("data", (bytes: Buffer) => cutter.feed(bytes));
    tls.on("error", () => undefined);
    tls.on("close", () => {
      for (const app of apps.values()) app.socket.destroy();
    });
  });
  server.listen(here, ready);
}

function runHop(): void {
  const server = createServer({ noDelay: true }, (socket) => {
    const app = connect({ ...there, noDelay: true });
    const requests = new MessageCutter((message) => app.write(message));
    const responses = new MessageCutter((message) => socket.write(message));
    socket.on("data", (bytes: Buffer) => requests.feed(bytes));
    app.on("data", (bytes: Buffer) => responses.feed(bytes));
    socket.on("error", () => undefined);
    app.on("error", () => undefined);
    socket.on("close", () => app.destroy());
    app.on("close", () => socket.destroy());
  });
  server.listen(here, ready);
}

function ready(): void {
  process.stdout.write("ready\n");
}

const roles: Record<string, () => void> = {
  client: () => runClient(listenByNet),
  "client-epoll": () => runClient(listenByEpoll),
  server: runServer,
  hop: runHop,
};
if (role === "idle") {
  createServer().listen(here, ready);
} else roles[role]?.();
