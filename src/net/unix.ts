import { chmodSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { descriptorOf } from "./node-socket.ts";
import { SocketConn } from "./socket-conn.ts";
import { ListenError } from "./tcp.ts";

export interface UnixListenOptions {
  /** At the bound, a further connection is accepted and dropped at once. */
  readonly connectionsMax: number;
  /** Of the socket's file: who may connect. */
  readonly mode: number;
  /** Who is at the other end of an accepted socket, by its descriptor. */
  readonly peer: (fd: number) => { readonly uid: number } | null;
}

export interface UnixAccepted {
  readonly conn: Conn;
  /** Null when the client was gone before it was looked at. */
  readonly peerUid: number | null;
}

/**
 * Listens on a Unix socket until `close`. A file that lies there is taken for the socket of one that is dead, and removed. Throws
 * `ListenError` when the path cannot be had.
 */
export function listenUnix(
  clock: Clock,
  path: string,
  options: UnixListenOptions,
  accept: (accepted: UnixAccepted) => void,
): Promise<{ close(): void }> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    const fd = descriptorOf(socket);
    const peerUid = fd < 0 ? null : (options.peer(fd)?.uid ?? null);
    accept({ conn: new SocketConn(clock, socket), peerUid });
  });
  server.maxConnections = options.connectionsMax;
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => {
      const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
      server.close();
      reject(
        new ListenError(
          `cannot listen on ${path} (${code}); check that its folder is there and belongs to the sidecar`,
          cause,
        ),
      );
    };
    server.once("error", fail);
    try {
      rmSync(path, { force: true });
    } catch (error) {
      return fail(error);
    }
    server.listen(path, () => {
      server.off("error", fail);
      // EMFILE and the like: Node goes on accepting when descriptors are free again.
      server.on("error", () => undefined);
      try {
        chmodSync(path, options.mode);
      } catch (error) {
        return fail(error);
      }
      resolve({ close: () => server.close() });
    });
  });
}
