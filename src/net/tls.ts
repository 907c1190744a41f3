import { X509Certificate } from "node:crypto";
import {
  checkServerIdentity,
  connect as tlsConnect,
  createSecureContext,
  getCACertificates,
  Server,
  type SecureContext,
  type SecureContextOptions,
  type TLSSocket,
} from "node:tls";
import type { Socket } from "node:net";
import type { Clock, Timer } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { assert } from "#/base/assert.ts";
import { ConnError } from "#/base/errors.ts";
import { parseIdentity, sameIdentity } from "#/model/identity.ts";
import type { Cancel } from "#/stack/discovery.ts";
import { encodeRefusalNote, readRefusalNote } from "#/wire/refusal-note.ts";
import { PILLION_ALPN } from "#/wire/transport-header.ts";
import { MESH_TLS } from "./mesh-tls.ts";
import { provePeer, ProvenLeaves, refusalOf, type PeerProof, type TrustBundles } from "./peer-identity.ts";
import { SocketConn } from "./socket-conn.ts";
import type {
  ConnCrypto,
  OriginateDone,
  OriginateOptions,
  SecureClientOptions,
  SecureDone,
  SecureError,
  SecureRefusal,
  SecureResult,
  SecureServerOptions,
} from "./transport.ts";

/** What this workload proves itself with. `keyPem` never leaves memory. */
export interface TlsLeaf {
  readonly keyPem: string;
  /** Leaf first, then intermediates. */
  readonly chainPem: string;
}

/** Roots that peers must chain to, by trust domain. */
export type TrustAnchors = ReadonlyMap<string, string>;

const OUTSIDE_CONTEXTS_MAX = 64;
/** How long a client that was refused may take to hear why. */
const TELL_MS = 1000;

/**
 * All TLS of a sidecar. One shared context per role is built when leaf or anchors change, none per connection;
 * connections that are up keep what they were made with.
 *
 * Server sockets come only from `tls.Server`: one that is built by hand does not look at the client's certificate.
 */
export class Tls {
  readonly #clock: Clock;
  #trust: TrustBundles = new Map();
  /** … against `#trust`. */
  #proven = new ProvenLeaves();
  #leaf: TlsLeaf | null = null;
  /** Wall clock: where the first of our own chain ends. */
  #leafEndsAtMs = 0;
  #anchorsPem: string[] = [];
  #client: SecureContext | null = null;
  #anonymous: SecureContext | null = null;
  /** By the ALPN names they agree to, joined. */
  readonly #servers = new Map<string, Server>();
  #serverOptions: SecureContextOptions | null = null;
  readonly #handshakes = new WeakMap<Socket, Handshake<Shown>>();
  /** By the roots that servers outside must chain to. */
  readonly #outside = new Map<string, SecureContext>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  setAnchors(anchors: TrustAnchors): void {
    const trust = new Map<string, X509Certificate[]>();
    for (const [domain, pem] of anchors)
      trust.set(
        domain,
        splitPem(pem).map((one) => new X509Certificate(one)),
      );
    this.#trust = trust;
    this.#proven = new ProvenLeaves();
    this.#anchorsPem = [...anchors.values()].flatMap(splitPem);
    this.#anonymous = createSecureContext({ ...MESH_TLS, ca: this.#anchorsPem });
    if (this.#leaf !== null) this.setLeaf(this.#leaf);
  }

