/** Writers that never stop by themselves, and readers that take nothing until they are told to: opaque, HTTP/1 and HTTP/2. */
import http from "node:http";
import http2 from "node:http2";
import net from "node:net";
import type { Readable, Writable } from "node:stream";

const waiting: Readable[] = [];

export async function serve(opaquePort: number, http1Port: number, http2Port: number): Promise<void> {
  const opaque = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    waiting.push(socket);
  });
  const server1 = http.createServer({ requestTimeout: 0 }, (request) => {
    waiting.push(request);
  });
  const server2 = http2.createServer();
  server2.on("stream", (stream: http2.ServerHttp2Stream) => {
    waiting.push(stream);
  });
  await listen(opaque, opaquePort);
  await listen(server1, http1Port);
  await listen(server2, http2Port);
}

function listen(server: net.Server, port: number): Promise<void> {
  return new Promise((resolve) => server.listen(port, "0.0.0.0", resolve));
}

/** Reads everything that waits, to its end; how many bytes each had. */
export function readOn(): Promise<number[]> {
  return Promise.all(
    waiting.splice(0).map(
      (stream) =>
        new Promise<number>((resolve, reject) => {
          let bytes = 0;
          stream.on("data", (chunk: Uint8Array) => (bytes += chunk.length));
          stream.once("end", () => resolve(bytes));
          stream.once("error", reject);
          stream.resume();
        }),
    ),
  );
}

const CHUNK = Buffer.alloc(65_536, "x");
let takenBytes = 0;

/** Begins to write so many bytes on each of three connections. */
export function write(host: string, opaque: number, http1: number, http2Port: number, bytes: number): void {
  const headers = { "content-length": bytes };
  const streams: Writable[] = [
    net.connect({ host, port: opaque }),
    http.request({ host, port: http1, method: "POST", path: "/", headers, agent: false }),
    http2.connect(`http://${host}:${http2Port}`).request({ ":method": "POST", ":path": "/" }),
  ];
  for (const stream of streams) {
    let leftBytes = bytes;
    const next = (error?: Error | null): void => {
      if (error) return;
      if (leftBytes < bytes) takenBytes += CHUNK.length;
      leftBytes -= CHUNK.length;
      if (leftBytes < 0) stream.end();
      else stream.write(CHUNK, next);
    };
    // Once its reader has what it wanted, how a connection ends is nobody's concern.
    stream.on("error", () => undefined);
    next();
  }
}

/** Bytes that were taken from the writers so far, all together. */
export function taken(): number {
  return takenBytes;
}
