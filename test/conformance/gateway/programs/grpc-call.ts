import { join } from "node:path";
import { credentials, loadPackageDefinition, Metadata } from "@grpc/grpc-js";
import type { Client, ServiceClientConstructor, ServiceError } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { Ask, Heard } from "../client.ts";
import { failed, hostAndPort, parsed } from "./answer.ts";

const definition = loadPackageDefinition(loadSync(join(import.meta.dirname, "echo.proto")));
const { Echo } = definition["gateway"] as unknown as { Echo: ServiceClientConstructor };

/** Calls the echo's method that is called as the path is. */
export async function call({ to, path = "Echo", headers = {} }: Ask, timeoutMs: number): Promise<Heard> {
  const [host, port] = hostAndPort(to, 7070);
  const client: Client = new Echo(`${host}:${port}`, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return await new Promise((resolve) => {
    const done = (error: ServiceError | null, reply?: { json: string }): void => {
      client.close();
      if (error === null) {
        resolve({ status: 200, headers: {}, seen: parsed(reply!.json), body: reply!.json, error: "" });
      } else resolve({ ...failed(error.message), status: 1000 + error.code });
    };
    const methods = client as unknown as Record<string, (...args: unknown[]) => void>;
    methods[path]!({}, metadata, { deadline: Date.now() + timeoutMs }, done);
  });
}
