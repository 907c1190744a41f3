import { spawnSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { chmodSync, chownSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ChildProcess } from "node:child_process";
import { makeCsr } from "#/proxy/identity/csr.ts";
import { PROXY_CORE } from "../lib/load.ts";
import { type Namespaces, type Speech, PORTS, SERVICE, SIDECAR_UID } from "../lib/namespaces.ts";
import type { WorldSettings } from "../world/control.ts";
import {
  bootEnvironment,
  type BootOptions,
  peerOf,
  startControl,
  USUAL_PORTS,
  type Control,
  type Side,
} from "./controlled.ts";
import { end, readyByHttp, type Measured, type StartSubject } from "./subject.ts";

/**
 * A pair of linkerd2-proxies as Linkerd runs them, but under our control plane: one worker, intercepted by nftables, certificates
 * with the DNS name alone. Needs the path of a binary.
 */
export const startLinkerd2Proxy =
  (binary: string | undefined): StartSubject =>
  async (given) => {
    if (binary === undefined) return { skipped: "no --linkerd2-proxy PATH was given" };
    const folder = join(given.folder, "linkerd2-proxy");
    mkdirSync(folder);
    const world = await given.makeWorld();
    const side = async (
      name: Side,
    ): Promise<{ control: Control; child: ChildProcess; measured: Measured }> => {
      const control = await startControl(world, folder, name, { form: "dns" });
      const { child, readyMs } = await startLinkerd2Sidecar(world, name, control.settings, {
        binary,
        folder: join(folder, name),
      });
      return { control, child, measured: { role: name, pid: child.pid ?? 0, readyMs } };
    };
    const server = await side("server");
    const client = await side("client");
    return {
      name: "linkerd2-proxy pair, mTLS",
      world,
      places: Object.fromEntries(
        Object.entries(PORTS).map(([speech, { service }]) => [speech as Speech, `${SERVICE}:${service}`]),
      ),
      peer: peerOf(client.control),
      processes: [client.measured, server.measured],
      stop: async () => {
        for (const { child, control } of [client, server])
          for (const one of [child, control.child]) await end(one);
      },
    };
  };

/** One linkerd2-proxy, ready. `folder`: for its key, certificate request and token; it is made. */
export async function startLinkerd2Sidecar(
  world: Namespaces,
  side: Side,
  settings: WorldSettings,
  how: BootOptions & { readonly binary: string; readonly folder: string },
): Promise<{ child: ChildProcess; readyMs: number }> {
  const token = settings.tokens.shift();
  if (token === undefined) throw new Error("the bench's control plane was asked for too few tokens");
  mkdirSync(how.folder);
  const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const own = (name: string, content: string | Uint8Array): string => {
    const file = join(how.folder, name);
    writeFileSync(file, content);
    chownSync(file, SIDECAR_UID, SIDECAR_UID);
    chmodSync(file, 0o600);
    return file;
  };
  own("key.p8", keys.privateKey.export({ type: "pkcs8", format: "der" }));
  own("csr.der", makeCsr(settings.localName, keys.privateKey, keys.publicKey));
  const tokenFile = own("token", token);
  const ports = how.ports ?? USUAL_PORTS;
  const startMs = performance.now();
  const child = world.start(side, [how.binary], {
    core: PROXY_CORE,
    uid: SIDECAR_UID,
    env: {
      // It goes without TLS to a control plane on loopback alone, and takes only this name for it.
      ...bootEnvironment(side, settings, { ...how, host: "localhost." }),
      LINKERD2_PROXY_IDENTITY_DIR: how.folder,
      LINKERD2_PROXY_IDENTITY_TOKEN_FILE: tokenFile,
      LINKERD2_PROXY_CONTROL_LISTEN_ADDR: `127.0.0.1:${ports.admin - 1}`,
      LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES: "svc.cluster.local.",
      LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION: String(PORTS.tcp.pod),
      LINKERD2_PROXY_LOG: "warn",
      LINKERD2_PROXY_CORES: "1",
    },
    stdio: ["ignore", "inherit", "inherit"],
  });
  await readyByHttp(world, side, ports.admin, "/ready");
  return { child, readyMs: performance.now() - startMs };
}

/** A binary says what it is before it finds that nobody told it what to do. */
export function linkerd2Version(binary: string): string {
  const { stdout, stderr } = spawnSync(binary, [], {
    encoding: "utf8",
    timeout: 5_000,
    env: { LINKERD2_PROXY_LOG: "info" },
  });
  const said = /linkerd2_proxy: (?:release|debug) (\S+) \((\w+)\)/.exec(`${stdout}${stderr}`);
  return said === null ? "of unknown version" : `${said[1]} (${said[2]})`;
}
