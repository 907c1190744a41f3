/** Sidecars by themselves, for what is measured without a pair: many on one machine, and one in a mesh of some size. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROXY_CORE } from "../lib/load.ts";
import type { ReadySidecar, SidecarKind } from "../lib/crowd.ts";
import { HTTP_PORT, type KnowingKind, type MeshKnown } from "../lib/mesh-size.ts";
import { serviceAddress, type Namespaces } from "../lib/namespaces.ts";
import { makeCertificates } from "../runtime/certs.ts";
import type { MeshSize, WorldSettings } from "../world/control.ts";
import { startControl, type BootOptions, type Side } from "./controlled.ts";
import { clientConfig, ENVOY_FLAGS, ENVOY_PORT, serverConfig } from "./envoy.ts";
import { startLinkerd2Sidecar } from "./linkerd2-proxy.ts";
import { sidecarProgram, startSidecar } from "./pillion.ts";
import { end, readyByPort } from "./subject.ts";

export type Kind = SidecarKind & { readonly inMesh: KnowingKind };

interface Starter {
  readonly form: MeshSize["form"];
  readonly start: (
    world: Namespaces,
    side: Side,
    settings: WorldSettings,
    where: BootOptions & { readonly folder: string; readonly number: number },
  ) => Promise<ReadySidecar>;
}

export function pillionKind(command: readonly string[]): Kind {
  const programs = new Map<string, string>();
  return controlled("Pillion", {
    form: "dns+spiffe",
    start: (world, side, settings, { folder, ...boot }) => {
      const program = programs.get(folder) ?? sidecarProgram(folder, false);
      programs.set(folder, program);
      return startSidecar(world, side, settings, { ...boot, command, program });
    },
  });
}

export function linkerd2ProxyKind(binary: string): Kind {
  return controlled("linkerd2-proxy", {
    form: "dns",
    start: (world, side, settings, { folder, number, ...boot }) =>
      startLinkerd2Sidecar(world, side, settings, {
        ...boot,
        binary,
        folder: join(folder, `${side}-${number}`),
      }),
  });
}

function controlled(name: string, { form, start }: Starter): Kind {
  return {
    name,
    prepare: async (world, folder, count) => {
      const control = await startControl(world, folder, "client", { form, sidecars: count });
      return {
        start: (ports, number) => start(world, "client", control.settings, { folder, number, ports }),
        stop: () => end(control.child),
      };
    },
    inMesh: {
      name,
      prepare: async (world, folder) => {
        const serverControl = await startControl(world, folder, "server", { form });
        // The server answers at the addresses of all endpoints.
        const where = { folder, number: 0, takesAnyAddress: true };
        const server = await start(world, "server", serverControl.settings, where);
        let started = 0;
        return {
          mesh: async ({ services, endpoints, routes }, repeats) => {
            const size = { form, services, endpoints, routes, sidecars: repeats };
            const control = await startControl(world, folder, "client", size);
            return {
              start: async () =>
                (await start(world, "client", control.settings, { folder, number: started++ })).child,
              target: (number) => ({
                host: serviceAddress(number),
                port: HTTP_PORT,
                path: routes === 0 ? "/" : `/route-${number}/`,
              }),
              stop: () => end(control.child),
            };
          },
          stop: async () => {
            await end(server.child);
            await end(serverControl.child);
          },
        };
      },
    },
  };
}

/** Envoys have what they know in their configuration, so all of a mesh; a Service is a cluster, found by a path's prefix. */
export function envoyKind(binary: string): Kind {
  const name = "Envoy";
  const launch = async (
    world: Namespaces,
    folder: string,
    options: { readonly firstPort?: number; readonly known?: MeshKnown },
  ): Promise<ReadySidecar> => {
    const port = options.firstPort ?? ENVOY_PORT;
    const file = join(folder, `client-${port}.json`);
    writeFileSync(file, clientConfig(folder, options));
    const child = world.start("client", [binary, "-c", file, ...ENVOY_FLAGS], { core: PROXY_CORE });
    return { child, readyMs: await readyByPort(world, "client", port) };
  };
  return {
    name,
    prepare: (world, folder) => {
      makeCertificates(folder);
      return Promise.resolve({
        start: ({ inbound }) => launch(world, folder, { firstPort: inbound }),
        stop: () => Promise.resolve(),
      });
    },
    inMesh: {
      name,
      prepare: async (world, folder) => {
        makeCertificates(folder);
        const file = join(folder, "server.json");
        writeFileSync(file, serverConfig(folder));
        const server = world.start("server", [binary, "-c", file, ...ENVOY_FLAGS], { core: PROXY_CORE });
        return {
          mesh: (known) =>
            Promise.resolve({
              start: async () => (await launch(world, folder, { known })).child,
              target: (number: number) => ({
                host: "127.0.0.1",
                port: ENVOY_PORT,
                path: known.routes === 0 ? `/service-${number}/` : `/route-${number}/`,
              }),
              stop: () => Promise.resolve(),
            }),
          stop: () => end(server),
        };
      },
    },
  };
}
