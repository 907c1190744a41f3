/**
 * A process inside a pod that does what the test tells it: each line on stdin is `{ id, code, args }` with `code` the
 * source of a function `(ctx, ...args)`, each line on stdout its answer. So a test reads as if it ran in the pod.
 */
import * as fs from "node:fs";
import * as net from "node:net";
import * as tls from "node:tls";
import * as http from "node:http";
import * as http2 from "node:http2";
import { createInterface } from "node:readline";

/** `state` is kept between calls: listeners, sockets. */
const context = {
  net,
  tls,
  http,
  http2,
  fs,
  state: {} as Record<string, unknown>,
  sleep: (ms: number) => new Promise((done) => setTimeout(done, ms)),
  /** A module by its URL, for what is too long for one function. It is loaded once and keeps its state. */
  load: (url: string): Promise<unknown> => import(url),
};
export type WorkerContext = typeof context;

createInterface(process.stdin).on("line", (line) => {
  const { id, code, args } = JSON.parse(line) as { id: number; code: string; args: unknown[] };
  // eslint-disable-next-line no-eval -- the test's own function, in the test's own process
  const run = (0, eval)(`(${code})`) as (...all: unknown[]) => unknown;
  Promise.resolve()
    .then(() => run(context, ...args))
    .then(
      (value) => process.stdout.write(`${JSON.stringify({ id, value: value ?? null })}\n`),
      (error: unknown) =>
        process.stdout.write(
          `${JSON.stringify({ id, error: String(error instanceof Error ? error.stack : error) })}\n`,
        ),
    );
});
process.stdin.on("end", () => process.exit(0));
process.on("uncaughtException", (error) => process.stderr.write(`worker: ${error.stack}\n`));
