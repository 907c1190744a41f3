// The library `ws` as a client, over HTTP/1.1, or over HTTP/2 (RFC 8441) on a stream of Node's own.
//
//     ws-client.js HOST PORT whole|short http1|http2
import { connect } from "node:http2";
import { WebSocket } from "ws";
import { runCases } from "./cases.js";

const [host, port, extent, version] = process.argv.slice(2);

async function open(path, { protocols = [], isCompressed = true } = {}) {
  const socket = version === "http1" ? overHttp1(path, protocols, isCompressed) : await overHttp2(path);
  const peer = new Peer(socket);
  if (socket.readyState === WebSocket.CONNECTING)
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  return peer;
}

function overHttp1(path, protocols, perMessageDeflate) {
  return new WebSocket(`ws://${host}:${port}${path}`, protocols, {
    perMessageDeflate,
    maxPayload: 128 * 1024 * 1024,
  });
}

async function overHttp2(path) {
  const session = connect(`http://${host}:${port}`);
  await new Promise((resolve, reject) => session.once("remoteSettings", resolve).once("error", reject));
  const stream = session.request({
    ":method": "CONNECT",
    ":protocol": "websocket",
    ":path": path,
    "sec-websocket-version": "13",
  });
  const [head] = await new Promise((resolve, reject) =>
    stream.once("response", (...all) => resolve(all)).once("error", reject),
  );
  if (head[":status"] !== 200) throw new Error(`answered with ${head[":status"]}`);
  // A socket that was not made from a URL thinks itself a server; a client masks (RFC 6455 §5.1).
  const socket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30_000 });
  socket._isServer = false;
  socket.setSocket(stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 128 * 1024 * 1024 });
  stream.once("close", () => session.close());
  return socket;
}

class Peer {
  constructor(socket) {
    this.socket = socket;
    this.messages = [];
    this.wake = () => undefined;
    socket.on("message", (data, isBinary) => {
      this.messages.push(isBinary ? data : data.toString());
      this.wake();
    });
    this.closed = new Promise((resolve) => {
      socket.once("close", (code, reason) => resolve(`${code} ${reason}`));
    });
    socket.on("error", () => undefined);
  }

  get extensions() {
    return this.socket.extensions;
  }
  get protocol() {
    return this.socket.protocol;
  }
  send(data) {
    this.socket.send(data);
  }
  async next() {
    while (this.messages.length === 0) await new Promise((resolve) => (this.wake = resolve));
    return this.messages.shift();
  }
  close(code, reason) {
    this.socket.close(code, reason);
  }
  terminate() {
    this.socket.terminate();
  }
  sendFragments(parts) {
    for (const [i, part] of parts.entries()) {
      if (i > 0) this.socket.ping("between");
      this.socket.send(part, { fin: i === parts.length - 1 });
    }
  }
  ping(payload) {
    return new Promise((resolve) => {
      this.socket.once("pong", (data) => resolve(data.toString()));
      this.socket.ping(payload);
    });
  }
}

await runCases(open, { isOverHttp2: version === "http2", isShort: extent === "short" });
