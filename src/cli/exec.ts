import { spawn } from "node:child_process";
import { constants } from "node:os";
import { CommandError } from "./exit.ts";
import type { InstancePaths } from "./instance-paths.ts";
import { ask } from "./operator.ts";
import { enterMachine, findMachine, isOrdinaryUser } from "./own-machine.ts";
import { findContainer, findPod } from "./pod-reference.ts";

export interface ExecOptions {
  readonly pod: string;
  readonly namespace: string | null;
  readonly container: string | null;
  readonly argv: readonly string[];
}

/** Runs a command in a container with this terminal, and gives its exit code (128 + signal where it died of one). */
export async function exec(paths: InstancePaths, options: ExecOptions): Promise<number> {
  if (options.argv.length === 0)
    throw new CommandError("say what to run after --, for example: pillion exec front -- ls", 2);
  const { pods } = await ask(paths, { kind: "status" }, "status");
  const pod = findPod(pods, options.pod, options.namespace);
  const container = findContainer(pod, options.container);
  const { argv } = await ask(
    paths,
    {
      kind: "exec",
      namespace: pod.namespace,
      pod: pod.name,
      container,
      argv: options.argv,
      tty: process.stdin.isTTY === true,
    },
    "exec",
  );
  const machine = isOrdinaryUser() ? findMachine(paths) : null;
  const words = machine === null ? argv : [...enterMachine(machine), ...argv];
  const [program, ...args] = words as [string, ...string[]];
  return await new Promise<number>((resolve, reject) => {
    const child = spawn(program, args, { stdio: "inherit" });
    child.on("error", (error) => reject(new CommandError(`cannot run ${program}: ${error.message}`)));
    // The child has the terminal and gets Ctrl-C itself; dying before it would leave it alone with the terminal.
    for (const signal of ["SIGINT", "SIGQUIT"] as const) process.on(signal, () => {});
    process.on("SIGTERM", () => child.kill("SIGTERM"));
    child.on("exit", (code, signal) =>
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])),
    );
  });
}
