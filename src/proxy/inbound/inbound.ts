import { addressKey, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { Clock } from "#/base/clock.ts";
import type { Conn, ConnHandler } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { Log } from "#/net/log.ts";
import type { Accepted, SecureResult, Transport } from "#/net/transport.ts";
import type { AccessDecision } from "#/model/access.ts";
import { accessRulesOf } from "#/stack/access/decide.ts";
import { reachOf } from "#/stack/access/what-if.ts";
import { ServerCarrier } from "#/stack/carrier/server-carrier.ts";
import { detect, type ClientVerdict, type DecidedBy, type Dialled } from "#/stack/detection.ts";
import type { Cancel, HttpServing, InboundHttp } from "#/stack/discovery.ts";
import type { Guard } from "#/stack/http/guard.ts";
import { asksForTokens, needsOf } from "#/stack/jwt/port-tokens.ts";
import { detectLabels } from "#/stack/metrics/detect-labels.ts";
import { FAMILIES } from "#/stack/metrics/families.ts";
import type { Registry } from "#/stack/metrics/registry.ts";
import { ConnLabels, tlsLabels, type TransportMetrics } from "#/stack/metrics/transport.ts";
import { pipe } from "#/stack/pipe.ts";
import { detectHttp } from "#/wire/detect.ts";
import { inspectClientHello, type ClientHello } from "#/wire/tls-hello.ts";
import {
  PILLION_ALPN,
  TRANSPORT_ALPN,
  TransportHeaderReader,
  type TransportHeader,
} from "#/wire/transport-header.ts";
import { Connections, type Connection } from "../connections.ts";
import { answerProbe, isInboundProbe } from "../intercept-probe.ts";
import type { Proofs } from "../identity/proofs.ts";
import type { MemoryGuard } from "../memory-guard.ts";
import { namedRule, type AccessRecord } from "./access-record.ts";
import { dialApplication } from "./application.ts";
import type { Port, Ports } from "./ports.ts";
import { clientOf, Refusals, type InboundRefusal } from "./refusals.ts";

export interface InboundParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  readonly metrics: TransportMetrics;
  readonly transport: Transport;
  readonly ports: Ports;
  readonly http: InboundHttp;
  readonly memoryGuard: MemoryGuard;
  /** For how long peers are who they have proven to be. */
  readonly proofs: Proofs<null>;
  /** Our own identity: the only server name that we answer to. */
  readonly localName: string;
  /** The pod's addresses; empty = any (facts §2.2 INBOUND_IPS). */
  readonly localIps: readonly IpAddress[];
  /** Our own inbound port: connections to it are direct ones. */
  readonly inboundPort: number;
  readonly connectTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
  /** For the ClientHello and the transport header, and for a protocol that nobody tells. */
  readonly detectTimeoutMs: number;
  readonly guard: Guard;
  readonly access: AccessRecord;
}

/** As for outbound: how long a silent client may be one that waits for the server to speak. */
const PATIENCE_MS = 10;
const PLAIN_ALPN: readonly string[] = [];
const DIRECT_ALPN: readonly string[] = [PILLION_ALPN, TRANSPORT_ALPN];

/**
 * Connections to the workload:
 *
 *     accepted → own port:   mutual TLS → transport header ──▶ that port's policy → HTTP | opaque bytes
 *                                                           └▶ carrier → each stream: that port's policy → opaque bytes
 *              → any other:  that port's policy → TLS for us? protocol? ───────────▶ HTTP | opaque bytes
 */
export class Inbound {
  readonly connections: Connections;
  readonly #parts: InboundParts;
  readonly #refusals: Refusals;

  constructor(parts: InboundParts) {
    const { connectionsMax: all, connectionsPerClientMax: perClient } = parts.guard.limits;
    this.connections = new Connections({ all, perClient });
    this.#parts = parts;
    this.#refusals = new Refusals(parts.log, parts.registry);
  }

