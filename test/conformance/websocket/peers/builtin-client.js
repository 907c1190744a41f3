// Node's own WebSocket (undici) as a client. It cannot ping, fragment or break off, so those cases are left out, and so
// are the hundred megabytes.
//
//     builtin-client.js HOST PORT
import { runCases } from "./cases.js";

const [host, port] = process.argv.slice(2);

async function open(path, { protocols = [] } = {}) {
  const socket = new WebSocket(`ws://${host}:${port}${path}`, protocols);
  socket.binaryType = "arraybuffer";
  const peer = new Peer(socket);
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve, { once: true });
    socket.addEventListener("error", () => reject(new Error("no connection")), { once: true });
  });
  return peer;
}

class Peer {
  constructor(socket) {
    this.socket = socket;
    this.messages = [];
    this.wake = () => undefined;
    socket.addEventListener("message", ({ data }) => {
      this.messages.push(typeof data === "string" ? data : Buffer.from(data));
      this.wake();
    });
    this.closed = new Promise((resolve) => {
      socket.addEventListener("close", ({ code, reason }) => resolve(`${code} ${reason}`), { once: true });
    });
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
}

await runCases(open, { isOverHttp2: false, isShort: true });
