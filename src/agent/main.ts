import { resolve } from "node:path";
import { describeError } from "#/base/errors.ts";
import { forbidInheritance } from "#/kernel/libc.ts";
import { Agent, type AgentOptions } from "./agent.ts";

export type { AgentOptions } from "./agent.ts";

/**
 * The privileged per-machine part: it makes namespaces, cgroups and interception, and starts what runs in them. It holds
 * no key and touches no payload. It ends by the operator's `down`; dying otherwise leaves everything running, for the
 * next agent to take over.
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  process.umask(0o022);
  forbidInheritance();
  // Named by its own descriptor, it must not die of a terminal that goes away.
  process.on("SIGHUP", () => {});
  const agent = new Agent(options, resolve(import.meta.dirname, "../.."));
  try {
    await agent.run();
  } catch (error) {
    process.stderr.write(
      `${new Date().toISOString()} error the agent cannot go on: ${describeError(error)}\n`,
    );
    process.exitCode = 1;
  }
  // Adopted processes are watched by timers, and links to sidecars may be open: the end is the end.
  process.exit();
}
