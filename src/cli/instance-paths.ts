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

export function instancePaths(name: string, env: NodeJS.ProcessEnv): InstancePaths {
  if (!/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(name)) {
    throw new CommandError(`--instance "${name}": use at most 32 of a-z, 0-9 and "-"`, 2);
  }
  const stateRoot = env["PILLION_STATE_DIR"] ?? "/var/lib/pillion";
  const runRoot = env["PILLION_RUN_DIR"] ?? "/run/pillion";
  return {
    name,
    stateRoot,
    runRoot,
    agentSocket: join(runRoot, name, "agent.sock"),
    agentLog: join(stateRoot, name, "agent", "agent.log"),
  };
}
