/** Servers that are asked by good and bad clients, one that is bad itself, and a good client. */
import http from "node:http";
import http2 from "node:http2";
import net from "node:net";

const BIG = Buffer.alloc(300_000, "big ");

export async function serve(http1Port: number, http2Port: number, hostilePort: number): Promise<void> {
  const server1 = http.createServer((request, response) => {
    const answer = (): void => void response.end(request.url === "/big" ? BIG : "ok");
    request.on("error", () => undefined);
    request.resume();
    if (request.method === "POST") request.on("end", answer);
    else answer();
  });
  const server2 = http2.createServer();
  server2.on("stream", (stream: http2.ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    stream.resume();
    stream.respond({ ":status": 200 });
    stream.end("ok");
  });
  server2.on("sessionError", () => undefined);
  await new Promise<void>((resolve) => server1.listen(http1Port, "0.0.0.0", resolve));
  await new Promise<void>((resolve) => server2.listen(http2Port, "0.0.0.0", resolve));
  let turn = 0;
  const hostile = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => ANSWERS[turn++ % ANSWERS.length]?.(socket));
  });
  await new Promise<void>((resolve) => hostile.listen(hostilePort, "0.0.0.0", resolve));
}

/** What a server can do wrong, one after the other. */
const ANSWERS: readonly ((socket: net.Socket) => void)[] = [
  (socket) => socket.destroy(),
  (socket) => socket.resetAndDestroy(),
  (socket) => void socket.write("HTTP/1.1 200 OK\r\n"),
  (socket) => void socket.end("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
  (socket) => void socket.end(`HTTP/1.1 200 OK\r\n${"X-Header: value\r\n".repeat(20_000)}\r\n`),
  (socket) => void socket.end("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
  (socket) => void socket.end("HTTP/1.1 100 Continue\r\n\r\n".repeat(5000)),
  (socket) => void socket.end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
  (socket) => void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n${"x".repeat(1_000_000)}`),
  (socket) => void socket.end("SSH-2.0-unexpected\r\n"),
];

/** Asks the hostile server again and again, and gives up after a moment; how often. */
export async function askHostile(host: string, port: number, seconds: number): Promise<number> {
  const endAtMs = performance.now() + seconds * 1000;
  let asked = 0;
  const loop = async (): Promise<void> => {
    while (performance.now() < endAtMs) {
      await ask(host, port, 500);
      asked++;
    }
  };
  await Promise.all(Array.from({ length: 4 }, loop));
  return asked;
}

/** Asks a good server twenty times a second; how many were answered, and how many not. */
export async function askGood(
  host: string,
  port: number,
  seconds: number,
): Promise<{ answered: number; failed: number }> {
  const endAtMs = performance.now() + seconds * 1000;
  const counts = { answered: 0, failed: 0 };
  while (performance.now() < endAtMs) {
    if (await ask(host, port, 10_000)) counts.answered++;
    else counts.failed++;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return counts;
}

function ask(host: string, port: number, withinMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.get({ host, port, path: "/", agent: false, timeout: withinMs }, (response) => {
      response.on("error", () => resolve(false));
      response.on("end", () => resolve(response.statusCode === 200));
      response.resume();
    });
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(false));
    request.on("close", () => resolve(false));
    setTimeout(() => request.destroy(), withinMs).unref();
  });
}
