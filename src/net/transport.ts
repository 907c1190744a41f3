import type { SocketAddress } from "#/base/address.ts";
import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { OriginatedTls } from "#/model/endpoint.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { Cancel } from "#/stack/discovery.ts";

/**
 * Everything a sidecar does with the network: one implementation over Node's sockets (`node-transport.ts`), one in
 * memory on virtual time for simulated meshes. Callbacks are never called from inside the method that took them, and
 * never after `cancel`.
 */
export interface Transport {
  connect(
    to: SocketAddress,
    options: ConnectOptions,
    done: (error: ConnError | null, conn: Conn | null) => void,
  ): Cancel;
  listen(
    at: SocketAddress,
    accept: (accepted: Accepted) => void,
    options?: ListenerOptions,
  ): Promise<Listener>;
  /** Turns a fresh outbound connection into a TLS one. The connection given is used up, also on failure. */
  secureClient(conn: Conn, options: SecureClientOptions, done: SecureDone): Cancel;
  /** As `secureClient`, to a server outside of the mesh: no certificate is shown, and the server has a name and no identity. */
  originateTls(conn: Conn, options: OriginateOptions, done: OriginateDone): Cancel;
  /** Turns a fresh inbound connection, whose ClientHello has been put back by `unread`, into a TLS one. */
  secureServer(conn: Conn, options: SecureServerOptions, done: SecureDone): Cancel;
}

export interface ConnectOptions {
  readonly timeoutMs: number;
  /** TCP keep-alive after so much silence; 0 = off. */
  readonly keepAliveMs: number;
}

export interface ListenerOptions {
  /** What comes is TLS for us as a rule, which is looked at first: better left where it is until it is read. */
  readonly takesTls?: boolean;
}

export interface Accepted {
  readonly conn: Conn;
  /** What the connection was meant for. Null: it was not intercepted, or the contract failed. */
  readonly originalDestination: SocketAddress | null;
}

export interface Listener {
  readonly address: SocketAddress;
  /** Stops accepting; accepted connections go on. */
  close(): void;
}

export interface SecureClientOptions {
  readonly serverName: string;
  /** Whom the server must prove to be: a DNS or SPIFFE name, compared as an identity. */
  readonly expected: string;
  /** In order of preference; empty = none offered. */
  readonly alpn: readonly string[];
  readonly timeoutMs: number;
  /** Present no certificate: only for asking for the first one. */
  readonly isAnonymous: boolean;
  /**
   * The far side has refused us, and said why: as a rule after `done`, for a client takes itself for connected before the server has
   * looked at its certificate (RFC 8446 §2). The connection ends by itself. `reason` is the far side's word, printable.
   */
  readonly refusedByPeer?: (reason: string, detail: string) => void;
}

export interface OriginateOptions {
  readonly tls: OriginatedTls;
  /** In order of preference; empty = none offered. */
  readonly alpn: readonly string[];
  readonly timeoutMs: number;
}

export type OriginateDone = (
  error: SecureError | null,
  result: { readonly conn: Conn; readonly alpn: string | null } | null,
) => void;

export interface SecureServerOptions {
  /** What may be agreed on; empty = no ALPN is spoken here. With names, a client must agree to one of them. */
  readonly alpn: readonly string[];
  readonly timeoutMs: number;
}

/** What protects a connection, in the words of TLS (RFC 8446 §B.4, §4.2.7). */
export interface ConnCrypto {
  readonly cipher: string;
  /** Group of the key exchange; "" on the server's side, which Node does not tell. */
  readonly group: string;
}

/** For how long a handshake proves its two sides to each other. */
export interface Proof {
  /** Wall-clock end of the first certificate, of either side's chain, that ends. */
  readonly endsAtMs: number;
  /** The root that the peer's chain ends in: with it no longer trusted nothing is proven any more. */
  readonly root: string;
}

/** `reason` is for metrics and logs: a closed set of short words. */
export interface SecureResult {
  readonly conn: Conn;
  readonly peer: PeerIdentity;
  readonly proof: Proof;
  readonly crypto: ConnCrypto;
  /** Agreed ALPN, or null. */
  readonly alpn: string | null;
}
export type SecureDone = (error: SecureError | null, result: SecureResult | null) => void;

/** Why a TLS connection was not made. A closed set: it becomes a metric's label. */
export type SecureRefusal =
  | "no_certificate_yet" // this sidecar has not been given its own certificate
  | "handshake_timeout"
  | "handshake_failed"
  | "peer_closed"
  | "refused_by_peer" // it took our certificate for no good one
  | "no_client_certificate"
  | "self_signed"
  | "unknown_issuer"
  | "expired"
  | "not_yet_valid"
  | "bad_certificate"
  | "resumed_session"
  | "no_alpn"
  | "foreign_alpn"
  | "old_tls"
  | "unnamed_peer" // no SAN that says who it is
  | "ambiguous_name" // SANs that say more than one who
  | "signing_certificate" // a CA's, which proves nobody
  | "foreign_trust_domain"
  | "wrong_identity"; // not whom we dialled

export interface SecureError {
  readonly refusal: SecureRefusal;
  readonly error: ConnError;
}
