/** What a cart costs: a gRPC service in plain HTTP/2, with gRPC's own health check beside it. */
import { hostname } from "node:os";
import { join } from "node:path";
import { loadPackageDefinition, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { CANARIES } from "./canaries.js";
import { log, onTermination } from "./http-service.js";

const port = Number(process.env.PORT ?? 50051);
const currency = process.env.CURRENCY ?? "EUR";
const protos = ["pricing.proto", "health.proto"].map((file) => join(import.meta.dirname, file));
const { shop, grpc } = loadPackageDefinition(loadSync(protos, { defaults: true, longs: Number }));
let isEnding = false;

const server = new Server();
server.addService(shop.v1.Pricing.service, {
  quote(request, callback) {
    const startedMs = performance.now();
    const id = String(request.metadata.get("x-request-id")[0] ?? "none");
    const total = request.request.lines.reduce((sum, line) => sum + line.cents * line.count, 0);
    const isValid = Number.isSafeInteger(total) && total < 2 ** 32;
    if (isValid) callback(null, { totalCents: total, currency, note: CANARIES.grpc });
    else callback({ code: status.INVALID_ARGUMENT, details: "total out of range" });
    const ms = Number((performance.now() - startedMs).toFixed(1));
    const code = isValid ? status.OK : status.INVALID_ARGUMENT;
    log({
      log: "access",
      service: "pricing",
      pod: hostname(),
      id,
      method: "POST",
      path: request.getPath(),
      status: code,
      ms,
      calls: {},
    });
  },
});
server.addService(grpc.health.v1.Health.service, {
  check: (request, callback) => callback(null, { status: isEnding ? "NOT_SERVING" : "SERVING" }),
});

server.bindAsync(`0.0.0.0:${port}`, ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
  log({ log: "listening", service: "pricing", pod: hostname(), port });
});

// GOAWAY, then the end of every call under way.
onTermination(() => {
  isEnding = true;
  return new Promise((resolve, reject) => server.tryShutdown((error) => (error ? reject(error) : resolve())));
});
