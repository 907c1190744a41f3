import { addressKey, type SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { Random } from "#/base/random.ts";
import type { Labels } from "#/model/identity.ts";
import { leadsOutside, type OutboundPolicy } from "#/model/policy.ts";
import type { TcpRoute } from "#/model/route.ts";
import type { BackendTraffic } from "#/model/traffic.ts";
import type { Log } from "#/net/log.ts";
import type { Accepted } from "#/net/transport.ts";
import { looksAtRequests } from "#/stack/balance/balancer.ts";
import { detect, type ClientVerdict } from "#/stack/detection.ts";
import type { Cancel, EndpointSource, OutboundHttp } from "#/stack/discovery.ts";
import type { Guard } from "#/stack/http/guard.ts";
import { detectLabels } from "#/stack/metrics/detect-labels.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { sourceLabels } from "#/stack/metrics/source-labels.ts";
import { ConnLabels, tlsLabels, type TransportMetrics } from "#/stack/metrics/transport.ts";
import { isLoopback } from "#/stack/networks.ts";
import { pipe } from "#/stack/pipe.ts";
import { chooseTcp, findTcpRoute } from "#/stack/route/tcp.ts";
import { detectHttp } from "#/wire/detect.ts";
import { inspectClientHello, type ClientHello } from "#/wire/tls-hello.ts";
import { Connections, type Connection } from "../connections.ts";
import { answerProbe, isOutboundProbe } from "../intercept-probe.ts";
import type { MemoryGuard } from "../memory-guard.ts";
import type { Discovery, Target } from "./discovery.ts";
import type { Egress } from "./egress.ts";
import type { OpaqueDialled, OpaqueDialler } from "./opaque.ts";

export interface OutboundParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly registry: Registry;
  readonly metrics: TransportMetrics;
  readonly discovery: Discovery;
  readonly http: OutboundHttp;
  readonly opaque: OpaqueDialler;
  readonly egress: Egress;
  readonly memoryGuard: MemoryGuard;
  readonly detectTimeoutMs: number;
  readonly guard: Guard;
}

/** Every connection here is one of the workload's, in plain text. */
const WORKLOAD = new ConnLabels({
  direction: "outbound",
  peer: "src",
  ...tlsLabels(null, "client", "loopback"),
});

/** There is one client here, whatever address of the pod it uses. Where it connects from is asked for by messages alone. */
const CLIENT = "workload";

/** How long a client may be silent before its server is dialled: a little more than a client needs that speaks first. */
const PATIENCE_MS = 10;
/** … for a target whose clients always spoke first so far: saves connections that nobody would have used. */
const PATIENCE_CLIENT_FIRST_MS = 50;

/**
 * Connections from the workload:
 *
 *     accepted → original destination → discovery → protocol (known, or found out) → HTTP | opaque bytes
 */
export class Outbound {
  readonly connections: Connections;
  readonly #parts: OutboundParts;

  constructor(parts: OutboundParts) {
    const { connectionsMax: all } = parts.guard.limits;
    this.connections = new Connections({ all, perClient: all });
    this.#parts = parts;
  }

  readonly accept = ({ conn, originalDestination }: Accepted): void => {
    const { guard, memoryGuard, metrics, registry } = this.#parts;
    const limit = this.connections.limitFor(CLIENT);
    if (originalDestination !== null && !isOutboundProbe(originalDestination) && memoryGuard.refuses()) {
      // The guard has said so in the log once.
      const labels = { target_addr: addressKey(originalDestination), error: "memory_limit" };
      registry.count(FAMILIES.outboundTcpErrors, labels);
      conn.reset();
      return;
    }
    metrics.opened(conn, WORKLOAD);
    if (originalDestination === null) {
      this.#refuse(
        conn,
        null,
        "no_original_destination",
        "the connection was not intercepted; connect to the service itself, not to the sidecar's port",
      );
    } else if (isOutboundProbe(originalDestination)) {
      answerProbe(conn);
    } else if (limit !== null) {
      guard.reached(limit);
      this.#refuse(conn, originalDestination, "too_many_connections", `the bound on ${limit} is reached`);
    } else if (isLoopback(originalDestination.ip)) {
      this.#refuse(conn, originalDestination, "loop", "loopback addresses are never proxied");
    } else new OutboundConnection(this.#parts, this.connections, conn, originalDestination, this.#refuse);
  };

  readonly #refuse = (conn: Conn, target: SocketAddress | null, reason: string, message: string): void => {
    const { log, registry } = this.#parts;
    registry.count(FAMILIES.outboundTcpErrors, {
      target_addr: target === null ? "" : addressKey(target),
      error: reason,
    });
    log.warn("outbound connection refused", {
      client: addressKey(conn.remote),
      target: target === null ? null : addressKey(target),
      reason,
      detail: message,
    });
    conn.reset();
  };
}

type Refuse = (conn: Conn, target: SocketAddress | null, reason: string, message: string) => void;

