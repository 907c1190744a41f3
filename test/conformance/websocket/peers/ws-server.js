// An echo server of the library `ws`, over HTTP/1.1, or over HTTP/2 (RFC 8441) on streams of Node's own. A text that begins
// with ! is a command: it does or says what the command's name says.
//
//     ws-server.js PORT http1|http2
import { createServer } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import { WebSocket, WebSocketServer } from "ws";

const [port, version] = process.argv.slice(2);
/** By path: how the connection ended. */
const ends = new Map();

function serve(socket, path) {
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? "" : data.toString();
    if (!text.startsWith("!")) {
      socket.send(data, { binary: isBinary });
      return;
    }
    const [verb, first = "", second = ""] = text.slice(1).split(" ");
    if (verb === "close") socket.close(Number(first), second);
    else if (verb === "terminate") socket.terminate();
    else if (verb === "end-of") socket.send(ends.get(first) ?? "");
    else if (verb === "extensions") socket.send(socket.extensions);
    else if (verb === "ping") {
      socket.once("pong", (payload) => socket.send(`pong ${payload}`));
      socket.ping(first);
    } else if (verb === "fragments") {
      socket.send("one ", { fin: false });
      socket.ping("between");
      socket.send("two ", { fin: false });
      socket.send("three");
    }
  });
  socket.on("error", () => undefined);
  socket.on("close", (code, reason) => ends.set(path, `${code} ${reason}`));
}

const MESSAGE_BYTES_MAX = 128 * 1024 * 1024;
let server;
if (version === "http1") {
  server = createServer();
  const webSockets = new WebSocketServer({
    server,
    maxPayload: MESSAGE_BYTES_MAX,
    perMessageDeflate: true,
    handleProtocols: (offered) => (offered.has("chat.v1") ? "chat.v1" : false),
  });
  webSockets.on("connection", (socket, request) => serve(socket, request.url));
} else {
  server = createHttp2Server({ settings: { enableConnectProtocol: true } });
  server.on("stream", (stream, head) => {
    if (head[":method"] !== "CONNECT" || head[":protocol"] !== "websocket") {
      stream.respond({ ":status": 400 }, { endStream: true });
      return;
    }
    stream.respond({ ":status": 200 });
    const socket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30_000 });
    socket.setSocket(stream, Buffer.alloc(0), {
      allowSynchronousEvents: true,
      maxPayload: MESSAGE_BYTES_MAX,
    });
    serve(socket, head[":path"]);
  });
}
server.listen(Number(port), "0.0.0.0", () => console.log("listening"));
