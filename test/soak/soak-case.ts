import type { Mesh, Pod } from "../e2e/sidecar/rig/mesh.ts";

/** Two meshed pods whose sidecars are measured, and one outside of the mesh. */
export interface Stage {
  readonly mesh: Mesh;
  readonly client: Pod;
  readonly server: Pod;
  readonly stranger: Pod;
  /** How long the measured part should go on. */
  readonly seconds: number;
  /** Waits until what is garbage has been given back, and notes what is still held: the case is judged by that. Not part of `seconds`. */
  rest(): Promise<void>;
}

/** One way in which memory could grow. Runs between sidecars of its own that nothing else has used. */
export interface SoakCase {
  readonly name: string;
  readonly what: string;
  /** Of the measured part, unless the command says otherwise. */
  readonly seconds: number;
  /** Not measured: servers, connections that stay. */
  prepare?(stage: Stage): Promise<void>;
  /** Measured, from its begin to its end. Says in a few words what was done; throws when that was not what the case is about. */
  run(stage: Stage): Promise<string>;
  /** Not measured: throws when what should still be there is not. */
  prove?(stage: Stage): Promise<void>;
  /** How many connections stand idle while `run` goes on: their cost is told. */
  readonly idleConnections?: number;
}

/** Address of the one virtual host of all cases; each takes ports of its own. */
export const VIRTUAL_IP = "10.214.0.7";

/** Tells the control plane that `VIRTUAL_IP:port` is the same port of the server. */
export async function offer(
  stage: Stage,
  ports: Readonly<Record<number, "detect" | "opaque">>,
): Promise<void> {
  const { mesh, server } = stage;
  const services = { ...mesh.table.services };
  const endpoints = { ...mesh.table.endpoints };
  const policies = { ...mesh.table.ports };
  for (const [port, protocol] of Object.entries(ports)) {
    services[`${VIRTUAL_IP}:${port}`] = { protocol, path: `soak:${port}` };
    endpoints[`soak:${port}`] = [server.endpoint(Number(port), protocol === "opaque" ? "opaque" : "http2")];
    policies[port] = { protocol, allow: "any" };
  }
  await mesh.set({ services, endpoints, ports: policies });
}

/** Calls an exported function of a file of `programs/` in a process of the pod; the process and its modules stay. */
export function call<R>(pod: Pod, program: string, name: string, ...args: unknown[]): Promise<R> {
  return pod.run(
    async ({ load }, file: string, exported: string, given: unknown[]) => {
      const program_ = (await load(file)) as Record<string, (...all: unknown[]) => unknown>;
      return (await program_[exported]?.(...given)) as R;
    },
    new URL(`programs/${program}`, import.meta.url).href,
    name,
    args,
  );
}
