import { addressKey, parseSocketAddress, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Random } from "#/base/random.ts";
import type { Conn } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import type { Endpoint, OriginatedTls } from "#/model/endpoint.ts";
import type { Labels } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import type { Proof, SecureRefusal, SecureResult, Transport } from "#/net/transport.ts";
import { whenClosed } from "#/stack/balance/backend-bounds.ts";
import type { Cancel, DialDone, DialProtocol } from "#/stack/discovery.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { ConnLabels, isMetered, tlsLabels, type TransportMetrics } from "#/stack/metrics/transport.ts";
import type { Http2Settings } from "#/wire/http2/settings.ts";
import { encodeTransportHeader, PILLION_ALPN, TRANSPORT_ALPN } from "#/wire/transport-header.ts";
import { Proofs } from "../identity/proofs.ts";
import { Carriers } from "./carriers.ts";

export interface DiallerParts {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  readonly metrics: TransportMetrics;
  readonly connectTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
  readonly keepAliveMs: number;
  /** The pod's own addresses: an endpoint there is the application beside us and is reached in plaintext (facts §12). */
  readonly localIps: readonly IpAddress[];
  readonly random: Random;
  /** What carriers keep to beyond what they always do: how a silent server is asked whether it is alive. */
  readonly carrierMachine: Partial<Http2Settings>;
  /** Whether chains that end in this root prove anything. */
  trusts(root: string): boolean;
}

/** A server has so long to end a connection that was made for its handshake alone. */
const PROVEN_CLOSE_MS = 5000;

/** How the application beside us is spoken to: no sidecar stands before it, whatever discovery says of the pod. */
export function asUnmeshed(endpoint: Endpoint): Endpoint {
  return { ...endpoint, identity: null, protocolHint: "unknown", tunnelPort: null, authorityOverride: null };
}

/** Opens connections to endpoints: the one place that knows how a meshed endpoint is reached (facts §4, §6). */
export class Dialler {
  /** For how long servers are who they have proven to be. */
  readonly proofs: Proofs<Endpoint>;
  readonly #parts: DiallerParts;
  readonly #carriers: Carriers;
  /** Of the last stream on each carrier: the next is nearly always to the same endpoint. */
  readonly #carried = new WeakMap<
    SecureResult,
    { readonly endpoint: Endpoint; readonly labels: ConnLabels }
  >();

