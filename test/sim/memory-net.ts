import { addressKey, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import { parseIdentity, sameIdentity, type PeerIdentity } from "#/model/identity.ts";
import type { Random } from "#/base/random.ts";
import type {
  Accepted,
  ConnectOptions,
  Listener,
  Proof,
  SecureClientOptions,
  SecureDone,
  SecureRefusal,
  SecureServerOptions,
  Transport,
} from "#/net/transport.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { MemoryConn } from "./memory-conn.ts";

type Accept = (accepted: Accepted) => void;

/** All machines of a simulation, and the wires between them. */
export class MemoryNet {
  readonly clock: Clock;
  readonly random: Random;
  readonly hosts = new Map<string, Host>();

  constructor(clock: Clock, random: Random) {
    this.clock = clock;
    this.random = random;
  }

  host(ip: string): Host {
    const host = new Host(this, ip as IpAddress);
    this.hosts.set(ip, host);
    return host;
  }
}

/** One pod: what listens on it, whose connections are steered where, and every connection that ends at it. */
export class Host {
  readonly ip: IpAddress;
  readonly #net: MemoryNet;
  readonly #listeners = new Map<number, Accept>();
  readonly #conns = new Set<MemoryConn>();
  #sidecar: { readonly outbound: Accept; readonly inbound: Accept } | null = null;
  #isDown = false;
  #nextPort = 40_000;

  constructor(net: MemoryNet, ip: IpAddress) {
    this.#net = net;
    this.ip = ip;
  }

  /** Interception: from now on both directions go to these. Null: fail closed, as with a dead sidecar. */
  intercept(outbound: Accept, inbound: Accept): void {
    this.#sidecar = { outbound, inbound };
  }

  /** The application's listener. */
  listen(port: number, accept: (conn: Conn) => void): void {
    this.#listeners.set(port, ({ conn }) => accept(conn));
  }

  stopListening(port: number): void {
    this.#listeners.delete(port);
  }

  /** The pod is killed: connections are reset, new ones refused. */
  kill(): void {
    this.#isDown = true;
    for (const conn of this.#conns) conn.reset();
    this.#conns.clear();
  }

  /** A connection of the application: steered to its sidecar when there is one. */
  dial(to: SocketAddress, done: (error: ConnError | null, conn: Conn | null) => void): Cancel {
    const sidecar = this.#sidecar;
    if (sidecar === null || to.ip === this.ip) return this.connect(to, 1000, done);
    return this.#soon(() => {
      const conn = this.#open(this, this.ip, { ip: "127.0.0.1" as IpAddress, port: 4140 }, 0.02, (accepted) =>
        sidecar.outbound({ conn: accepted, originalDestination: to }),
      );
      done(null, conn);
    });
  }

  /** A connection that is not steered at this end: the sidecar's own, or of an unmeshed pod. */
  connect(
    to: SocketAddress,
    timeoutMs: number,
    done: (error: ConnError | null, conn: Conn | null) => void,
  ): Cancel {
    const { clock, random, hosts } = this.#net;
    const delayMs = 0.05 + random.next();
    const target = hosts.get(to.ip);
    if (target === undefined) {
      return clock.after(timeoutMs, () =>
        done(new ConnError("CONNECT_TIMEOUT", `${addressKey(to)} did not answer`), null),
      );
    }
    return clock.after(delayMs, () => {
      const isLocal = target === this;
      const sidecar = isLocal ? null : target.#sidecar;
      const accept = target.#isDown
        ? undefined
        : sidecar === null
          ? target.#listeners.get(to.port)
          : sidecar.inbound;
      if (accept === undefined) {
        done(new ConnError("CONNECT_REFUSED", `${addressKey(to)} refused the connection`), null);
        return;
      }
      done(
        null,
        this.#open(target, this.ip, to, delayMs, (conn) => accept({ conn, originalDestination: to })),
      );
    });
  }

  #open(
    target: Host,
    from: IpAddress,
    to: SocketAddress,
    delayMs: number,
    accepted: (conn: MemoryConn) => void,
  ): Conn {
    const { clock, random } = this.#net;
    const [near, far] = MemoryConn.pair({ clock, random, delayMs }, { ip: from, port: this.#nextPort++ }, to);
    this.#conns.add(near);
    target.#conns.add(far);
    clock.after(delayMs, () => accepted(far));
    return near;
  }

  #soon(task: () => void): Cancel {
    return this.#net.clock.after(0, task);
  }
}

