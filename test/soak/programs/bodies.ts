/** Bodies that a fast writer sends to a slow reader, in both directions, over HTTP/1 and HTTP/2. */
import http from "node:http";
import http2 from "node:http2";
import type { Readable, Writable } from "node:stream";
import { readSlowly, writeEagerly } from "./pace.ts";

/** `POST /` is read slowly; `GET /BYTES` is answered with so many. The pace is the header `x-pace`, in bytes per second. */
function answer(method: string, path: string, pace: number, body: Readable, reply: Writable): void {
  if (method === "GET") {
    writeEagerly(reply, Number(path.slice(1)));
    return;
  }
  readSlowly(body, pace).then(
    (bytes) => reply.end(String(bytes)),
    () => reply.destroy(),
  );
}

export function serve(http1Port: number, http2Port: number): Promise<void> {
  const server1 = http.createServer({ requestTimeout: 0 }, (request, response) =>
    answer(request.method ?? "", request.url ?? "", Number(request.headers["x-pace"]), request, response),
  );
  const server2 = http2.createServer();
  server2.on("stream", (stream: http2.ServerHttp2Stream, headers) => {
    stream.on("error", () => undefined);
    stream.respond({ ":status": 200 });
    answer(headers[":method"] ?? "", headers[":path"] ?? "", Number(headers["x-pace"]), stream, stream);
  });
  return new Promise((resolve) => {
    server1.listen(http1Port, "0.0.0.0", () => server2.listen(http2Port, "0.0.0.0", resolve));
  });
}

/** One body to the server; how much of it arrived there. */
export function upload1(host: string, port: number, bytes: number, pace: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = { "content-length": bytes, "x-pace": pace };
    const request = http.request(
      { host, port, method: "POST", path: "/", headers, agent: false },
      (response) => {
        text(response).then((said) => resolve(Number(said)), reject);
      },
    );
    request.on("error", reject);
    writeEagerly(request, bytes);
  });
}

/** One body from the server; how much of it arrived here. */
export function download1(host: string, port: number, bytes: number, pace: number): Promise<number> {
  return new Promise((resolve, reject) => {
    http
      .get({ host, port, path: `/${bytes}`, agent: false }, (response) => {
        readSlowly(response, pace).then(resolve, reject);
      })
      .on("error", reject);
  });
}

export async function upload2(host: string, port: number, bytes: number, pace: number): Promise<number> {
  const session = http2.connect(`http://${host}:${port}`);
  const stream = session.request({ ":method": "POST", ":path": "/", "x-pace": String(pace) });
  writeEagerly(stream, bytes);
  const said = Number(await text(stream));
  session.close();
  return said;
}

export async function download2(host: string, port: number, bytes: number, pace: number): Promise<number> {
  const session = http2.connect(`http://${host}:${port}`);
  const taken = await readSlowly(session.request({ ":path": `/${bytes}` }), pace);
  session.close();
  return taken;
}

async function text(stream: Readable): Promise<string> {
  let all = "";
  for await (const chunk of stream) all += String(chunk);
  return all;
}
