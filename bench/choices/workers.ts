/**
 * Runs a program several times on the same ports.
 *
 *   workers.ts processes N NODE [FLAG…] PROGRAM [ARG…]
 *   workers.ts threads N NODE [FLAG…] PROGRAM [ARG…]        in one process; flags are those of this process
 */
import { spawn } from "node:child_process";
import { extname, join } from "node:path";
import { Worker } from "node:worker_threads";

const [kind, count = "1", node = "", ...rest] = process.argv.slice(2);
const preload = [
  "--no-warnings",
  "--import",
  join(import.meta.dirname, `reuse-port${extname(import.meta.filename)}`),
];

if (kind === "threads") {
  const programAt = rest.findIndex((word) => !word.startsWith("-"));
  for (let i = 0; i < Number(count); i++)
    new Worker(rest[programAt] ?? "", { argv: rest.slice(programAt + 1), execArgv: preload });
} else {
  const children = Array.from({ length: Number(count) }, () =>
    spawn(node, [...preload, ...rest], { stdio: "inherit" }),
  );
  process.on("SIGTERM", () => {
    for (const child of children) child.kill();
  });
}