  readonly accept = ({ conn, originalDestination }: Accepted): void => {
    const { guard, localIps } = this.#parts;
    const limit = this.connections.limitFor(conn.remote.ip);
    const refuse = (reason: InboundRefusal, detail: string): void => {
      this.#refusals.refuse(conn, clientOf(conn), originalDestination?.port ?? 0, reason, detail);
    };
    // Its client reset it before it was accepted. The kernel says no more who that was, so that no rule could judge what it has sent.
    if (conn.remote.port === 0) this.#refusals.turnAway(conn, originalDestination?.port ?? 0, "client_gone");
    else if (originalDestination === null)
      refuse("no_original_destination", "the connection was not intercepted");
    else if (localIps.length > 0 && !localIps.includes(originalDestination.ip)) {
      refuse(
        "not_local_address",
        `${originalDestination.ip} is none of this pod's addresses (${localIps.join(", ")})`,
      );
    } else if (isInboundProbe(originalDestination)) answerProbe(conn);
    else if (limit !== null) {
      guard.reached(limit);
      refuse("too_many_connections", `the bound on ${limit} is reached`);
    } else if (this.#parts.memoryGuard.refuses())
      this.#refusals.turnAway(conn, originalDestination.port, "memory_limit");
    else {
      const { connections } = this;
      new InboundConnection(this.#parts, this.#refusals, connections, conn, originalDestination, null);
    }
  };
}

/** A connection to the application that detection had to open early. */
interface EarlyDialled extends Dialled {
  readonly conn: Conn;
}

const UNKNOWN = new ConnLabels({});

/** One connection until it is handed to HTTP or to a pipe. */
class InboundConnection implements ConnHandler {
  readonly #parts: InboundParts;
  readonly #refusals: Refusals;
  readonly #connection: Connection;
  readonly #client: string;
  readonly #clientAddress: SocketAddress;
  readonly #isDirect: boolean;
  readonly #connections: Connections;
  /** The client's connection, then the TLS connection on it; or a stream of a carrier. */
  #conn: Conn;
  #target: SocketAddress;
  #peer: PeerIdentity | null = null;
  #serving: HttpServing | null = null;
  /** Says that the peer's proof is needed no more. */
  #unproven: (() => void) | null = null;
  #port: Port | null = null;
  #early: EarlyDialled | null = null;
  /** Of an opaque connection that was held back until then. */
  #hasSpoken = false;
  /** Of a carrier: what its streams lead to. */
  readonly #carried = new Set<InboundConnection>();
  readonly #carrier: InboundConnection | null;
  /** Of its bytes' counters, once the peer is proven. */
  #labels = UNKNOWN;
  #step: Cancel = NOTHING;
  #isClosed = false;

  /** `carrier`: what `conn` is a stream of; null where it is a connection of its own. */
  constructor(
    parts: InboundParts,
    refusals: Refusals,
    connections: Connections,
    conn: Conn,
    target: SocketAddress,
    carrier: InboundConnection | null,
  ) {
    this.#parts = parts;
    this.#refusals = refusals;
    this.#connections = connections;
    this.#carrier = carrier;
    this.#conn = conn;
    this.#target = target;
    this.#client = clientOf(conn);
    this.#clientAddress = conn.remote;
    this.#isDirect = carrier !== null || target.port === parts.inboundPort;
    this.#connection = connections.add(conn.remote.ip, () => {
      this.#step.cancel();
      this.#conn.reset();
      // Whoever has the connection for a step that was cancelled says no more.
      this.#close();
    });
    conn.pause();
    conn.setHandler(this);
    if (carrier !== null) {
      carrier.#carried.add(this);
      this.#peer = carrier.#peer;
      this.#direct({ port: target.port, name: null, protocol: null }, false);
    } else if (this.#isDirect) this.#step = this.#expectHello();
    else this.#step = this.#lookupPort((port) => this.#redirected(port));
  }

  // While a step is under way the connection is paused; only its end matters.
  onData(): void {}
  onEnd(): void {}
  onDrain(): void {}
  onClose(): void {
    this.#step.cancel();
    this.#close();
  }

  #lookupPort(found: (port: Port) => void): Cancel {
    return this.#parts.ports.lookup(this.#target.port, (port) => {
      if (port === null) {
        this.#refuse("too_many_ports", "connections to too many undeclared ports at once");
        return;
      }
      this.#port = port;
      found(port);
    });
  }

  // --- direct: mutual TLS and a transport header are required -------------------------------------------------

  #expectHello(): Cancel {
    let hello: ClientHello = { kind: "incomplete" };
    return detect<EarlyDialled>(
      {
        clock: this.#parts.clock,
        client: this.#conn,
        patienceMs: this.#parts.detectTimeoutMs,
        timeoutMs: this.#parts.detectTimeoutMs,
        inspect: (bytes): ClientVerdict => {
          hello = inspectClientHello(bytes);
          return hello.kind === "incomplete" ? "more" : hello.kind === "hello" ? "tls" : "opaque";
        },
        dial: null,
      },
      (detected) => {
        if (detected.kind === "client-gone") this.#close();
        else if (detected.kind === "dial-failed") this.#refuse("connect_failed", detected.error.message);
        else if (detected.decidedBy === "timeout")
          this.#refuse("detect_timeout", "no TLS ClientHello came in time");
        else if (hello.kind !== "hello")
          this.#refuse("not_tls", "this port takes mutual TLS between sidecars only");
        else if (hello.sni !== this.#parts.localName)
          this.#refuse(
            "wrong_sni",
            `asked for ${hello.sni ?? "nobody"}, but this is ${this.#parts.localName}`,
          );
        else if (hello.alpn.length === 0)
          this.#refuse("no_alpn", `no ALPN was offered; ${DIRECT_ALPN.join(" or ")} is needed here`);
        else if (!hello.alpn.some((name) => DIRECT_ALPN.includes(name)))
          this.#refuse("foreign_alpn", `${hello.alpn.join(", ")} is not spoken here`);
        else if (hello.resumes)
          this.#refuse("resumed_session", "a session was offered for resumption; show a certificate instead");
        else this.#secure(DIRECT_ALPN, (result) => this.#expectHeader(result));
      },
    );
  }

  #secure(alpn: readonly string[], secured: (result: SecureResult) => void): void {
    const { transport, handshakeTimeoutMs: timeoutMs, proofs } = this.#parts;
    this.#conn.resume();
    this.#step = transport.secureServer(this.#conn, { alpn, timeoutMs }, (failure, result) => {
      if (result === null) {
        this.#refusals.refuse(
          null,
          this.#client,
          this.#target.port,
          failure?.refusal ?? "handshake_failed",
          failure?.error.message ?? "",
        );
        this.#close();
        return;
      }
      this.#conn = result.conn;
      this.#peer = result.peer;
      this.#labels = new ConnLabels({
        direction: "inbound",
        peer: "src",
        target_addr: addressKey(this.#target),
        ...tlsLabels(result.peer, "client", "", result.crypto),
      });
      this.#unproven = proofs.hold(result.peer.name, this.#clientAddress.ip, null, result.proof, {
        renew: () => this.#serving?.drain(),
        expire: (detail) => this.#expire(detail),
      });
      secured(result);
    });
  }

  #expectHeader({ conn, alpn }: SecureResult): void {
    const { clock, detectTimeoutMs } = this.#parts;
    const reader = new TransportHeaderReader();
    const timer = clock.after(detectTimeoutMs, () =>
      this.#refuse("no_transport_header", "no transport header came in time"),
    );
    this.#step = timer;
    let isDone = false;
    let hasSpoken = false;
    conn.setHandler({
      onData: (bytes) => {
        if (isDone) return;
        hasSpoken = true;
        const found = reader.feed(bytes);
        if (found.kind === "incomplete") return;
        isDone = true;
        timer.cancel();
        conn.pause();
        if (found.kind === "error") {
          this.#refuse("bad_transport_header", found.error.message);
          return;
        }
        conn.unread(found.rest);
        conn.setHandler(this);
        const { name, protocol } = found.header;
        const isOurs = alpn === PILLION_ALPN;
        if (isOurs && protocol === null && name === null) this.#carry();
        else {
          this.#parts.metrics.opened(conn, this.#labels);
          this.#direct(found.header, isOurs);
        }
      },
      onEnd: () => {
        if (isDone) return;
        if (alpn === PILLION_ALPN && !hasSpoken) {
          // It came to prove itself anew, for what it has open already (docs/decisions/0018-long-connections.md).
          timer.cancel();
          conn.end();
          this.#close();
        } else
          this.#refuse("no_transport_header", "the peer ended the connection before its transport header");
      },
      onDrain: () => undefined,
      onClose: () => this.onClose(),
    });
  }

  /** `isOurs`: the peer is a sidecar of this project and agreed to `pillion/2`. */
  #direct({ port: number, name, protocol }: TransportHeader, isOurs: boolean): void {
    const { registry, inboundPort } = this.#parts;
    registry.count(FAMILIES.transportHeaderConnections, {
      session_protocol: protocol === null ? "" : protocol === "http2" ? "http/2" : "http/1",
      target_port: String(number),
      target_name: name ?? "",
      client_id: this.#peer?.name ?? "",
    });
    if (name !== null) {
      this.#refuse("no_gateway", `asked for ${name}; this sidecar is no gateway`);
      return;
    }
    if (number === inboundPort) {
      this.#refuse("loop", "the transport header names our own inbound port");
      return;
    }
    this.#target = { ip: this.#target.ip, port: number };
    this.#step = this.#lookupPort(() => {
      if (protocol !== null) {
        this.#serve(protocol, true, isOurs);
        return;
      }
      this.#forward();
    });
  }

  // --- direct: streams of opaque connections -------------------------------------------------------------------

  /** The peer is a sidecar of this project: each stream is a connection with a target, a permission and an end of its own. */
  #carry(): void {
    const { clock, guard } = this.#parts;
    this.#conn.resume();
    const carrier = new ServerCarrier(this.#conn, clock, guard, {
      opened: (stream, target) => this.#accept(stream, target),
      refused: (detail) =>
        this.#refusals.refuse(null, this.#client, this.#target.port, "bad_transport_header", detail),
      closed: () => this.#close(),
    });
    this.#serving = carrier;
    this.#connection.serve(carrier, false);
  }

  /** As `Inbound.accept`, one level up. The port counts: a NAT in between may have given us another address. */
  #accept(stream: Conn, target: SocketAddress): void {
    const { guard, memoryGuard, metrics } = this.#parts;
    const limit = this.#connections.limitFor(this.#clientAddress.ip);
    const refuse = (reason: InboundRefusal, detail: string): void =>
      this.#refusals.refuse(stream, this.#client, target.port, reason, detail);
    if (limit !== null) {
      guard.reached(limit);
      refuse("too_many_connections", `the bound on ${limit} is reached`);
    } else if (memoryGuard.refuses()) this.#refusals.turnAway(stream, target.port, "memory_limit");
    else {
      metrics.opened(stream, this.#labels);
      const at = { ip: this.#target.ip, port: target.port };
      new InboundConnection(this.#parts, this.#refusals, this.#connections, stream, at, this);
    }
  }

  /** Nobody has proven anew who the peer is. Of a carrier that is told for each connection on it. */
  #expire(detail: string): void {
    const carried = [...this.#carried];
    for (const one of carried) one.#refuse("expired_identity", detail);
    if (carried.length === 0) this.#refuse("expired_identity", detail);
    else {
      this.#conn.reset();
      this.#close();
    }
  }

  // --- redirected: whatever comes to one of the workload's ports ----------------------------------------------

  #redirected(port: Port): void {
    if (port.policy.protocol === "opaque") {
      // Facts §5: an opaque port never looks for TLS.
      this.#meterPlain("port_skipped");
      this.#forward();
      return;
    }
    let hello: ClientHello = { kind: "incomplete" };
    let hasSpoken = false;
    this.#detect(
      (bytes) => {
        hasSpoken = true;
        hello = inspectClientHello(bytes);
        if (hello.kind === "incomplete") return "more";
        if (hello.kind === "hello") return "tls";
        return this.#plainVerdict(bytes);
      },
      (kind, decidedBy) => {
        if (decidedBy === "timeout" && hasSpoken && hello.kind === "incomplete") {
          this.#refuse("detect_timeout", "a TLS ClientHello was begun and not finished in time");
        } else if (kind !== "tls" || hello.kind !== "hello") {
          this.#meterPlain("no_tls_from_remote");
          this.#plain(kind);
        } else if (hello.sni !== this.#parts.localName) {
          // The workload's own TLS: passed on untouched.
          this.#meterPlain("no_tls_from_remote");
          this.#parts.metrics.passedTls("inbound", this.#target.port, hello.sni);
          this.#forward();
        } else if (hello.alpn.length > 0 && !hello.alpn.some((name) => DIRECT_ALPN.includes(name))) {
          this.#refuse("foreign_alpn", `${hello.alpn.join(", ")} is not spoken here`);
        } else if (hello.resumes) {
          this.#refuse("resumed_session", "a session was offered for resumption; show a certificate instead");
        } else {
          this.#secure(PLAIN_ALPN, ({ conn }) => {
            this.#parts.metrics.opened(conn, this.#labels);
            this.#securedRedirected(port);
          });
        }
      },
    );
  }

  /** What a plaintext client's bytes say, where the policy leaves it open. */
  #plainVerdict(bytes: Uint8Array): ClientVerdict {
    switch (this.#port?.policy.protocol) {
      case "http1":
        return "http1";
      case "http2":
      case "grpc":
        return "http2";
      case "tls":
        return "opaque";
      default:
        return detectHttp(bytes);
    }
  }

  #plain(kind: "http1" | "http2" | "opaque" | "tls"): void {
    if (kind === "http1" || kind === "http2") this.#serve(kind, false, false);
    else this.#forward();
  }

  /** A peer that dialled the port itself: no header, so HTTP has to be found out (facts §5 step 6). */
  #securedRedirected(port: Port): void {
    const { protocol } = port.policy;
    if (protocol === "http2" || protocol === "grpc") this.#serve("http2", false, false);
    else if (protocol === "tls") this.#forward();
    else
      this.#detect(
        (bytes) => detectHttp(bytes),
        (kind) => this.#plain(kind),
      );
  }

  #detect(
    inspect: (bytes: Uint8Array) => ClientVerdict,
    decided: (kind: "http1" | "http2" | "opaque" | "tls", decidedBy: DecidedBy) => void,
  ): void {
    const { clock, detectTimeoutMs, registry } = this.#parts;
    // The workload must not be reached, not even for its greeting, by a client that may not use the port.
    const mayDial = this.#port !== null && this.#decide(this.#port).verdict === "allowed";
    this.#step = detect<EarlyDialled>(
      {
        clock,
        client: this.#conn,
        patienceMs: PATIENCE_MS,
        timeoutMs: detectTimeoutMs,
        inspect,
        dial: mayDial
          ? (done) => this.#dial((error, conn) => done(error, conn === null ? null : { conn }))
          : null,
      },
      (detected) => {
        if (detected.kind === "client-gone") this.#close();
        else if (detected.kind === "dial-failed") this.#refuseDial(detected.error);
        else {
          this.#early = detected.dialled ?? this.#early;
          registry.count(FAMILIES.inboundDetectResults, detectLabels(detected.kind, detected.decidedBy));
          decided(detected.kind, detected.decidedBy);
        }
      },
    );
  }

  // --- what both lead to ----------------------------------------------------------------------------------------

  #serve(version: "http1" | "http2", isAnnounced: boolean, isOurs: boolean): void {
    const { http } = this.#parts;
    const port = this.#port;
    if (port === null) return;
    this.#conn.resume();
    const early = this.#early?.conn ?? null;
    this.#early = null;
    early?.resume();
    const serving = http.serve(
      this.#conn,
      version,
      {
        target: this.#target,
        client: this.#clientAddress,
        peer: this.#peer,
        port,
        announced: isAnnounced,
        spells: isOurs && version === "http2",
        early,
      },
      () => this.#close(),
    );
    this.#serving = serving;
    // A sidecar's connection carries many clients' requests, and its next could not come in.
    this.#connection.serve(serving, version === "http1");
  }

  #forward(): void {
    const port = this.#port;
    if (port === null) return;
    const decision = this.#decide(port);
    if (decision.verdict !== "allowed") {
      if (this.#mayStaySilent(port)) this.#awaitWord();
      else {
        this.#tell(decision, port);
        this.#refuse("unauthorized", this.#refusalOf(decision, port));
      }
      return;
    }
    if (this.#early === null) {
      this.#conn.pause();
      this.#conn.setHandler(this);
    }
    this.#step = this.#dial((error, app) => {
      if (app === null) this.#refuseDial(error);
      else this.#pipe(app, port, decision);
    });
  }

  /**
   * Another sidecar opens a connection for a client that is slow to begin, and drops it once a request comes (decision 6). Where
   * requests of that client may be allowed, it is nothing to be refused for, as long as nothing is said on it.
   */
  #mayStaySilent({ policy }: Port): boolean {
    if (!this.#isDirect || this.#hasSpoken) return false;
    const client = { ip: this.#clientAddress.ip, peer: this.#peer };
    return reachOf(policy.access, client, false).enforced !== "denied";
  }

  /** The application hears nothing of it meanwhile. */
  #awaitWord(): void {
    const { clock, detectTimeoutMs } = this.#parts;
    const spoken = (): void => {
      timer.cancel();
      this.#hasSpoken = true;
      this.#forward();
    };
    const timer = clock.after(detectTimeoutMs, spoken);
    this.#step = timer;
    this.#conn.setHandler({
      onData: (bytes) => {
        this.#conn.pause();
        this.#conn.unread(bytes);
        spoken();
      },
      onEnd: spoken,
      onDrain: () => undefined,
      onClose: () => this.onClose(),
    });
    this.#conn.resume();
  }

  /** `decision` is told of once something is said: a connection that was opened in advance and never used is none. */
  #pipe(app: Conn, port: Port, decision: AccessDecision): void {
    const conn = this.#conn;
    const revoked = port.subscribe(() => this.#recheck(port));
    pipe(
      conn,
      app,
      () => {
        revoked.cancel();
        this.#close();
      },
      () => this.#tell(decision, port),
    );
    // Policy may have changed while the application was dialled.
    this.#recheck(port);
  }

  /** Facts §13: a connection whose permission is revoked is ended. */
  #recheck(port: Port): void {
    const decision = this.#decide(port);
    if (decision.verdict === "allowed" || this.#isClosed) return;
    this.#parts.registry.count(FAMILIES.inboundTcpAuthzTerminate, {
      target_addr: addressKey(this.#target),
      ...tlsLabels(this.#peer, "client", "no_tls_from_remote"),
    });
    this.#tell(decision, port);
    this.#refuse("unauthorized", `${this.#refusalOf(decision, port)} (the policy changed)`);
  }

  /** What becomes of it as bytes that nobody looks into. */
  #decide(port: Port): AccessDecision {
    const { policy } = port;
    const { ip } = this.#clientAddress;
    const decision = accessRulesOf(policy.access).clientOf(ip, this.#peer).decide(null, null);
    if (decision.verdict !== "allowed" || !asksForTokens(policy)) return decision;
    // A token that is needed cannot be seen here.
    const need = accessRulesOf(needsOf(policy)).clientOf(ip, this.#peer).decide(null, null);
    return need.verdict === "allowed"
      ? decision
      : {
          ...need,
          reason: "requests to this port need a token, and none can be seen in bytes that are passed on",
        };
  }

  #tell(decision: AccessDecision, port: Port): void {
    const { access } = this.#parts;
    const party = { target: this.#target, client: this.#clientAddress, peer: this.#peer, port };
    const tally = access.tallyOf(party, decision, "tcp");
    tally.count();
    tally.release();
    access.observer?.decided(decision, port.port, this.#clientAddress, this.#peer, null);
  }

  #refusalOf({ by, reason }: AccessDecision, port: Port): string {
    return `${reason} [${namedRule(by, port)}]`;
  }

  /** A connection to the application: the one that detection opened, if nobody has taken it yet, else a new one. */
  #dial(done: (error: ConnError | null, conn: Conn | null) => void): Cancel {
    const { clock } = this.#parts;
    const early = this.#early;
    if (early !== null) {
      this.#early = null;
      let isCancelled = false;
      clock.soon(() => {
        if (isCancelled) return;
        early.conn.resume();
        done(null, early.conn);
      });
      return {
        cancel: () => {
          isCancelled = true;
          early.conn.reset();
        },
      };
    }
    return dialApplication(this.#parts, this.#target, done);
  }

  #meterPlain(noTlsReason: string): void {
    const labels = new ConnLabels({
      direction: "inbound",
      peer: "src",
      target_addr: addressKey(this.#target),
      ...tlsLabels(null, "client", noTlsReason),
    });
    this.#parts.metrics.opened(this.#conn, labels);
  }

  #refuseDial(error: ConnError | null): void {
    const reason =
      error?.code === "CONNECT_REFUSED"
        ? "connect_refused"
        : error?.code === "CONNECT_TIMEOUT"
          ? "connect_timeout"
          : "connect_failed";
    this.#refuse(reason, error?.message ?? "the application cannot be reached");
  }

  #refuse(reason: InboundRefusal, detail: string): void {
    this.#refusals.refuse(this.#conn, this.#client, this.#target.port, reason, detail);
    this.#close();
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unproven?.();
    if (this.#carrier !== null) this.#carrier.#carried.delete(this);
    this.#connection.remove();
    this.#port?.release();
    this.#early?.conn.reset();
    this.#early = null;
  }
}

const NOTHING: Cancel = { cancel: () => undefined };