  /** Anchors come first. Throws when key and certificate do not belong together. */
  setLeaf(leaf: TlsLeaf): void {
    const options = { ...MESH_TLS, key: leaf.keyPem, cert: leaf.chainPem, ca: this.#anchorsPem };
    this.#client = createSecureContext(options);
    this.#leaf = leaf;
    this.#leafEndsAtMs = Math.min(
      ...splitPem(leaf.chainPem).map((pem) => new X509Certificate(pem).validToDate.getTime()),
    );
    this.#serverOptions = options;
    for (const server of this.#servers.values()) server.setSecureContext(options);
  }

  /** Whether chains that end in this root (its SHA-256, as in `Proof`) prove anything. */
  trusts(root: string): boolean {
    for (const roots of this.#trust.values())
      for (const one of roots) if (one.fingerprint256 === root) return true;
    return false;
  }

  get hasLeaf(): boolean {
    return this.#client !== null;
  }

  connect(conn: Conn, options: SecureClientOptions, done: SecureDone): Cancel {
    assert(conn instanceof SocketConn, "TLS needs a socket below");
    const context = options.isAnonymous ? this.#anonymous : this.#client;
    if (context === null) {
      conn.reset();
      return this.#failSoon(
        done,
        "no_certificate_yet",
        "this sidecar has no certificate yet; check that it reaches the control plane",
      );
    }
    const ownEndsAtMs = options.isAnonymous ? Infinity : this.#leafEndsAtMs;
    const tcp = conn.detach();
    const socket = tlsConnect({
      socket: tcp,
      secureContext: context,
      servername: options.serverName,
      ...(options.alpn.length === 0 ? {} : { ALPNProtocols: [...options.alpn] }),
      rejectUnauthorized: true,
      // Names are compared as identities, below; OpenSSL has verified the chain by then.
      checkServerIdentity: () => undefined,
    });
    const handshake = new Handshake<Shown>(this.#clock, socket, tcp, options.timeoutMs, done);
    socket.once("secureConnect", () => {
      const proof = provePeer(socket, this.#trust, this.#clock.wallMs(), this.#proven);
      if (proof.kind === "refused") handshake.refuse(proof.refusal, proof.detail);
      else if (!proof.names.some((name) => denotesSame(name, options.expected))) {
        handshake.refuse("wrong_identity", `dialled ${options.expected} but found ${proof.names.join(", ")}`);
      } else handshake.succeed(shown(proof, ownEndsAtMs, cryptoOf(socket, true)), options.refusedByPeer);
    });
    socket.on("error", handshake.onError);
    socket.on("close", handshake.onClose);
    return handshake;
  }

  /** TLS 1.2 or newer. The certificate must chain to the roots that are given and name the server (RFC 9525). */
  originate(conn: Conn, { alpn, timeoutMs, tls }: OriginateOptions, done: OriginateDone): Cancel {
    assert(conn instanceof SocketConn, "TLS needs a socket below");
    const tcp = conn.detach();
    const socket = tlsConnect({
      socket: tcp,
      secureContext: this.#outsideContext(tls.caPem),
      servername: tls.serverName,
      ...(alpn.length === 0 ? {} : { ALPNProtocols: [...alpn] }),
      rejectUnauthorized: true,
      checkServerIdentity: (_host, certificate) => {
        const error = checkServerIdentity(tls.serverName, certificate);
        if (error !== undefined) handshake.refuse("wrong_identity", error.message);
        return error;
      },
    });
    const handshake = new Handshake<object>(this.#clock, socket, tcp, timeoutMs, done);
    socket.once("secureConnect", () => {
      if (socket.authorized) handshake.succeed({});
      else handshake.refuse(refusalOf(socket.authorizationError), describe(socket.authorizationError));
    });
    socket.on("error", handshake.onError);
    socket.on("close", handshake.onClose);
    return handshake;
  }

  #outsideContext(caPem: string): SecureContext {
    let context = this.#outside.get(caPem);
    if (context === undefined) {
      if (this.#outside.size >= OUTSIDE_CONTEXTS_MAX) this.#outside.clear();
      context = createSecureContext({
        minVersion: "TLSv1.2",
        ca: caPem === "" ? systemRoots() : splitPem(caPem),
      });
      this.#outside.set(caPem, context);
    }
    return context;
  }

  accept(conn: Conn, options: SecureServerOptions, done: SecureDone): Cancel {
    assert(conn instanceof SocketConn, "TLS needs a socket below");
    if (this.#serverOptions === null) {
      conn.reset();
      return this.#failSoon(
        done,
        "no_certificate_yet",
        "this sidecar has no certificate yet; check that it reaches the control plane",
      );
    }
    const server = this.#serverFor(options.alpn, this.#serverOptions);
    const tcp = conn.detach();
    const handshake = new Handshake<Shown>(this.#clock, null, tcp, options.timeoutMs, done);
    this.#handshakes.set(tcp, handshake);
    tcp.on("close", handshake.onClose);
    server.emit("connection", tcp);
    return handshake;
  }

  #serverFor(alpn: readonly string[], options: SecureContextOptions): Server {
    const key = alpn.join(" ");
    const known = this.#servers.get(key);
    if (known !== undefined) return known;
    const server = new Server({
      ...options,
      ...(alpn.length === 0 ? {} : { ALPNProtocols: [...alpn] }),
      requestCert: true,
      // Node would only cut the connection. `provePeer` refuses what is not verified, and the client is told why.
      rejectUnauthorized: false,
      // The handshake's own timer says so earlier and with a reason.
      handshakeTimeout: 120_000,
      allowHalfOpen: true,
    });
    server.on("secureConnection", (socket) => {
      const handshake = this.#handshakeOf(socket);
      const proof = provePeer(socket, this.#trust, this.#clock.wallMs(), this.#proven);
      handshake.socket = socket;
      socket.on("error", handshake.onError);
      if (proof.kind === "refused") handshake.refuse(proof.refusal, proof.detail, proof.refusal);
      else if (alpn.length > 0 && !socket.alpnProtocol)
        handshake.refuse("no_alpn", `no ALPN was offered; ${alpn.join(" or ")} is needed here`);
      else handshake.succeed(shown(proof, this.#leafEndsAtMs, cryptoOf(socket, false)));
    });
    server.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
      // A refused certificate arrives here as ECONNRESET; only the socket still knows why.
      const { authorizationError } = socket as { authorizationError?: unknown };
      const cause = authorizationError ?? error;
      this.#handshakeOf(socket).refuse(refusalOf(cause), describe(cause));
    });
    this.#servers.set(key, server);
    return server;
  }

  /** Server TLS sockets know the TCP socket that they were made from only as `_parent`; this is the one place that uses it. */
  #handshakeOf(socket: TLSSocket): Handshake<Shown> {
    const tcp = (socket as unknown as { _parent?: Socket })._parent;
    const handshake = tcp === undefined ? undefined : this.#handshakes.get(tcp);
    assert(handshake !== undefined, "a TLS server socket without its handshake");
    return handshake;
  }

  #failSoon(done: SecureDone, refusal: SecureRefusal, message: string): Cancel {
    let isCancelled = false;
    this.#clock.soon(() => {
      if (!isCancelled) done({ refusal, error: new ConnError("TLS_FAILED", message, { blame: "us" }) }, null);
    });
    return { cancel: () => void (isCancelled = true) };
  }
}

