import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { CommandError } from "./exit.ts";

/** Where an instance's sockets and state are; the agent uses the same roots. */
export interface InstancePaths {
  readonly name: string;
  readonly stateRoot: string;
  readonly runRoot: string;
  readonly agentSocket: string;
  readonly agentLog: string;
}

const SYSTEM_ROOTS = { state: "/var/lib/pillion", run: "/run/pillion" };

/** Where an ordinary user's programs keep such things (XDG Base Directory Specification 0.8). */
function userRoots(env: NodeJS.ProcessEnv): { state: string; run: string } {
  const state = env["XDG_STATE_HOME"] ?? join(env["HOME"] ?? homedir(), ".local/state");
  const run = env["XDG_RUNTIME_DIR"];
  return {
    state: join(state, "pillion"),
    run: run === undefined ? `/tmp/pillion-${process.getuid?.() ?? 0}` : join(run, "pillion"),
  };
}

/** Whether we are an ordinary user and it is root's mesh of that name that runs: the usual slip is a forgotten sudo. */
export function isRootsInstead(paths: InstancePaths): boolean {
  return paths.runRoot !== SYSTEM_ROOTS.run && existsSync(join(SYSTEM_ROOTS.run, paths.name, "agent.sock"));
}

export function instancePaths(name: string, env: NodeJS.ProcessEnv): InstancePaths {
  if (!/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(name)) {
    throw new CommandError(`--instance "${name}": use at most 32 of a-z, 0-9 and "-"`, 2);
  }
  const roots = process.getuid?.() === 0 ? SYSTEM_ROOTS : userRoots(env);
  const stateRoot = env["PILLION_STATE_DIR"] ?? roots.state;
  const runRoot = env["PILLION_RUN_DIR"] ?? roots.run;
  return {
    name,
    stateRoot,
    runRoot,
    agentSocket: join(runRoot, name, "agent.sock"),
    agentLog: join(stateRoot, name, "agent", "agent.log"),
  };
}
