import { spawn } from "node:child_process";
import { resolve } from "node:path";
import { describeError } from "#/base/errors.ts";
import { printable } from "#/base/printable.ts";
import { forbidInheritance } from "#/kernel/libc.ts";
import { Agent, type AgentOptions } from "./agent.ts";

export type { AgentOptions } from "./agent.ts";

/** An agent that ends by a bug sooner than this is not started again: it would do nothing else. */
const STEADY_MS = 10_000;
const EXIT_BUG = 70;

/**
 * The privileged per-machine part: it makes namespaces, cgroups and interception, and starts what runs in them. It holds
 * no key and touches no payload. It ends by the operator's `down`; dying otherwise leaves everything running, for the
 * next agent to take over. After a bug of ours that next one is started at once.
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  process.umask(0o022);
  forbidInheritance();
  // It must not die of a terminal that goes away.
  process.on("SIGHUP", () => {});
  const startedMs = Date.now();
  let agent: Agent | null = null;
  process.on("uncaughtException", (error) => {
    say(`a bug ended the agent: ${error.stack ?? describeError(error)}`);
    // Who was told to end it does not want it back; what is left, the next `down` removes.
    if (Date.now() - startedMs > STEADY_MS && agent?.isEnding !== true) {
      const args = [...process.execArgv, ...process.argv.slice(1)];
      spawn(process.execPath, args, { detached: true, stdio: "inherit" }).unref();
    }
    process.exit(EXIT_BUG);
  });
  try {
    agent = new Agent(options, resolve(import.meta.dirname, "../.."));
    await agent.run();
  } catch (error) {
    say(`the agent cannot go on: ${describeError(error)}`);
    process.exitCode = 1;
  }
  // Adopted processes are watched by timers, and links to sidecars may be open: the end is the end.
  process.exit();
}

function say(message: string): void {
  process.stderr.write(`${new Date().toISOString()} error ${printable(message, true)}\n`);
}
