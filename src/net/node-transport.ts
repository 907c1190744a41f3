import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { SocketAddress } from "#/base/address.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { connectTcp, listenTcp, type LocalEnd } from "./tcp.ts";
import type { Tls } from "./tls.ts";
import type {
  Accepted,
  ConnectOptions,
  Listener,
  ListenerOptions,
  OriginateDone,
  OriginateOptions,
  SecureClientOptions,
  SecureDone,
  SecureServerOptions,
  Transport,
} from "./transport.ts";

export interface NodeTransportSettings {
  readonly backlog: number;
  /** Per listener. */
  readonly connectionsMax: number;
  /** Keep-alive of accepted connections; 0 = off. */
  readonly acceptKeepAliveMs: number;
  /** Source address of all connections; null = the kernel chooses. */
  readonly localIp: string | null;
  readonly originalDestination: (fd: number, accepted: LocalEnd) => SocketAddress | null;
  /** As `ListenOptions.peek`, where a listener takes TLS; none: what comes is read. */
  readonly peek?: (fd: number, into: Uint8Array) => number | null;
}

/** The network as it is: Node's sockets and TLS. */
export class NodeTransport implements Transport {
  readonly #clock: Clock;
  readonly #tls: Tls;
  readonly #settings: NodeTransportSettings;

  constructor(clock: Clock, tls: Tls, settings: NodeTransportSettings) {
    this.#clock = clock;
    this.#tls = tls;
    this.#settings = settings;
  }

  connect(
    to: SocketAddress,
    options: ConnectOptions,
    done: (error: ConnError | null, conn: Conn | null) => void,
  ): Cancel {
    return connectTcp(this.#clock, to, { ...options, localIp: this.#settings.localIp }, done);
  }

  listen(
    at: SocketAddress,
    accept: (accepted: Accepted) => void,
    { takesTls = false }: ListenerOptions = {},
  ): Promise<Listener> {
    const { backlog, connectionsMax, acceptKeepAliveMs: keepAliveMs, originalDestination } = this.#settings;
    const peek = (takesTls ? this.#settings.peek : undefined) ?? null;
    const options = { backlog, connectionsMax, keepAliveMs, originalDestination, peek };
    return listenTcp(this.#clock, at, options, accept);
  }

  secureClient(conn: Conn, options: SecureClientOptions, done: SecureDone): Cancel {
    return this.#tls.connect(conn, options, done);
  }

  originateTls(conn: Conn, options: OriginateOptions, done: OriginateDone): Cancel {
    return this.#tls.originate(conn, options, done);
  }

  secureServer(conn: Conn, options: SecureServerOptions, done: SecureDone): Cancel {
    return this.#tls.accept(conn, options, done);
  }
}
