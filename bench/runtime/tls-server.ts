/**
 * The server half of `tls-semantics.ts`, started once under each candidate runtime: accepts a TCP connection, peeks the
 * ClientHello, puts it back and hands the socket to a `tls.Server`, as the sidecar's inbound listener does. Prints one
 * JSON line per event. Usage: tls-server.ts CERTIFICATES-FOLDER
 */
import { readFileSync } from "node:fs";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import { MESH_ALPN, SERVER_NAME } from "./certs.ts";
import { getsockoptInt } from "./getsockopt.ts";

const folder = process.argv[2] ?? ".";
const read = (name: string): Buffer => readFileSync(join(folder, name));
const say = (event: string, fields: object = {}): void => {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
};

const secure = (leaf: string) => ({
  key: read(`${leaf}.key`),
  cert: read(`${leaf}.pem`),
  ca: [read("root.pem")],
});
const tlsServer = createTlsServer({
  ...secure("server"),
  requestCert: true,
  rejectUnauthorized: true,
  minVersion: "TLSv1.3",
  ecdhCurve: "X25519MLKEM768:X25519",
  ALPNProtocols: [MESH_ALPN],
  allowHalfOpen: true,
  SNICallback: (name, done) => {
    if (name === SERVER_NAME) done(null, undefined);
    else done(new Error(`unknown server name ${name}`));
  },
});

/** TCP sockets by the client's port: what has to be reset is the socket below TLS. */
const accepted = new Map<number, Socket>();

function tryReset(socket: TLSSocket): void {
  try {
    socket.resetAndDestroy();
  } catch (error) {
    say("threw", { code: (error as NodeJS.ErrnoException).code });
    socket.destroy();
  }
}

/** Why a handshaken connection is refused, or null. The sidecar's gate in small. */
function refusal(socket: TLSSocket): string | null {
  if (socket.isSessionReused()) return "resumed";
  if (!socket.authorized) return "not authorized";
  if (socket.alpnProtocol !== MESH_ALPN) return "no alpn";
  if ((socket as { servername?: string | false }).servername !== SERVER_NAME) return "server name";
  return null;
}

tlsServer.on("secureConnection", (socket) => {
  const reason = refusal(socket);
  const { authorized, alpnProtocol } = socket;
  const peer = socket.getPeerCertificate();
  say("secure", {
    reason,
    authorized,
    alpn: alpnProtocol,
    resumed: socket.isSessionReused(),
    san: peer.subjectaltname ?? null,
  });
  socket.on("error", (error: NodeJS.ErrnoException) => say("error", { code: error.code ?? error.message }));
  socket.on("close", (hadError) => say("close", { hadError }));
  if (reason !== null) {
    socket.destroy();
    return;
  }
  socket.on("end", () => {
    say("end");
    if (half) socket.write("after your end", () => socket.end());
    else socket.end();
  });
  let half = false;
  socket.on("data", (bytes: Buffer) => {
    const text = bytes.toString("latin1").trim();
    say("data", { text });
    if (text === "half") half = true;
    else if (text === "end first") socket.end("bye");
    else if (text === "reset") accepted.get(socket.remotePort ?? 0)?.resetAndDestroy();
    else if (text === "reset above") tryReset(socket);
    else socket.write(`echo ${text}\n`);
  });
});
tlsServer.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
  // A refused certificate arrives here as ECONNRESET; only the socket still knows why.
  const { authorizationError } = socket as { authorizationError?: unknown };
  say("refused", { code: authorizationError ?? error.code ?? error.message });
});

const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;
const SO_PROTOCOL = 38;
function describeFd(socket: Socket): object {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd ?? -1;
  if (fd < 0) return { fd };
  return {
    fd,
    protocol: getsockoptInt(fd, SOL_SOCKET, SO_PROTOCOL),
    listening: getsockoptInt(fd, SOL_SOCKET, SO_ACCEPTCONN),
  };
}

const front = createServer({ allowHalfOpen: true }, (socket) => {
  say("accepted", describeFd(socket));
  accepted.set(socket.remotePort ?? 0, socket);
  socket.on("error", (error: NodeJS.ErrnoException) =>
    say("raw error", { code: error.code ?? error.message }),
  );
  socket.once("data", (bytes: Buffer) => {
    socket.pause();
    say("peeked", { first: bytes[0] });
    if (bytes[0] !== 22) {
      plain(socket, bytes);
      return;
    }
    socket.unshift(bytes);
    tlsServer.emit("connection", socket);
  });
});

/** Half-close and reset without TLS. */
function plain(socket: Socket, bytes: Buffer): void {
  const text = bytes.toString("latin1");
  if (text === "reset") {
    socket.resetAndDestroy();
    return;
  }
  socket.on("end", () => {
    say("plain end");
    socket.end("after your end");
  });
  socket.resume();
}

process.on("SIGUSR2", () => {
  tlsServer.setSecureContext(secure("server2"));
  say("rotated");
});
process.stdin.on("end", () => process.exit(0)).resume();
front.listen(0, "127.0.0.1", () => say("listening", { port: (front.address() as AddressInfo).port }));
