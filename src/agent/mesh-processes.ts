import { chownSync, mkdirSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { Daemon } from "./daemon.ts";
import { ensureDir } from "./files.ts";
import type { Instance } from "./instance.ts";
import type { LaunchSpec } from "./runtime/launch.ts";
import type { ProcessGroups } from "./runtime/process-groups.ts";
import { NODE_FLAGS, programBinds, SHOWN_MAIN, SHOWN_NODE_DIR, type Programs } from "./runtime/pod-host.ts";
import { dropPrivileges, meshSandboxArguments, type SandboxBind } from "./runtime/sandbox.ts";
import type { Users } from "./runtime/users.ts";
import type { DnsOptions } from "./dns/server.ts";

const DAEMON_PIDS_MAX = 256;
/** A share that holds beside hundreds of pods: all of them wait for these two. */
const DAEMON_CPU_REQUEST_MILLIS = 6_400;
/** Where the control plane sees the folder of an authority outside. */
const SHOWN_ISSUER_FOLDER = "/.pillion/issuer";
const HOST_RESOLV_CONF = "/etc/resolv.conf";

export interface MeshProcessesHost {
  readonly instance: Instance;
  readonly cgroups: ProcessGroups;
  readonly users: Users;
  readonly programs: Programs;
  readonly log: (level: "info" | "warn" | "error", message: string) => void;
}

/** The folder in which the control plane makes its socket: the only place of the run folder that it can write. */
export function controlSocketDir(instance: Instance): string {
  return join(instance.runDir, "control");
}

export function zoneFile(instance: Instance): string {
  return join(instance.runDir, "dns", "zone.json");
}

/** The control plane: its own user, no capability, its own state folder, and nothing else of the machine writable. */
export function controlProcess(
  host: MeshProcessesHost,
  trustDomain: string,
  issuerFolder: string | null,
): Daemon {
  const { instance } = host;
  const stateDir = join(instance.stateDir, "control");
  const socketDir = controlSocketDir(instance);
  for (const dir of [stateDir, socketDir]) {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    chownSync(dir, host.users.control, host.users.control);
  }
  return daemon(host, {
    name: "control",
    uid: host.users.control,
    capabilities: [],
    binds: [
      ...[stateDir, socketDir].map((dir) => ({ source: dir, target: dir, readOnly: false })),
      ...(issuerFolder === null
        ? []
        : [{ source: issuerFolder, target: SHOWN_ISSUER_FOLDER, readOnly: true }]),
    ],
    options: {
      stateDir,
      socketPath: join(socketDir, "control.sock"),
      trustDomain,
      ...(issuerFolder === null ? {} : { issuerFolder: { name: issuerFolder, dir: SHOWN_ISSUER_FOLDER } }),
      version: versionOf(host.programs.packageRoot),
    },
    holdFile: join(instance.runDir, "hold-control"),
  });
}

/** The name server: its own user, and of all capabilities only the one to bind port 53. */
export function dnsProcess(host: MeshProcessesHost): Daemon {
  const { instance } = host;
  const zone = zoneFile(instance);
  ensureDir(join(zone, ".."), 0o755);
  const options: DnsOptions = {
    ip: instance.gatewayIp,
    port: 53,
    zoneFile: zone,
    resolvConf: HOST_RESOLV_CONF,
  };
  return daemon(host, {
    name: "dns",
    uid: host.users.dns,
    capabilities: ["NET_BIND_SERVICE"],
    binds: [{ source: join(zone, ".."), target: join(zone, ".."), readOnly: true }],
    options,
    holdFile: null,
  });
}

function versionOf(packageRoot: string): string {
  return (JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { version: string }).version;
}

interface DaemonShape {
  readonly name: "control" | "dns";
  readonly uid: number;
  readonly capabilities: readonly string[];
  readonly binds: readonly SandboxBind[];
  readonly options: object;
  readonly holdFile: string | null;
}

function daemon(host: MeshProcessesHost, shape: DaemonShape): Daemon {
  const { instance, cgroups, programs } = host;
  const agentDir = join(instance.stateDir, "agent");
  const spec = (): LaunchSpec => {
    ensureDir(join(agentDir, "logs"));
    ensureDir(join(instance.runDir, "status"));
    return {
      cgroup: cgroups.create(shape.name, {
        cpuLimitMillis: null,
        cpuRequestMillis: DAEMON_CPU_REQUEST_MILLIS,
        memoryLimitBytes: null,
        pidsMax: DAEMON_PIDS_MAX,
      }),
      netns: null,
      sandbox: meshSandboxArguments({
        hostname: hostname(),
        etcFiles: [{ source: HOST_RESOLV_CONF, target: HOST_RESOLV_CONF }],
        binds: [...shape.binds, ...programBinds(programs)],
        env: [["PATH", `${SHOWN_NODE_DIR}:/usr/bin:/bin`]],
      }),
      overlays: [],
      argv: [
        ...dropPrivileges({
          uid: shape.uid,
          gid: shape.uid,
          groups: [],
          capabilities: shape.capabilities,
          ambient: true,
          keepGroups: host.users.isOneForAll,
        }),
        `${SHOWN_NODE_DIR}/node`,
        ...NODE_FLAGS,
        SHOWN_MAIN,
        shape.name,
        JSON.stringify(shape.options),
      ],
      logFile: join(agentDir, "logs", `${shape.name}.log`),
      statusFile: join(instance.runDir, "status", `${shape.name}.json`),
      secret: null,
      isOurs: true,
    };
  };
  const recordFile = join(agentDir, `${shape.name}.json`);
  return new Daemon({ name: shape.name, cgroups, spec, recordFile, holdFile: shape.holdFile, log: host.log });
}
