import type { Conn } from "#/base/conn.ts";
import type { ConnError } from "#/base/errors.ts";
import type { SocketAddress } from "#/base/address.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { InboundPolicy, OutboundPolicy } from "#/model/policy.ts";
import type { Backend } from "#/model/route.ts";
import type { RouteTable } from "./route/table.ts";

/** Something that can be taken back: a subscription, an attempt, a wait. A second `cancel` does nothing. */
export interface Cancel {
  cancel(): void;
}

/**
 * The endpoints of one backend, kept current while somebody holds the target it came from. Shared by all targets with
 * the same `key`, so that one balancer serves them.
 */
export interface EndpointSource {
  /** `balancer:PATH#NUMBER` or `forward:IP:PORT`: equal keys have the same endpoints at all times. */
  readonly key: string;
  /**
   * "pending" until the first answer; "absent" when the service does not exist. A control plane that is away changes
   * nothing: what was last heard stays.
   */
  readonly state: "pending" | "known" | "absent";
  /** Never changed in place: a new array after each update, equal endpoints keep their object. */
  readonly endpoints: readonly Endpoint[];
  /** `changed` is called after each change of `state` or `endpoints`, never from inside `subscribe`. */
  subscribe(changed: () => void): Cancel;
}

/**
 * What an outbound connection was meant for, with everything discovery knows of it: one object per original destination
 * while any connection uses it, and for an idle time after. `policy` and `table` are replaced together by live updates.
 */
export interface OutboundTarget {
  /** The original destination. */
  readonly address: SocketAddress;
  readonly policy: OutboundPolicy;
  /** `policy.http`, ready to look requests up. */
  readonly table: RouteTable;
  /**
   * Endpoints of a backend that `policy` names, in whatever place. Null for a forbidden one, for one of an older policy, and past the
   * bound on backends of one target.
   */
  sourceOf(backend: Backend): EndpointSource | null;
  /** `svc.ns.svc.cluster.local:port`, or `ip:port` where no name is known: `authority` of metrics. */
  readonly authority: string;
  /** After each change of `policy`. */
  subscribe(changed: () => void): Cancel;
}

/** What one inbound port allows, kept current. One object per port for the sidecar's life. */
export interface InboundPort {
  readonly port: number;
  readonly policy: InboundPolicy;
  subscribe(changed: () => void): Cancel;
}

export type DialProtocol = "http1" | "http2" | "opaque";

/**
 * Connects to an endpoint as its model says: TCP, then mutual TLS with its identity proven, ALPN and transport header.
 * `done` is called once, never synchronously; `peer` is null for an unmeshed endpoint. After `cancel`, `done` is not
 * called and whatever was begun is reset. What the connection then carries:
 *
 * - "http2" to a meshed endpoint: HTTP/2 between sidecars (`l5d-orig-proto` applies).
 * - "http1" to a meshed endpoint: genuine HTTP/1 (upgrades), announced so.
 * - "opaque": bytes; END and RESET are kept apart where the far side is ours.
 */
export type Dial = (
  endpoint: Endpoint,
  protocol: DialProtocol,
  done: DialDone,
  /** What TCP's part of it may take; null: as long as anywhere. */
  connectTimeoutMs?: number | null,
) => Cancel;
/** `spells`: the far side is a sidecar of ours, and told how HTTP/1 was spelled. Only where `peer` is proven. */
export type DialDone = (
  error: ConnError | null,
  conn: Conn | null,
  peer: PeerIdentity | null,
  spells?: boolean,
) => void;

/** A connection that protocol detection had to open before it knew what the client speaks. Opened with "opaque". */
export interface FirstDialled {
  readonly endpoint: Endpoint;
  readonly conn: Conn;
  readonly peer: PeerIdentity | null;
}

/** One connection that is served as HTTP. */
export interface HttpServing {
  /** Tells the client to go elsewhere, by GOAWAY or by `Connection: close` in the next answer: all that it asks before it can know is served. */
  drain(): void;
  /** … and does not wait for a request to say so: an idle HTTP/1 connection ends now. Active requests finish. */
  close(): void;
  readonly activeRequests: number;
  /** Ends the requests that may not go on (`HttpService.recheck`): by an answer where none has begun, else by cutting them short. */
  recheck(): void;
}

/**
 * The HTTP half of the outbound side. `conn` has no handler yet and holds all bytes from the client's first on.
 * `first`, when given, is a raw connection to that endpoint's application: it must serve the first request (its early
 * bytes from the server, such as SETTINGS, are still to be read from it) or be ended. `closed` is called once when
 * `conn` is over.
 */
export interface OutboundHttp {
  serve(
    conn: Conn,
    version: "http1" | "http2",
    target: OutboundTarget,
    first: FirstDialled | null,
    closed: () => void,
  ): HttpServing;
}

/** What is known of an inbound connection before its first request. */
export interface InboundContext {
  /** Where the application listens: the original address, with the transport header's port on the direct port. */
  readonly target: SocketAddress;
  readonly client: SocketAddress;
  /** Proven by mutual TLS; null for a plaintext client. */
  readonly peer: PeerIdentity | null;
  readonly port: InboundPort;
  /** True where the far sidecar announced the protocol in a transport header. */
  readonly announced: boolean;
  /** The far side is a proven sidecar of ours, and says how HTTP/1 was spelled. */
  readonly spells: boolean;
  /** A connection to the application that detection had to open, with the application's early bytes still in it: it must serve the first request or be ended. Null almost always. */
  readonly early: Conn | null;
}

/** The HTTP half of the inbound side; as `OutboundHttp`. */
export interface InboundHttp {
  serve(conn: Conn, version: "http1" | "http2", context: InboundContext, closed: () => void): HttpServing;
}
