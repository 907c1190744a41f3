import { join } from "node:path";
import { PROXY_CORE } from "../lib/load.ts";
import { PORTS, SERVER } from "../lib/namespaces.ts";
import { makeCertificates } from "../runtime/certs.ts";
import { end, readyByOutput, type StartSubject } from "./subject.ts";

/** The featureless pair of `runtime/pair.ts`: the floor that the sidecar pair is compared with. */
export const startPrototype: StartSubject = async ({ world, folder }) => {
  const certificates = join(folder, "prototype");
  makeCertificates(certificates);
  const program = [process.execPath, join(import.meta.dirname, "../runtime/pair.ts")];
  const mesh = `${SERVER}:8443`;
  const server = world.start(
    "server",
    [...program, "server", certificates, mesh, `${SERVER}:${PORTS.http1.bare}`],
    { core: PROXY_CORE },
  );
  const serverReadyMs = await readyByOutput(server, "the prototype's server side");
  const client = world.start("client", [...program, "client", certificates, "9003", mesh], {
    core: PROXY_CORE,
  });
  const clientReadyMs = await readyByOutput(client, "the prototype's client side");
  return {
    name: "prototype pair, mTLS",
    world,
    places: { http1: "127.0.0.1:9003" },
    processes: [
      { role: "client", pid: client.pid ?? 0, readyMs: clientReadyMs },
      { role: "server", pid: server.pid ?? 0, readyMs: serverReadyMs },
    ],
    stop: async () => {
      await end(client);
      await end(server);
    },
  };
};
