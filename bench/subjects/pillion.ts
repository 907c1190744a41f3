import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import type { ChildProcess } from "node:child_process";
import { strippedSources } from "#/agent/stripped-sources.ts";
import { PROXY_CORE } from "../lib/load.ts";
import { type Namespaces, type Speech, PORTS, SERVICE, SIDECAR_UID } from "../lib/namespaces.ts";
import { Watched } from "../lib/observed.ts";
import type { WorldSettings } from "../world/control.ts";
import {
  bootEnvironment,
  type BootOptions,
  firstLine,
  peerOf,
  startControl,
  type Control,
  type Side,
} from "./controlled.ts";
import { end, type Measured, type StartSubject } from "./subject.ts";

const ROOT = join(import.meta.dirname, "../..");

export interface PillionOptions {
  /** Runtime and flags, before the program. */
  readonly command: readonly string[];
  /** Names a second pair that runs under another command: other flags, another runtime. "" for the one that counts. */
  readonly variant?: string;
  /** Says of itself what its garbage collector and event loop do; costs a little, so what it costs is not measured. */
  readonly isWatched?: boolean;
}

/** Two sidecars as they are deployed (without types, without privileges), intercepted by nftables. */
export const startPillion =
  ({ command, variant = "", isWatched = false }: PillionOptions): StartSubject =>
  async (given) => {
    const folder = join(given.folder, `pillion-${variant}`);
    mkdirSync(folder);
    const world = await given.makeWorld();
    const program = sidecarProgram(folder, given.profileFolder !== null);
    const flags = isWatched ? ["--import", observer(folder)] : [];
    const side = async (
      name: Side,
    ): Promise<{ control: Control; child: ChildProcess; measured: Measured }> => {
      const control = await startControl(world, folder, name);
      const profile = profiled(given.profileFolder, `${name}${variant}`);
      const { child, readyMs } = await startSidecar(world, name, control.settings, {
        command: [...command, ...flags, ...profile],
        program,
      });
      return { control, child, measured: { role: name, pid: child.pid ?? 0, readyMs } };
    };
    const server = await side("server");
    const client = await side("client");
    return {
      name: variant === "" ? "Pillion pair, mTLS" : `Pillion pair, ${variant}`,
      world,
      places: Object.fromEntries(
        Object.entries(PORTS).map(([speech, { service }]) => [speech as Speech, `${SERVICE}:${service}`]),
      ),
      peer: peerOf(client.control),
      processes: [client.measured, server.measured],
      ...(isWatched ? { watched: [new Watched(client.child), new Watched(server.child)] } : {}),
      stop: async () => {
        // A profile is written at the end, which a sidecar comes to once it is drained.
        for (const { child, control } of [client, server])
          for (const one of [child, control.child]) await end(one, 30_000);
      },
    };
  };

/**
 * The sources without types, laid out so that their own imports find each other. A sidecar that is to write a profile is not locked in,
 * since it could write no file then.
 */
export function sidecarProgram(folder: string, isProfiled: boolean): string {
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

function observer(folder: string): string {
  const into = join(folder, "observe.mjs");
  writeFileSync(
    into,
    stripTypeScriptTypes(readFileSync(join(import.meta.dirname, "../lib/observe.ts"), "utf8")),
  );
  return into;
}

/** One sidecar, ready. */
export async function startSidecar(
  world: Namespaces,
  side: Side,
  settings: WorldSettings,
  how: BootOptions & { readonly command: readonly string[]; readonly program: string },
): Promise<{ child: ChildProcess; readyMs: number }> {
  const token = settings.tokens.shift();
  if (token === undefined) throw new Error("the bench's control plane was asked for too few tokens");
  const startMs = performance.now();
  const child = world.start(side, [...how.command, how.program, "sidecar"], {
    core: PROXY_CORE,
    uid: SIDECAR_UID,
    env: {
      PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin",
      ...bootEnvironment(side, settings, { ...how, host: "localhost" }),
      PILLION_TOKEN_FD: "3",
      PILLION_INTERCEPT: "nftables",
    },
    stdio: ["ignore", "inherit", "pipe", "pipe"],
  });
  const tokenPipe = child.stdio[3];
  if (tokenPipe !== null && tokenPipe !== undefined && "end" in tokenPipe) {
    // A sidecar that ended before it read its token is told of below.
    tokenPipe.on("error", () => undefined);
    tokenPipe.end(token);
  }
  await firstLine(child, "a Pillion sidecar", (line) => line.includes('"message":"ready"'));
  return { child, readyMs: performance.now() - startMs };
}

/** Node's own profiler, from start to exit. */
function profiled(folder: string | null, side: string): string[] {
  return folder === null
    ? []
    : ["--cpu-prof", `--cpu-prof-dir=${folder}`, `--cpu-prof-name=${side}.cpuprofile`];
}