  constructor(parts: DiallerParts) {
    const { clock, random } = parts;
    this.#parts = parts;
    this.#carriers = new Carriers({
      clock,
      machine: parts.carrierMachine,
      secure: (endpoint, alpn, timeoutMs, done) => this.#secure(endpoint, alpn, timeoutMs, done),
      alone: (endpoint, result, done) => this.#secured(endpoint, "opaque", result, done),
      carries: (endpoint, { conn, peer, proof }) => this.#hold(endpoint, conn, peer.name, proof),
      opened: (endpoint, stream, carrier) =>
        parts.metrics.opened(stream, this.#labelsCarried(endpoint, carrier)),
    });
    this.proofs = new Proofs({
      clock,
      random,
      trusts: (root) => parts.trusts(root),
      prove: (endpoint, done) => this.#prove(endpoint, done),
    });
  }

  /** `Dial` of `#/stack/discovery.ts`, which says what the connection carries. */
  readonly dial = (
    endpoint: Endpoint,
    protocol: DialProtocol,
    done: DialDone,
    connectTimeoutMs: number | null = null,
  ): Cancel => {
    const timeoutMs = connectTimeoutMs ?? this.#parts.connectTimeoutMs;
    const { identity, originatedTls } = endpoint;
    const isLocal = this.#parts.localIps.includes(endpoint.address.ip);
    if (originatedTls === undefined && identity !== null && !isLocal) {
      if (isCarried(endpoint, protocol)) return this.#carriers.dial(endpoint, timeoutMs, done);
      return this.#secure(endpoint, alpnFor(endpoint, protocol), timeoutMs, (error, result) => {
        if (result === null) done(error, null, null);
        else this.#secured(endpoint, protocol, result, done);
      });
    }
    let current = this.#connect(endpoint, endpoint.address, timeoutMs, (error, conn) => {
      if (conn === null) done(error, null, null);
      else if (originatedTls !== undefined) {
        current = this.#originate(endpoint, originatedTls, protocol, conn, done);
      } else {
        const why = isLocal ? "loopback" : "not_provided_by_service_discovery";
        this.#parts.metrics.opened(conn, this.#labels(endpoint, tlsLabels(null, "server", why)));
        done(null, conn, null);
      }
    });
    return { cancel: () => current.cancel() };
  };

  #connect(
    endpoint: Endpoint,
    address: SocketAddress,
    timeoutMs: number,
    done: (error: ConnError | null, conn: Conn | null) => void,
  ): Cancel {
    const { transport, keepAliveMs } = this.#parts;
    return transport.connect(address, { timeoutMs, keepAliveMs }, (error, conn) => {
      if (conn === null) this.#failed(endpoint, error?.code ?? "", error);
      done(error, conn);
    });
  }

  /** Connects to the endpoint's sidecar, and has it prove itself. Failures are told of. */
  #secure(
    endpoint: Endpoint,
    alpn: readonly string[],
    connectTimeoutMs: number,
    done: (error: ConnError | null, result: SecureResult | null) => void,
  ): Cancel {
    const { transport, handshakeTimeoutMs: timeoutMs } = this.#parts;
    const { address, identity, tunnelPort } = endpoint;
    const at: SocketAddress = { ip: address.ip, port: tunnelPort ?? address.port };
    let current = this.#connect(endpoint, at, connectTimeoutMs, (error, conn) => {
      if (conn === null) {
        done(error, null);
        return;
      }
      const options = {
        serverName: identity?.serverName ?? "",
        expected: identity?.name ?? "",
        alpn,
        timeoutMs,
        isAnonymous: false,
        refusedByPeer: (reason: string, detail: string) => this.#refusedByPeer(endpoint, reason, detail),
      };
      current = transport.secureClient(conn, options, (failure, result) => {
        if (result === null) this.#failed(endpoint, failure?.refusal ?? "", failure?.error ?? null);
        done(failure?.error ?? null, result);
      });
    });
    return { cancel: () => current.cancel() };
  }

  #originate(
    endpoint: Endpoint,
    tls: OriginatedTls,
    protocol: DialProtocol,
    conn: Conn,
    done: DialDone,
  ): Cancel {
    const { handshakeTimeoutMs: timeoutMs, metrics, transport } = this.#parts;
    const alpn = OUTSIDE_ALPN[protocol];
    return transport.originateTls(conn, { tls, alpn, timeoutMs }, (failure, result) => {
      if (failure !== null || result === null) {
        this.#failed(endpoint, failure?.refusal ?? "", failure?.error ?? null);
        done(failure?.error ?? null, null, null);
      } else if (protocol === "http2" && result.alpn !== "h2") {
        result.conn.reset();
        const where = `${tls.serverName} (${addressKey(endpoint.address)})`;
        const message = `${where} agreed to no HTTP/2 by ALPN; ask it by HTTP/1.1`;
        this.#failed(endpoint, "no_alpn", null);
        done(new ConnError("TLS_FAILED", message), null, null);
      } else {
        metrics.opened(
          result.conn,
          this.#labels(endpoint, { tls: "originated", server_name: tls.serverName }),
        );
        done(null, result.conn, null);
      }
    });
  }

  #secured(endpoint: Endpoint, protocol: DialProtocol, result: SecureResult, done: DialDone): void {
    const { conn, peer, alpn, crypto, proof } = result;
    this.#parts.metrics.opened(conn, this.#labels(endpoint, tlsLabels(peer, "server", "", crypto)));
    if (isMetered(conn)) whenClosed(conn, this.#hold(endpoint, conn, peer.name, proof));
    if (alpn === null) {
      // An endpoint of a mesh without transport headers: the connection is for the port that was dialled.
      if (endpoint.tunnelPort !== null) {
        conn.reset();
        done(
          new ConnError(
            "TLS_FAILED",
            `${addressKey(endpoint.address)} agreed to no ALPN; check that a sidecar listens on port ${endpoint.tunnelPort}`,
          ),
          null,
          null,
        );
      } else done(null, conn, peer);
      return;
    }
    const override = endpoint.authorityOverride === null ? null : parseAuthority(endpoint.authorityOverride);
    conn.write(
      encodeTransportHeader({
        port: override?.port ?? endpoint.address.port,
        name: override?.host ?? null,
        protocol: protocol === "opaque" || endpoint.protocolHint === "opaque" ? null : protocol,
      }),
    );
    done(null, conn, peer, alpn === PILLION_ALPN && protocol === "http2");
  }

  /**
   * Ends the connection when its proof has, unless what is returned was called. HTTP/2, carriers too, is moved by the server (GOAWAY),
   * which reckons with the same end.
   */
  #hold(endpoint: Endpoint, conn: Conn, name: string, proof: Proof): () => void {
    const { log, registry } = this.#parts;
    const target_addr = addressKey(endpoint.address);
    return this.proofs.hold(name, endpoint.address.ip, endpoint, proof, {
      renew: () => undefined,
      expire: (detail) => {
        const error: OutboundExpiry = "expired_identity";
        registry.count(FAMILIES.outboundTcpErrors, { target_addr, error });
        log.warn("a connection to a sidecar was ended", { endpoint: target_addr, reason: error, detail });
        conn.reset();
      },
    });
  }

  /** A handshake and nothing more: it shows the server our leaf in force, and us the server's. */
  #prove(endpoint: Endpoint, done: () => void): void {
    const { clock, registry } = this.#parts;
    if (endpoint.identity === null) {
      done();
      return;
    }
    const finish = (result: "proven" | "failed"): void => {
      registry.count(FAMILIES.identityProofs, { result });
      done();
    };
    this.#secure(endpoint, alpnFor(endpoint, "opaque"), this.#parts.connectTimeoutMs, (_error, result) => {
      if (result === null) {
        finish("failed");
        return;
      }
      const { conn, peer, proof } = result;
      this.proofs.proven(peer.name, endpoint.address.ip, proof);
      const timer = clock.after(PROVEN_CLOSE_MS, () => conn.reset());
      conn.setHandler({
        onData: () => undefined,
        onEnd: () => undefined,
        onDrain: () => undefined,
        onClose: () => timer.cancel(),
      });
      conn.end();
      finish("proven");
    });
  }

  #failed(endpoint: Endpoint, reason: string, error: ConnError | null): void {
    this.#parts.registry.count(FAMILIES.outboundTcpErrors, {
      target_addr: addressKey(endpoint.address),
      error: reason,
    });
    this.#parts.log.debug("could not connect to an endpoint", {
      endpoint: addressKey(endpoint.address),
      reason,
      error,
    });
  }

  /** Our own certificate is at fault, or their trust: nothing that another attempt would mend. */
  #refusedByPeer(endpoint: Endpoint, reason: string, detail: string): void {
    const { log, registry } = this.#parts;
    const target_addr = addressKey(endpoint.address);
    const error: SecureRefusal = "refused_by_peer";
    registry.count(FAMILIES.outboundTcpErrors, { target_addr, error });
    log.warn("the far sidecar refused our certificate", { endpoint: target_addr, reason, detail });
  }

  #labelsCarried(endpoint: Endpoint, carrier: SecureResult): ConnLabels {
    const last = this.#carried.get(carrier);
    if (last?.endpoint === endpoint) return last.labels;
    const { peer, crypto } = carrier;
    const labels = this.#labels(endpoint, tlsLabels(peer, "server", "", crypto));
    this.#carried.set(carrier, { endpoint, labels });
    return labels;
  }

  #labels(endpoint: Endpoint, tls: Labels): ConnLabels {
    const labels: Record<string, string> = {
      direction: "outbound",
      peer: "dst",
      target_addr: addressKey(endpoint.address),
      ...tls,
    };
    for (const name in endpoint.labels) labels[`dst_${name}`] = endpoint.labels[name] as string;
    return new ConnLabels(labels);
  }
}

