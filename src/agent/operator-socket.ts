import { chmodSync, rmSync } from "node:fs";
import net from "node:net";
import { describeError } from "#/base/errors.ts";
import { peerCredentials } from "#/kernel/libc.ts";
import type { OperatorAnswer, OperatorRequest } from "#/model/operator-protocol.ts";
import { fileDescriptor } from "./control-link.ts";
import { readLines, writeLine } from "./lines.ts";

/** Answers one request; `say` sends an answer. Rejecting answers "error". */
export type OperatorHandler = (
  request: OperatorRequest,
  say: (answer: OperatorAnswer) => void,
) => Promise<void>;

const CONNECTIONS_MAX = 64;
const REQUEST_BYTES_MAX = 1024 * 1024;

/** Where the operator's command talks to the agent: root only, one request a connection. */
export class OperatorSocket {
  readonly #server: net.Server;

  constructor(handle: OperatorHandler) {
    this.#server = net.createServer((socket) => {
      socket.on("error", () => {});
      const peer = peerCredentials(fileDescriptor(socket));
      if (peer === null || peer.uid !== 0) {
        writeLine(socket, {
          kind: "error",
          message: "only root may command the mesh: try again with sudo",
        } satisfies OperatorAnswer);
        socket.end();
        return;
      }
      const say = (answer: OperatorAnswer): void => writeLine(socket, answer);
      readLines(socket, REQUEST_BYTES_MAX, (request) => {
        handle(request as OperatorRequest, say)
          .then(() => say({ kind: "done" }))
          .catch((error: unknown) => say({ kind: "error", message: describeError(error) }))
          .finally(() => socket.end());
      });
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /** Rejects when another agent listens there already. */
  async listen(path: string): Promise<void> {
    if (await answersAt(path))
      throw new Error(`another agent runs this instance already: it answers on ${path}`);
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => this.#server.once("error", reject).listen(path, resolve));
    chmodSync(path, 0o600);
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

function answersAt(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}
