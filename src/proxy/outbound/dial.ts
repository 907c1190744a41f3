import { addressKey, parseSocketAddress, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn } from "#/base/conn.ts";
import { ConnError } from "#/base/errors.ts";
import type { Endpoint, OriginatedTls } from "#/model/endpoint.ts";
import type { Labels } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import type { SecureRefusal, SecureResult, Transport } from "#/net/transport.ts";
import type { Cancel, DialDone, DialProtocol } from "#/stack/discovery.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { tlsLabels, type TransportMetrics } from "#/stack/metrics/transport.ts";
import { TunnelConn } from "#/stack/tunnel-conn.ts";
import { PILLION_ALPN } from "#/wire/opaque-frames.ts";
import { encodeTransportHeader, TRANSPORT_ALPN } from "#/wire/transport-header.ts";

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
}

/** How the application beside us is spoken to: no sidecar stands before it, whatever discovery says of the pod. */
export function asUnmeshed(endpoint: Endpoint): Endpoint {
  return { ...endpoint, identity: null, protocolHint: "unknown", tunnelPort: null, authorityOverride: null };
}

/** Opens connections to endpoints: the one place that knows how a meshed endpoint is reached (facts §4, §6). */
export class Dialler {
  readonly #parts: DiallerParts;

  constructor(parts: DiallerParts) {
    this.#parts = parts;
  }

  /** `Dial` of `#/stack/discovery.ts`, which says what the connection carries. */
  readonly dial = (
    endpoint: Endpoint,
    protocol: DialProtocol,
    done: DialDone,
    connectTimeoutMs: number | null = null,
  ): Cancel => {
    const { transport, keepAliveMs } = this.#parts;
    const timeoutMs = connectTimeoutMs ?? this.#parts.connectTimeoutMs;
    const { identity, originatedTls, tunnelPort } = endpoint;
    const isLocal = this.#parts.localIps.includes(endpoint.address.ip);
    const isPlain = identity === null || isLocal;
    const address: SocketAddress =
      isPlain || tunnelPort === null ? endpoint.address : { ip: endpoint.address.ip, port: tunnelPort };
    let current: Cancel = transport.connect(address, { timeoutMs, keepAliveMs }, (error, conn) => {
      if (error !== null || conn === null) {
        this.#failed(endpoint, error?.code ?? "", error);
        done(error, null, null);
        return;
      }
      if (originatedTls !== undefined) {
        current = this.#originate(endpoint, originatedTls, protocol, conn, done);
        return;
      }
      if (isPlain) {
        this.#parts.metrics.opened(
          conn,
          this.#labels(
            endpoint,
            tlsLabels(null, "server", isLocal ? "loopback" : "not_provided_by_service_discovery"),
          ),
        );
        done(null, conn, null);
        return;
      }
      current = transport.secureClient(
        conn,
        {
          serverName: identity.serverName,
          expected: identity.name,
          alpn: alpnFor(endpoint, protocol),
          timeoutMs: this.#parts.handshakeTimeoutMs,
          isAnonymous: false,
          refusedByPeer: (reason, detail) => this.#refusedByPeer(endpoint, reason, detail),
        },
        (failure, result) => {
          if (failure !== null || result === null) {
            this.#failed(endpoint, failure?.refusal ?? "", failure?.error ?? null);
            done(failure?.error ?? null, null, null);
          } else this.#secured(endpoint, protocol, result, done);
        },
      );
    });
    return { cancel: () => current.cancel() };
  };

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

  #secured(
    endpoint: Endpoint,
    protocol: DialProtocol,
    { conn, peer, alpn }: SecureResult,
    done: DialDone,
  ): void {
    this.#parts.metrics.opened(conn, this.#labels(endpoint, tlsLabels(peer, "server", "")));
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
    const isOpaque = protocol === "opaque" || endpoint.protocolHint === "opaque";
    conn.write(
      encodeTransportHeader({
        port: override?.port ?? endpoint.address.port,
        name: override?.host ?? null,
        protocol: isOpaque ? null : protocol,
      }),
    );
    const isOurs = alpn === PILLION_ALPN;
    const carried = isOurs && isOpaque ? new TunnelConn(this.#parts.clock, conn) : conn;
    done(null, carried, peer, isOurs && protocol === "http2");
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

  #labels(endpoint: Endpoint, tls: Labels): Labels {
    const labels: Record<string, string> = {
      direction: "outbound",
      peer: "dst",
      target_addr: addressKey(endpoint.address),
      ...tls,
    };
    for (const name in endpoint.labels) labels[`dst_${name}`] = endpoint.labels[name] as string;
    return labels;
  }
}

/** What is offered to servers outside: what the application speaks. */
const OUTSIDE_ALPN: Readonly<Record<DialProtocol, readonly string[]>> = {
  http1: ["http/1.1"],
  http2: ["h2"],
  opaque: [],
};

/** `pillion/1` is ours alone, so Linkerd's name is offered beside it; without a header port nothing is (facts §4). */
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
