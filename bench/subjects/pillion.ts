import { once } from "node:events";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { ChildProcess } from "node:child_process";
import { strippedSources } from "#/agent/stripped-sources.ts";
import { LOAD_CORE, PROXY_CORE } from "../lib/load.ts";
import {
  type Namespaces,
  type Speech,
  CLIENT,
  PORTS,
  SERVER,
  SERVICE,
  SIDECAR_UID,
} from "../lib/namespaces.ts";
import type { WorldSettings } from "../world/control.ts";
import { end, type Measured, type StartSubject } from "./subject.ts";

const ROOT = join(import.meta.dirname, "../..");

/**
 * Two sidecars as they are deployed (without types, without privileges), intercepted by nftables. `variant` names a
 * second pair that runs under another command: other flags, another runtime.
 */
export const startPillion =
  (command: readonly string[], variant = ""): StartSubject =>
  async (given) => {
    const folder = join(given.folder, `pillion-${variant}`);
    mkdirSync(folder);
    const world = await given.makeWorld();
    const side = {
      world,
      folder,
      command,
      profileFolder: given.profileFolder,
      program: sidecarProgram(folder, given.profileFolder !== null),
      variant,
    };
    const server = await startSide(side, "server");
    const client = await startSide(side, "client");
    return {
      name: variant === "" ? "Pillion pair, mTLS" : `Pillion pair, ${variant}`,
      world,
      places: Object.fromEntries(
        Object.entries(PORTS).map(([speech, { service }]) => [speech as Speech, `${SERVICE}:${service}`]),
      ),
      processes: [client.measured, server.measured],
      stop: async () => {
        // A profile is written at the end, which a sidecar comes to once it is drained.
        for (const child of [...client.children, ...server.children]) await end(child, 30_000);
      },
    };
  };

/**
 * The sources without types, laid out so that their own imports find each other. A sidecar that is to write a profile is not locked in,
 * since it could write no file then.
 */
function sidecarProgram(folder: string, isProfiled: boolean): string {
  const into = join(folder, "pillion");
  mkdirSync(into, { recursive: true });
  const sources = strippedSources(ROOT, into);
  writeFileSync(join(sources, "package.json"), JSON.stringify({ type: "module", imports: { "#/*": "./*" } }));
  symlinkSync(join(ROOT, "node_modules"), join(into, "node_modules"));
  if (!isProfiled) return join(sources, "main.js");
  const open = join(sources, "profiled.js");
  writeFileSync(open, 'import { runSidecar } from "#/proxy/main.js";\nawait runSidecar(process.env);\n');
  return open;
}

interface SideSettings {
  world: Namespaces;
  folder: string;
  command: readonly string[];
  profileFolder: string | null;
  program: string;
  variant: string;
}

async function startSide(
  { world, folder, command, profileFolder, program, variant }: SideSettings,
  side: "client" | "server",
): Promise<{ measured: Measured; children: ChildProcess[] }> {
  const control = world.start(
    side,
    [
      process.execPath,
      "--no-warnings",
      join(ROOT, "bench/world/control.ts"),
      join(folder, "authority"),
      side,
    ],
    { core: LOAD_CORE },
  );
  const settings = JSON.parse(await firstLine(control, () => true)) as WorldSettings;
  const startMs = performance.now();
  const sidecar = world.start(
    side,
    [...command, ...profiled(profileFolder, `${side}${variant}`), program, "sidecar"],
    {
      core: PROXY_CORE,
      uid: SIDECAR_UID,
      env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", ...environment(side, settings) },
      stdio: ["ignore", "inherit", "pipe", "pipe"],
    },
  );
  const tokenPipe = sidecar.stdio[3];
  if (tokenPipe !== null && tokenPipe !== undefined && "end" in tokenPipe) {
    // A sidecar that ended before it read its token is told of below.
    tokenPipe.on("error", () => undefined);
    tokenPipe.end(settings.token);
  }
  await firstLine(sidecar, (line) => line.includes('"message":"ready"'));
  const readyMs = performance.now() - startMs;
  return { measured: { role: side, pid: sidecar.pid ?? 0, readyMs }, children: [sidecar, control] };
}

/** Node's own profiler, from start to exit. */
function profiled(folder: string | null, side: string): string[] {
  return folder === null
    ? []
    : ["--cpu-prof", `--cpu-prof-dir=${folder}`, `--cpu-prof-name=${side}.cpuprofile`];
}

function environment(side: "client" | "server", settings: WorldSettings): Record<string, string> {
  const control = `localhost:${settings.controlPort}`;
  const services = ["IDENTITY", "DESTINATION", "POLICY"].map((name) => [
    `LINKERD2_PROXY_${name}_SVC_ADDR`,
    control,
  ]);
  return {
    ...(Object.fromEntries(services) as Record<string, string>),
    LINKERD2_PROXY_IDENTITY_LOCAL_NAME: settings.localName,
    LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS: settings.trustAnchorsPem,
    LINKERD2_PROXY_DESTINATION_CONTEXT: JSON.stringify({ ns: "bench", nodeName: "bench", pod: side }),
    LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS: "10.98.0.0/24,10.99.0.0/24",
    LINKERD2_PROXY_POLICY_WORKLOAD: JSON.stringify({ ns: "bench", pod: side }),
    LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS: "10.98.0.0/24,10.99.0.0/24",
    LINKERD2_PROXY_INBOUND_LISTEN_ADDR: "0.0.0.0:4143",
    LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS: "127.0.0.1:4140",
    LINKERD2_PROXY_ADMIN_LISTEN_ADDR: "127.0.0.1:4191",
    LINKERD2_PROXY_INBOUND_IPS: side === "client" ? CLIENT : SERVER,
    LINKERD2_PROXY_INBOUND_PORTS:
      side === "client"
        ? ""
        : Object.values(PORTS)
            .map(({ pod }) => pod)
            .join(","),
    PILLION_TOKEN_FD: "3",
    PILLION_INTERCEPT: "nftables",
  };
}

/** The first line of a child's output (stdout, else stderr) that is `wanted`; what comes on stderr is shown when it ends early. */
async function firstLine(child: ChildProcess, wanted: (line: string) => boolean): Promise<string> {
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
    throw new Error(`a process of the Pillion pair ended early:\n${seen.join("\n")}`);
  });
  const tooLate = new Promise<never>((_, reject) => {
    setTimeout(
      () => reject(new Error(`the Pillion pair was not ready within 15 s:\n${seen.join("\n")}`)),
      15_000,
    ).unref();
  });
  return await Promise.race([found, ended, tooLate]);
}
