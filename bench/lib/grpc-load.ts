/** Messages of gRPC streams, there and back again, for a process of its own (`bench/load.ts grpc …`). */
import { connect } from "node:http2";
import { Histogram } from "#/base/histogram.ts";

export interface GrpcLoadSettings {
  url: string;
  /** Streams at once, all on one connection. */
  streams: number;
  seconds: number;
  messageBytes: number;
}

export interface GrpcLoadResult {
  /** Messages that came back. */
  done: number;
  failed: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
}

export async function grpcLoad(settings: GrpcLoadSettings): Promise<GrpcLoadResult> {
  const latency = new Histogram();
  const untilMs = performance.now() + settings.seconds * 1000;
  const message = Buffer.alloc(5 + settings.messageBytes, "m");
  message.writeUInt8(0, 0);
  message.writeUInt32BE(settings.messageBytes, 1);
  const session = connect(settings.url);
  let done = 0;
  let failed = 0;
  const stream = (): Promise<void> =>
    new Promise((resolve) => {
      const call = session.request({
        ":method": "POST",
        ":path": "/bench.Echo/Stream",
        "content-type": "application/grpc",
        te: "trailers",
      });
      let missing = message.length;
      let sentMs = performance.now();
      let status = "";
      call.write(message);
      call.on("data", (bytes: Buffer) => {
        missing -= bytes.length;
        if (missing > 0) return;
        const nowMs = performance.now();
        latency.record((nowMs - sentMs) * 1000);
        done++;
        if (nowMs >= untilMs) {
          call.end();
          return;
        }
        missing = message.length;
        sentMs = nowMs;
        call.write(message);
      });
      call.on("trailers", (fields) => (status = String(fields["grpc-status"])));
      call.on("error", () => undefined); // told by the status that is missing
      call.on("close", () => {
        if (status !== "0") failed++;
        resolve();
      });
    });
  await Promise.all(Array.from({ length: settings.streams }, stream));
  session.close();
  return {
    done,
    failed,
    p50Us: latency.quantileUs(0.5),
    p99Us: latency.quantileUs(0.99),
    p999Us: latency.quantileUs(0.999),
  };
}