/** What a handshake has shown of the other side. */
type Shown = Omit<SecureResult, "conn" | "alpn">;

type HandshakeDone<S extends object> = (
  error: SecureError | null,
  result: ({ readonly conn: Conn; readonly alpn: string | null } & S) | null,
) => void;

/** One handshake under way; afterwards an empty shell. Calls `done` once, or never after `cancel`. */
class Handshake<S extends object> implements Cancel {
  socket: TLSSocket | null;
  readonly #clock: Clock;
  readonly #tcp: Socket;
  /** Asked for while it is there: most messages are told once it is gone. */
  readonly #peer: string;
  readonly #done: HandshakeDone<S>;
  readonly #timer: Timer;
  #isOver = false;
  #lastError: NodeJS.ErrnoException | null = null;

  constructor(
    clock: Clock,
    socket: TLSSocket | null,
    tcp: Socket,
    timeoutMs: number,
    done: HandshakeDone<S>,
  ) {
    this.#clock = clock;
    this.socket = socket;
    this.#tcp = tcp;
    this.#peer = `${tcp.remoteAddress ?? "a peer that is gone"}:${tcp.remotePort ?? 0}`;
    this.#done = done;
    tcp.on("error", this.onError);
    this.#timer = clock.after(timeoutMs, () =>
      this.refuse("handshake_timeout", `the TLS handshake took over ${timeoutMs} ms`),
    );
  }

  succeed(shown: S, refusedByPeer?: (reason: string, detail: string) => void): void {
    if (!this.#finish() || this.socket === null) return;
    const socket = this.socket;
    socket.pause();
    const conn = new SocketConn(this.#clock, socket, this.#tcp);
    const alpn = socket.alpnProtocol || null;
    if (alpn === PILLION_ALPN && refusedByPeer !== undefined)
      conn.inspectFirst = (bytes) => {
        const note = readRefusalNote(bytes);
        if (note === null) return null;
        refusedByPeer(note.reason, note.detail);
        const message = `the far sidecar refused our certificate: ${note.reason}: ${note.detail}; its log says so too`;
        return new ConnError("IDENTITY_REFUSED", message, { blame: "operator" });
      };
    socket.off("error", this.onError);
    socket.off("close", this.onClose);
    this.#tcp.off("close", this.onClose);
    this.#done(null, { ...shown, conn, alpn });
  }

  /** `told`: the reason that a client of ours is given. */
  refuse(refusal: SecureRefusal, detail: string, told: string | null = null): void {
    if (!this.#finish()) return;
    if (told !== null && this.socket?.alpnProtocol === PILLION_ALPN) this.#tellAndDestroy(told, detail);
    else this.#destroy();
    const code =
      refusal === "wrong_identity" || refusal === "foreign_trust_domain" ? "IDENTITY_REFUSED" : "TLS_FAILED";
    this.#done({ refusal, error: new ConnError(code, `TLS with ${this.#peer} failed: ${detail}`) }, null);
  }

  cancel(): void {
    if (this.#finish()) this.#destroy();
  }

  readonly onError = (error: NodeJS.ErrnoException): void => {
    this.#lastError ??= error;
  };

  readonly onClose = (): void => {
    // The server tells why by `tlsClientError`, which Node emits after the TCP socket's own close.
    this.#clock.soon(() => {
      const verdict = this.socket?.authorizationError ?? this.#lastError;
      if (verdict === null || verdict === undefined)
        this.refuse("peer_closed", "the peer closed the connection");
      else this.refuse(refusalOf(verdict), describe(verdict));
    });
  };

  #finish(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#timer.cancel();
    return true;
  }

  /** What the client has sent meanwhile is dropped: only who reads hears of its end. */
  #tellAndDestroy(reason: string, detail: string): void {
    const socket = this.socket as TLSSocket;
    const destroy = (): void => {
      timer.cancel();
      this.#destroy();
    };
    const timer = this.#clock.after(TELL_MS, destroy);
    socket.on("data", () => undefined);
    socket.once("end", destroy);
    socket.once("close", destroy);
    socket.end(encodeRefusalNote({ reason, detail }));
  }

  /**
   * RST, so that the peer does not take the end for a clean one. Later, because the TCP socket must not go while OpenSSL
   * is calling us from inside its own work on it (Node 26 crashes).
   */
  #destroy(): void {
    this.#tcp.pause();
    this.#clock.soon(() => {
      this.#tcp.on("error", () => undefined);
      if (!this.#tcp.destroyed) this.#tcp.resetAndDestroy();
      this.socket?.destroy();
    });
  }
}

