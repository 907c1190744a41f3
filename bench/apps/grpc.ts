/**
 * The application behind gRPC calls: every message comes back as it was, and status 0 at the client's end. It parses nothing, so that it
 * costs little beside what is measured.
 *
 *   grpc.ts PORT
 */
import { createServer, type ServerHttp2Stream } from "node:http2";

const server = createServer({ settings: { maxConcurrentStreams: 4096 } });
server.on("stream", (stream: ServerHttp2Stream) => {
  stream.on("error", () => undefined);
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.pipe(stream);
});
server.listen(Number(process.argv[2]), () => process.stdout.write("ready\n"));
