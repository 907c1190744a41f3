import { createServer, Socket } from "node:net";
import { addressKey, parseIp, type SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { ConnError, MeshError, type Blame } from "#/base/errors.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { descriptorOf, setForAccepted } from "./node-socket.ts";
import { SocketConn } from "./socket-conn.ts";
import type { Accepted, ConnectOptions, Listener } from "./transport.ts";

export interface TcpConnectOptions extends ConnectOptions {
  /** Reserved source address by which nftables tells the sidecar's connections; null = the kernel chooses. */
  readonly localIp: string | null;
}

/** Opens a TCP connection. After `cancel`, or at the timeout, the attempt is abandoned. */
export function connectTcp(
  clock: Clock,
  to: SocketAddress,
  options: TcpConnectOptions,
  done: (error: ConnError | null, conn: Conn | null) => void,
): Cancel {
  const socket = new Socket({ allowHalfOpen: true });
  let isOver = false;
  const finish = (error: ConnError | null): void => {
    if (isOver) return;
    isOver = true;
    timer.cancel();
    socket.off("connect", onConnect);
    socket.off("error", onError);
    if (error !== null) {
      // A later error of the dying socket has no listener otherwise, and would be thrown.
      socket.on("error", () => undefined);
      socket.destroy();
      done(error, null);
      return;
    }
    socket.pause();
    done(null, new SocketConn(clock, socket));
  };
  const onConnect = (): void => finish(null);
  const onError = (error: NodeJS.ErrnoException): void => finish(connectError(to, error));
  const timer = clock.after(options.timeoutMs, () => {
    const message = `${addressKey(to)} did not answer within ${options.timeoutMs} ms; check that it is up and reachable`;
    finish(new ConnError("CONNECT_TIMEOUT", message));
  });
  socket.on("connect", onConnect);
  socket.on("error", onError);
  socket.setNoDelay(true);
  if (options.keepAliveMs > 0) socket.setKeepAlive(true, options.keepAliveMs);
  socket.connect({
    host: to.ip,
    port: to.port,
    autoSelectFamily: false,
    ...(options.localIp === null ? {} : { localAddress: options.localIp }),
  });
  return {
    cancel(): void {
      if (isOver) return;
      isOver = true;
      timer.cancel();
      socket.off("connect", onConnect);
      socket.off("error", onError);
      socket.on("error", () => undefined);
      socket.destroy();
    },
  };
}

function connectError(to: SocketAddress, cause: NodeJS.ErrnoException): ConnError {
  const code = cause.code ?? cause.message;
  if (code === "ECONNREFUSED" || code === "ECONNRESET") {
    return new ConnError(
      "CONNECT_REFUSED",
      `${addressKey(to)} refused the connection; check that it listens there`,
      { cause },
    );
  }
  if (code === "ETIMEDOUT") {
    return new ConnError(
      "CONNECT_TIMEOUT",
      `${addressKey(to)} did not answer; check that it is up and reachable`,
      { cause },
    );
  }
  return new ConnError(
    "CONNECT_FAILED",
    `${addressKey(to)} could not be reached (${code}); check routes and addresses`,
    { cause },
  );
}

export interface ListenOptions {
  readonly backlog: number;
  /** At the bound, a further connection is accepted and dropped at once. */
  readonly connectionsMax: number;
  readonly keepAliveMs: number;
  /** Reads the original destination of an accepted socket by its descriptor. */
  readonly originalDestination: (fd: number, accepted: LocalEnd) => SocketAddress | null;
  /** As `SocketConn.peek`, by the accepted socket's descriptor. Null: what comes is read. */
  readonly peek: ((fd: number, into: Uint8Array) => number | null) | null;
}

/** Our end of a connection, which the kernel is asked for when it is wanted: where connections are intercepted nobody does. */
export interface LocalEnd {
  readonly local: SocketAddress;
}

/** What a client had connected before the listener's options were set is accepted by then. */
const INHERITED_AFTER_MS = 1000;

/** Listens until `close`. Throws `ListenError` when the address cannot be had. */
export function listenTcp(
  clock: Clock,
  at: SocketAddress,
  options: ListenOptions,
  accept: (accepted: Accepted) => void,
): Promise<Listener> {
  const { keepAliveMs, peek } = options;
  let inheritedFromMs = Infinity;
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    const fd = descriptorOf(socket);
    const conn = new SocketConn(clock, socket);
    // The client may be gone before it is looked at.
    if (peek !== null && fd >= 0) conn.peek = (into) => peek(fd, into);
    const originalDestination = fd < 0 ? null : options.originalDestination(fd, conn);
    if (clock.nowMs() < inheritedFromMs) {
      socket.setNoDelay(true);
      if (keepAliveMs > 0) socket.setKeepAlive(true, keepAliveMs);
    }
    accept({ conn, originalDestination });
  });
  server.maxConnections = options.connectionsMax;
  return new Promise((resolve, reject) => {
    const onError = (cause: NodeJS.ErrnoException): void => {
      reject(
        new ListenError(
          `cannot listen on ${addressKey(at)} (${cause.code ?? cause.message}); check what else uses the port`,
          cause,
        ),
      );
    };
    server.once("error", onError);
    server.listen({ host: at.ip, port: at.port, backlog: options.backlog, ipv6Only: false }, () => {
      server.off("error", onError);
      if (setForAccepted(server, keepAliveMs)) inheritedFromMs = clock.nowMs() + INHERITED_AFTER_MS;
      // EMFILE and the like: Node goes on accepting when descriptors are free again.
      server.on("error", () => undefined);
      const bound = server.address() as { address: string; port: number };
      resolve({
        address: { ip: parseIp(bound.address) ?? at.ip, port: bound.port },
        close: () => server.close(),
      });
    });
  });
}

export class ListenError extends MeshError {
  override readonly name = "ListenError";
  readonly code = "LISTEN_FAILED";
  readonly blame: Blame = "operator";
  constructor(message: string, cause: unknown) {
    super(message, { cause });
  }
}
