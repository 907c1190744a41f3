/** Many streams of one HTTP/2 connection that are all busy in both directions. */
import http2 from "node:http2";

export function serve(port: number): Promise<void> {
  const server = http2.createServer();
  server.on("stream", (stream: http2.ServerHttp2Stream) => {
    stream.on("error", () => undefined);
    stream.respond({ ":status": 200 });
    stream.pipe(stream);
  });
  return new Promise((resolve) => server.listen(port, "0.0.0.0", resolve));
}

/** Every stream says so much and is echoed, again when the echo is back and a moment has passed. */
const MESSAGE = Buffer.alloc(1024, "m");
const PAUSE_MS = 400;

/** Returns how many messages came back on how many streams that all lasted to the end. */
export async function talk(
  host: string,
  port: number,
  count: number,
  seconds: number,
): Promise<{ messages: number; streams: number }> {
  const session = http2.connect(`http://${host}:${port}`);
  const endAtMs = performance.now() + seconds * 1000;
  let messages = 0;
  let streams = 0;
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      const stream = session.request({ ":method": "POST", ":path": "/" });
      let echoedBytes = 0;
      stream.on("data", (bytes: Buffer) => {
        echoedBytes += bytes.length;
        if (echoedBytes < MESSAGE.length) return;
        echoedBytes -= MESSAGE.length;
        messages++;
        if (performance.now() < endAtMs) setTimeout(() => stream.write(MESSAGE), PAUSE_MS);
        else stream.end();
      });
      stream.on("end", () => streams++);
      stream.on("error", () => undefined);
      stream.on("close", resolve);
      stream.write(MESSAGE);
    });
  await Promise.all(Array.from({ length: count }, one));
  session.close();
  return { messages, streams };
}