/** Why a connection that was in use was ended: a value of `error` in `outbound_tcp_errors_total`. */
type OutboundExpiry = "expired_identity";

/** What is offered to servers outside: what the application speaks. */
const OUTSIDE_ALPN: Readonly<Record<DialProtocol, readonly string[]>> = {
  http1: ["http/1.1"],
  http2: ["h2"],
  opaque: [],
};

function isOpaque(endpoint: Endpoint, protocol: DialProtocol): boolean {
  return protocol === "opaque" || endpoint.protocolHint === "opaque";
}

/** A gateway resolves names itself and is not one of ours today; without a tunnel port there are no transport headers. */
function isCarried(endpoint: Endpoint, protocol: DialProtocol): boolean {
  return isOpaque(endpoint, protocol) && endpoint.tunnelPort !== null && endpoint.authorityOverride === null;
}

/** `pillion/2` is ours alone, so Linkerd's name is offered beside it; without a header port nothing is (facts §4). */
function alpnFor(endpoint: Endpoint, protocol: DialProtocol): readonly string[] {
  if (endpoint.tunnelPort === null && endpoint.authorityOverride === null) return [];
  // A gateway resolves the name itself and is not one of ours today. Genuine HTTP/1 needs nothing that is ours.
  return protocol !== "http1" && endpoint.authorityOverride === null
    ? [PILLION_ALPN, TRANSPORT_ALPN]
    : [TRANSPORT_ALPN];
}

function parseAuthority(text: string): { host: string; port: number | null } | null {
  if (parseSocketAddress(text) !== null) return null;
  const match = /^([^:]+)(?::(\d{1,5}))?$/.exec(text);
  return match === null
    ? null
    : { host: match[1] as string, port: match[2] === undefined ? null : Number(match[2]) };
}
