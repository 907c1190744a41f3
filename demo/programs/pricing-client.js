import { join } from "node:path";
import { credentials, loadPackageDefinition, Metadata } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const DEADLINE_MS = 30_000;

/** A client of the pricing service at `host:port`: `quote(lines, id)` gives `{ totalCents, currency, note }`. */
export function pricingClient(address) {
  const { shop } = loadPackageDefinition(
    loadSync(join(import.meta.dirname, "pricing.proto"), { defaults: true, longs: Number }),
  );
  // No retries of its own: what fails must be seen.
  const client = new shop.v1.Pricing(address, credentials.createInsecure(), { "grpc.enable_retries": 0 });
  return {
    quote(lines, id) {
      const metadata = new Metadata();
      metadata.set("x-request-id", id);
      return new Promise((resolve, reject) => {
        client.quote({ lines }, metadata, { deadline: Date.now() + DEADLINE_MS }, (error, reply) =>
          error ? reject(error) : resolve(reply),
        );
      });
    },
    close: () => client.close(),
  };
}