function shown(
  { peer, endsAtMs, root }: Extract<PeerProof, { kind: "proven" }>,
  ownEndsAtMs: number,
  crypto: ConnCrypto,
): Shown {
  return { peer, proof: { endsAtMs: Math.min(endsAtMs, ownEndsAtMs), root }, crypto };
}

/** A client alone is told of the group: by Node as a name of one, or as a curve's. */
function cryptoOf(socket: TLSSocket, isClient: boolean): ConnCrypto {
  const group = isClient ? (socket.getEphemeralKeyInfo() as { name?: string } | null)?.name : "";
  return { cipher: socket.getCipher().standardName, group: group === "prime256v1" ? "P-256" : (group ?? "") };
}

/** The machine's; where it has none, those that Node brings. */
function systemRoots(): string[] {
  const system = getCACertificates("system");
  return system.length > 0 ? system : getCACertificates("default");
}

function denotesSame(name: string, expected: string): boolean {
  const a = parseIdentity(name);
  const b = parseIdentity(expected);
  return a === null || b === null ? name === expected : sameIdentity(a, b);
}

function describe(cause: unknown): string {
  if (cause instanceof Error) return (cause as NodeJS.ErrnoException).code ?? cause.message;
  return String(cause);
}

/** The single certificates of a PEM text. */
export function splitPem(pem: string): string[] {
  return pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
}