/** Whom the mesh trusts, and how far. */
export interface SimIdentity {
  readonly name: string;
  /** A certificate that a peer will refuse, and why. */
  readonly flaw: SecureRefusal | null;
  /** Wall-clock end of the certificate in force; not given: never. */
  endsAtMs?(): number;
}

/**
 * A sidecar's transport in the simulation. TLS is played: a ClientHello that real code can look at, then who each side
 * is, in plain words, then bytes. So whatever is decided by identity is decided by the same code as always.
 */
export class SimTransport implements Transport {
  readonly #net: MemoryNet;
  readonly #host: Host;
  readonly #identity: SimIdentity;

  constructor(net: MemoryNet, host: Host, identity: SimIdentity) {
    this.#net = net;
    this.#host = host;
    this.#identity = identity;
  }

  connect(
    to: SocketAddress,
    options: ConnectOptions,
    done: (error: ConnError | null, conn: Conn | null) => void,
  ): Cancel {
    return this.#host.connect(to, options.timeoutMs, done);
  }

  listen(): Promise<Listener> {
    throw new Error("a simulated sidecar is handed its connections by interception");
  }

  secureClient(conn: Conn, options: SecureClientOptions, done: SecureDone): Cancel {
    conn.write(clientHello(options.serverName, options.alpn));
    conn.write(frame({ name: this.#identity.name, flaw: this.#identity.flaw, ...this.#end() }));
    return handshake(
      this.#net.clock,
      conn,
      options.timeoutMs,
      false,
      done,
      ({ name, alpn, refusal, endsAtMs }) => {
        if (refusal !== undefined) return { refusal };
        const expected = parseIdentity(options.expected);
        const peer = peerOf(String(name));
        if (expected === null || !sameIdentity(expected, peer.identity)) return { refusal: "wrong_identity" };
        return { peer, alpn: typeof alpn === "string" ? alpn : null, proof: this.#proof(endsAtMs) };
      },
    );
  }

  originateTls(): Cancel {
    throw new Error("a simulated mesh has no servers of TLS outside");
  }

  secureServer(conn: Conn, options: SecureServerOptions, done: SecureDone): Cancel {
    return handshake(
      this.#net.clock,
      conn,
      options.timeoutMs,
      true,
      done,
      ({ name, flaw, offered, endsAtMs }) => {
        const alpn = options.alpn.find((one) => (offered as string[] | undefined)?.includes(one)) ?? null;
        const refusal = flaw ?? (options.alpn.length > 0 && alpn === null ? "foreign_alpn" : null);
        conn.write(
          frame(
            refusal === null
              ? { name: this.#identity.name, ...this.#end(), ...(alpn === null ? {} : { alpn }) }
              : { refusal },
          ),
        );
        return refusal === null
          ? { peer: peerOf(String(name)), alpn, proof: this.#proof(endsAtMs) }
          : { refusal: refusal as SecureRefusal };
      },
    );
  }

  #end(): { endsAtMs?: number } {
    const endsAtMs = this.#identity.endsAtMs?.();
    return endsAtMs === undefined ? {} : { endsAtMs };
  }

  #proof(peersEndMs: unknown): Proof {
    const ownEndMs = this.#identity.endsAtMs?.() ?? Infinity;
    return { endsAtMs: Math.min(ownEndMs, typeof peersEndMs === "number" ? peersEndMs : Infinity), root: "" };
  }
}

type Verdict =
  | { readonly refusal: unknown }
  | { readonly peer: PeerIdentity; readonly alpn: string | null; readonly proof: Proof };

function handshake(
  clock: Clock,
  conn: Conn,
  timeoutMs: number,
  isServer: boolean,
  done: SecureDone,
  judge: (said: Record<string, unknown>) => Verdict,
): Cancel {
  let held = Buffer.alloc(0);
  let isOver = false;
  const fail = (refusal: SecureRefusal): void => {
    if (isOver) return;
    isOver = true;
    timer.cancel();
    conn.reset();
    done({ refusal, error: new ConnError("TLS_FAILED", `the handshake failed: ${refusal}`) }, null);
  };
  const timer = clock.after(timeoutMs, () => fail("handshake_timeout"));
  conn.setHandler({
    onData: (bytes) => {
      if (isOver) return;
      held = Buffer.concat([held, bytes]);
      let at = 0;
      let offered: string[] = [];
      if (isServer) {
        if (held.length < 5 || held.length < 5 + held.readUInt16BE(3)) return;
        at = 5 + held.readUInt16BE(3);
        offered = offeredIn(held.subarray(0, at));
      }
      if (held.length < at + 2 || held.length < at + 2 + held.readUInt16BE(at)) return;
      const stop = at + 2 + held.readUInt16BE(at);
      const said = JSON.parse(held.subarray(at + 2, stop).toString()) as Record<string, unknown>;
      const verdict = judge({ ...said, offered });
      if ("refusal" in verdict) {
        // Whoever refuses has said so; the bytes leave before the end.
        fail(verdict.refusal as SecureRefusal);
        return;
      }
      timer.cancel();
      conn.pause();
      conn.unread(Uint8Array.from(held.subarray(stop)));
      clock.soon(() => {
        if (isOver) return;
        isOver = true;
        conn.resume();
        done(null, {
          conn,
          ...verdict,
          crypto: { cipher: "", group: "" },
        });
      });
    },
    onEnd: () => fail("peer_closed"),
    onDrain: () => undefined,
    onClose: () => fail("peer_closed"),
  });
  conn.resume();
  return {
    cancel: () => {
      if (isOver) return;
      isOver = true;
      timer.cancel();
      conn.reset();
    },
  };
}

function peerOf(name: string): PeerIdentity {
  const identity = parseIdentity(name);
  if (identity === null) throw new Error(`${name} is no identity`);
  return { identity, name };
}

function frame(value: object): Uint8Array {
  const text = Buffer.from(JSON.stringify(value));
  const head = Buffer.alloc(2);
  head.writeUInt16BE(text.length);
  return Buffer.concat([head, text]);
}

const vector = (lengthBytes: number, ...parts: Uint8Array[]): Buffer => {
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(lengthBytes);
  head.writeUIntBE(body.length, 0, lengthBytes);
  return Buffer.concat([head, body]);
};
const extension = (type: number, body: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([type >> 8, type & 255]), vector(2, body)]);

/** RFC 8446 §4.1.2: as much of a ClientHello as anybody looks at before a handshake. */
export function clientHello(serverName: string, alpn: readonly string[]): Uint8Array {
  const sni = extension(0, vector(2, Buffer.from([0]), vector(2, Buffer.from(serverName))));
  const names =
    alpn.length === 0
      ? Buffer.alloc(0)
      : extension(16, vector(2, ...alpn.map((name) => vector(1, Buffer.from(name)))));
  const body = Buffer.concat([
    Buffer.from([3, 3]),
    Buffer.alloc(32),
    Buffer.from([0]),
    vector(2, Buffer.from([0x13, 0x01])),
    Buffer.from([1, 0]),
    vector(2, sni, names),
  ]);
  return Buffer.concat([Buffer.from([22, 3, 1]), vector(2, Buffer.from([1]), vector(3, body))]);
}

function offeredIn(hello: Buffer): string[] {
  return ["pillion/2", "transport.l5d.io/v1"].filter((name) => hello.includes(name));
}