/** One connection until it is handed to HTTP or to a pipe. Until then it notices when the client goes away. */
class OutboundConnection implements ConnHandler {
  readonly #parts: OutboundParts;
  readonly #client: Conn;
  readonly #address: SocketAddress;
  readonly #refuse: Refuse;
  readonly #connection: Connection;
  #step: Cancel;
  #target: Target | null = null;
  #isTls = false;
  /** What the workload's own TLS asks for; null without TLS or a name. */
  #serverName: string | null = null;

  constructor(
    parts: OutboundParts,
    connections: Connections,
    client: Conn,
    address: SocketAddress,
    refuse: Refuse,
  ) {
    this.#parts = parts;
    this.#client = client;
    this.#address = address;
    this.#refuse = refuse;
    this.#connection = connections.add(CLIENT, () => client.reset());
    client.pause();
    client.setHandler(this);
    this.#step = parts.discovery.lookup(address, (lookup) => {
      if (lookup.kind === "failed") this.#fail(lookup.reason, lookup.message);
      else this.#found(lookup.target);
    });
  }

  onData(): void {}
  onEnd(): void {}
  onDrain(): void {}
  onClose(): void {
    this.#step.cancel();
    this.#close();
  }

  #found(target: Target): void {
    this.#target = target;
    const { protocol } = target.policy;
    if (protocol === "http1") this.#serve(target, "http1", null);
    else if (protocol === "http2" || protocol === "grpc") this.#serve(target, "http2", null);
    else if (protocol === "opaque") this.#dialOpaque(target);
    else {
      const way = this.#wayOf(target);
      const isByName = asksForName(target.policy);
      if (way.source?.endpoints[0]?.protocolHint === "opaque" && !isByName) this.#dial(way.source, way);
      else if (protocol === "tls" && way.source === null && !isByName) this.#dialOpaque(target);
      else this.#detect(target, isByName && protocol === "tls" ? null : way);
    }
  }

  /** Where the connection goes as bytes, as far as is known of it. */
  #wayOf(target: Target): Way {
    const { policy, authority } = target;
    const choice = chooseTcp(
      policy.tcp,
      this.#serverName,
      authority,
      (backend) => (target.sourceOf(backend)?.endpoints.length ?? 0) > 0,
      this.#parts.random,
    );
    if (choice.kind === "refused") return { ...choice, route: null, source: null, traffic: null };
    const source = target.sourceOf(choice.backend);
    const { backend } = choice;
    const traffic = backend.kind === "forbidden" ? null : backend.traffic;
    if (source !== null) return { reason: "", message: "", route: choice.route, source, traffic };
    const message = `${authority} has more backends than are followed`;
    return { reason: "no_backend", message, route: choice.route, source, traffic };
  }

  /** `early`: where it is dialled if the client is silent; null: nowhere before its first bytes are there. */
  #detect(target: Target, early: Way | null): void {
    const { clock, detectTimeoutMs, opaque, registry } = this.#parts;
    const { policy } = target;
    const source = early?.source ?? null;
    // A target of TLS is asked for its server name alone.
    const { protocol } = policy;
    let hello: ClientHello = { kind: "incomplete" };
    this.#step = detect<OpaqueDialled>(
      {
        clock,
        client: this.#client,
        patienceMs:
          target.learned === "server"
            ? 0
            : target.learned === "client"
              ? PATIENCE_CLIENT_FIRST_MS
              : PATIENCE_MS,
        timeoutMs: detectTimeoutMs,
        inspect: (bytes): ClientVerdict => {
          hello = inspectClientHello(bytes);
          if (hello.kind === "hello") return "tls";
          if (hello.kind === "incomplete") return "more";
          return protocol === "tls" ? "opaque" : detectHttp(bytes);
        },
        isDialOptional: !this.#goesStraight(target, source),
        // Where there was no endpoint yet, nobody could say so before.
        isOpaque: ({ endpoint }) => endpoint.protocolHint === "opaque" && !asksForName(policy),
        dial: source === null ? null : (done) => opaque.dial(source, early?.traffic ?? null, done),
      },
      (detected) => {
        if (detected.kind === "client-gone") {
          this.#close();
          return;
        }
        if (detected.kind === "dial-failed") {
          this.#failDial(detected.error);
          return;
        }
        const { kind, dialled, decidedBy } = detected;
        if (decidedBy === "client" || decidedBy === "server") target.learned = decidedBy;
        registry.count(FAMILIES.outboundDetectResults, detectLabels(kind, decidedBy));
        if (hello.kind === "hello") {
          this.#serverName = hello.sni;
          this.#isTls = true;
        }
        if (kind === "http1" || kind === "http2")
          this.#serve(target, kind, this.#keepForHttp(target, source, dialled));
        else if (dialled !== null && this.#isStill(target, early))
          this.#pipe(dialled, this.#routeSeries(early?.route ?? null));
        else {
          if (dialled !== null) discard(dialled);
          this.#dialOpaque(target);
        }
      },
    );
  }

  /**
   * A connection that was opened before HTTP was found out serves the first request, if requests go nowhere else. Not where a far
   * sidecar stands behind it: that one was promised bytes, and would neither count nor authorize what it must take for HTTP.
   */
  #keepForHttp(
    target: Target,
    source: EndpointSource | null,
    dialled: OpaqueDialled | null,
  ): OpaqueDialled | null {
    if (dialled === null) return null;
    if (dialled.peer === null && this.#goesStraight(target, source)) return dialled;
    discard(dialled);
    return null;
  }

  /** Whether all requests go where bytes go, and any endpoint there will do. */
  #goesStraight(target: Target, source: EndpointSource | null): boolean {
    const backend = target.table.straight;
    if (backend === null) return false;
    const traffic = backend.kind === "forbidden" ? null : backend.traffic;
    return target.sourceOf(backend) === source && (traffic === null || !looksAtRequests(traffic));
  }

  /** Whether the server name that came meanwhile leaves it to the route that it was dialled for. */
  #isStill({ policy }: Target, early: Way | null): boolean {
    return early === null || findTcpRoute(policy.tcp, this.#serverName) === early.route;
  }

  #serve(target: Target, version: "http1" | "http2", dialled: OpaqueDialled | null): void {
    this.#client.resume();
    dialled?.conn.resume();
    const serving = this.#parts.http.serve(this.#client, version, target, dialled, () => {
      dialled?.release();
      this.#close();
    });
    this.#connection.serve(serving, false);
  }

  #dialOpaque(target: Target): void {
    const way = this.#wayOf(target);
    if (way.source === null) {
      this.#judge(target);
      const asked = this.#serverName === null ? "" : `; server name ${JSON.stringify(this.#serverName)}`;
      this.#fail(way.reason, `${way.message}${asked}`);
    } else this.#dial(way.source, way);
  }

  #dial(source: EndpointSource, { route, traffic }: Way): void {
    const labels = this.#routeSeries(route);
    this.#client.pause();
    this.#client.setHandler(this);
    this.#step = this.#parts.opaque.dial(source, traffic, (error, dialled) => {
      if (dialled === null) this.#failDial(error);
      else this.#pipe(dialled, labels);
    });
  }

  /** Labels of a connection that a route took; null for what goes to a target without routes. */
  #routeSeries(route: TcpRoute | null): Labels | null {
    const target = this.#target;
    if (target === null || route === null || route.source.kind === "default") return null;
    return {
      ...sourceLabels("parent", target.policy.source),
      ...sourceLabels("route", route.source),
      target_ip: target.address.ip,
      target_port: String(target.address.port),
    };
  }

  #pipe(dialled: OpaqueDialled, labels: Labels | null): void {
    const { log, metrics, registry } = this.#parts;
    if (this.#target !== null) this.#judge(this.#target);
    if (this.#isTls) metrics.passedTls("outbound", this.#address.port, this.#serverName);
    if (labels !== null) registry.count(FAMILIES.outboundTcpRouteOpen, labels);
    pipe(this.#client, dialled.conn, (error, side) => {
      dialled.release();
      if (labels !== null)
        registry.count(FAMILIES.outboundTcpRouteClose, {
          ...labels,
          error: error === null ? "" : "unexpected",
        });
      if (error !== null && log.isDebug) {
        log.debug("opaque connection broke", {
          target: addressKey(this.#address),
          endpoint: addressKey(dialled.endpoint.address),
          serverName: this.#serverName,
          side: side === "a" ? "application" : "endpoint",
          error,
        });
      }
      this.#close();
    });
  }

  /** What an EgressPolicy says of the connection, if it goes outside. */
  #judge({ policy }: Target): void {
    if (!leadsOutside(policy.source)) return;
    const route = findTcpRoute(policy.tcp, this.#serverName);
    if (route !== null) this.#parts.egress.connection(route.source, this.#address, this.#serverName);
  }

  #failDial(error: ConnError | null): void {
    this.#fail((error?.code ?? "CONNECT_FAILED").toLowerCase(), error?.message ?? "no connection");
  }

  #fail(reason: string, message: string): void {
    this.#refuse(this.#client, this.#address, reason, message);
    this.#close();
  }

  #close(): void {
    this.#connection.remove();
    this.#target?.release();
    this.#target = null;
  }
}

/** Where a connection goes as bytes; `source` null: nowhere, and why. */
interface Way {
  readonly route: TcpRoute | null;
  readonly source: EndpointSource | null;
  readonly traffic: BackendTraffic | null;
  readonly reason: string;
  readonly message: string;
}

/** Where a connection goes depends on the server name that its TLS asks for. */
function asksForName({ tcp }: OutboundPolicy): boolean {
  return tcp.some(({ serverNames }) => serverNames.length > 0);
}

function discard(dialled: OpaqueDialled): void {
  dialled.conn.reset();
  dialled.release();
}
