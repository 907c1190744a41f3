/**
 * The application behind opaque connections. The first line that a client sends says what it wants:
 *
 *   echo            everything comes back
 *   send BYTES      so many bytes come, then the end
 *   take            bytes are read to the client's end, then their count is sent back
 *
 *   tcp.ts PORT
 */
import { createServer, type Socket } from "node:net";

const CHUNK = Buffer.alloc(256 * 1024, "x");

const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  let line = "";
  socket.on("error", () => socket.destroy());
  const onData = (bytes: Buffer): void => {
    line += bytes.toString("latin1");
    const end = line.indexOf("\n");
    if (end < 0) return;
    socket.off("data", onData);
    serve(socket, line.slice(0, end), Buffer.from(line.slice(end + 1), "latin1"));
  };
  socket.on("data", onData);
});
server.listen(Number(process.argv[2]), () => process.stdout.write("ready\n"));

function serve(socket: Socket, line: string, rest: Buffer): void {
  const [what, count] = line.split(" ");
  if (what === "echo") {
    if (rest.length > 0) socket.write(rest);
    socket.pipe(socket);
  } else if (what === "send") send(socket, Number(count));
  else take(socket, rest.length);
}

function send(socket: Socket, leftBytes: number): void {
  while (leftBytes > 0) {
    const bytes = Math.min(leftBytes, CHUNK.length);
    leftBytes -= bytes;
    if (!socket.write(CHUNK.subarray(0, bytes))) {
      socket.once("drain", () => send(socket, leftBytes));
      return;
    }
  }
  socket.end();
}

function take(socket: Socket, takenBytes: number): void {
  socket.on("data", (bytes) => (takenBytes += bytes.length));
  socket.once("end", () => socket.end(String(takenBytes)));
}
