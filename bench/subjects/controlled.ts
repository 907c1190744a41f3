/** What sidecars need that ask a control plane: ours, over the bench's mesh; theirs and our own boot by the same environment. */
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { ChildProcess } from "node:child_process";
import { LOAD_CORE } from "../lib/load.ts";
import { CLIENT, POD_CIDR, PORTS, SERVER, SERVICE_CIDR, type Namespaces } from "../lib/namespaces.ts";
import type { DialledPeer } from "../lib/handshake-load.ts";
import type { MeshSize, WorldSettings } from "../world/control.ts";

export type Side = "client" | "server";

const READY_WITHIN_MS = 15_000;

/** Ports that a sidecar listens on. */
export interface ListenPorts {
  readonly inbound: number;
  readonly outbound: number;
  readonly admin: number;
}
/** Where connections are redirected to. */
export const USUAL_PORTS: ListenPorts = { inbound: 4143, outbound: 4140, admin: 4191 };

export interface Control {
  readonly child: ChildProcess;
  readonly settings: WorldSettings;
}

/** A control plane in the namespace of `side`. `folder` holds the certificate authority that both sides share. */
export async function startControl(
  world: Namespaces,
  folder: string,
  side: Side,
  size: Partial<MeshSize> = {},
): Promise<Control> {
  const program = join(import.meta.dirname, "../world/control.ts");
  const child = world.start(
    side,
    [process.execPath, "--no-warnings", program, join(folder, "authority"), side, JSON.stringify(size)],
    { core: LOAD_CORE },
  );
  const line = await firstLine(child, "the bench's control plane", () => true);
  return { child, settings: JSON.parse(line) as WorldSettings };
}

export interface BootOptions {
  /** Where it listens, if not where connections are redirected to. */
  readonly ports?: ListenPorts;
  /** It takes connections that were meant for any address, not its pod's alone. */
  readonly takesAnyAddress?: boolean;
}

/** The part of the environment that every sidecar of the API knows. */
export function bootEnvironment(
  side: Side,
  settings: WorldSettings,
  { host, ports = USUAL_PORTS, takesAnyAddress = false }: BootOptions & { host: string },
): Record<string, string> {
  const control = `${host}:${settings.controlPort}`;
  const services = ["IDENTITY", "DESTINATION", "POLICY"].map((name) => [
    `LINKERD2_PROXY_${name}_SVC_ADDR`,
    control,
  ]);
  return {
    ...(Object.fromEntries(services) as Record<string, string>),
    LINKERD2_PROXY_IDENTITY_LOCAL_NAME: settings.localName,
    LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: settings.trustAnchorsPem,
    LINKERD2_PROXY_DESTINATION_CONTEXT: JSON.stringify({ ns: "bench", nodeName: "bench", pod: side }),
    LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS: `${SERVICE_CIDR},${POD_CIDR}`,
    LINKERD2_PROXY_POLICY_WORKLOAD: JSON.stringify({ ns: "bench", pod: side }),
    LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS: `${SERVICE_CIDR},${POD_CIDR}`,
    LINKERD2_PROXY_INBOUND_LISTEN_ADDR: `0.0.0.0:${ports.inbound}`,
    LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS: `127.0.0.1:${ports.outbound}`,
    LINKERD2_PROXY_ADMIN_LISTEN_ADDR: `127.0.0.1:${ports.admin}`,
    LINKERD2_PROXY_INBOUND_DEFAULT_POLICY: "all-unauthenticated",
    ...(takesAnyAddress ? {} : { LINKERD2_PROXY_INBOUND_IPS: side === "client" ? CLIENT : SERVER }),
    LINKERD2_PROXY_INBOUND_PORTS:
      side === "client"
        ? ""
        : Object.values(PORTS)
            .map(({ pod }) => pod)
            .join(","),
  };
}

/** The server's sidecar, for who dials it by itself: an endpoint of HTTP/2, which a redirection leads to it. */
export function peerOf({ settings }: Control): DialledPeer {
  return {
    host: SERVER,
    port: PORTS.http2.pod,
    serverName: settings.serverName,
    alpn: [],
    certificatesPem: settings.peer.certificatesPem,
    keyPem: settings.peer.keyPem,
    trustAnchorsPem: settings.trustAnchorsPem,
  };
}

/** The first line of a child's output (stdout, else stderr) that is `wanted`; what came is shown when it ends early. */
export async function firstLine(
  child: ChildProcess,
  name: string,
  wanted: (line: string) => boolean,
): Promise<string> {
  const stream = child.stdout ?? child.stderr;
  if (stream === null) throw new Error("the child has no output to wait for");
  const lines = createInterface(stream);
  const seen: string[] = [];
  const found = new Promise<string>((resolve) => {
    lines.on("line", (line) => {
      seen.push(line);
      if (seen.length > 20) seen.shift();
      if (wanted(line)) resolve(line);
    });
  });
  const ended = once(child, "exit").then(() => {
    throw new Error(`${name} ended early:\n${seen.join("\n")}`);
  });
  // One that ends later ends at its time.
  ended.catch(() => undefined);
  const tooLate = new Promise<never>((_, reject) => {
    setTimeout(
      () => reject(new Error(`${name} was not ready within ${READY_WITHIN_MS} ms:\n${seen.join("\n")}`)),
      READY_WITHIN_MS,
    ).unref();
  });
  tooLate.catch(() => undefined);
  return await Promise.race([found, ended, tooLate]);
}
