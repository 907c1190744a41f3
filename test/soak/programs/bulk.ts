/** Opaque connections that carry many bytes in both directions at once, at both ends to readers slower than their writers. */
import net from "node:net";
import { readSlowly, writeEagerly } from "./pace.ts";

/** Sends so many bytes on each connection while it reads what comes, slowly, and then ends. */
export function serve(port: number, bytes: number, pace: number): Promise<void> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    readSlowly(socket, pace).catch(() => undefined);
    writeEagerly(socket, bytes);
  });
  return new Promise((resolve) => server.listen(port, "0.0.0.0", resolve));
}

/** Bytes that came, on so many connections at once. */
export async function exchange(
  host: string,
  port: number,
  connections: number,
  bytes: number,
  pace: number,
): Promise<number> {
  const taken = await Promise.all(
    Array.from({ length: connections }, () => {
      const socket = net.connect({ host, port, allowHalfOpen: true });
      writeEagerly(socket, bytes);
      return readSlowly(socket, pace);
    }),
  );
  return taken.reduce((sum, one) => sum + one, 0);
}
