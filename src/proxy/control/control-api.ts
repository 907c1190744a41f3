import type { SocketAddress } from "#/base/address.ts";
import type { Endpoint } from "#/model/endpoint.ts";
import type { InboundPolicy, OutboundPolicy } from "#/model/policy.ts";
import type { Cancel } from "#/stack/discovery.ts";
import type { ShareGrant, ShareReport } from "#/stack/limits/quota-share.ts";

/**
 * The control plane as a sidecar sees it, free of its wire form: answers that stay current until cancelled. While the
 * control plane is away nothing is said, and what was said before holds. The simulator has its own.
 */
export interface ControlApi {
  /** Whether the service for discovery and policy answers. */
  readonly isConnected: boolean;
  watchOutbound(address: SocketAddress, sink: OutboundSink): Cancel;
  watchProfile(address: SocketAddress, profile: (profile: Profile | null) => void): Cancel;
  watchEndpoints(path: string, sink: EndpointsSink): Cancel;
  watchPort(port: number, policy: (policy: InboundPolicy) => void): Cancel;
  /**
   * Says what limits for all pods of the workload need here, and asks for more. `done` is called once, with null where no
   * answer can be had; never synchronously.
   */
  leaseQuota(reports: readonly QuotaReport[], done: (answer: QuotaAnswer | null) => void): Cancel;
  /**
   * Has the key set of an issuer of a port asked for again. `done` is called once, with the set as JSON, or null where none can be had;
   * never synchronously.
   */
  refreshKeys(port: number, issuer: string, done: (jwks: string | null) => void): Cancel;
}

/** Of one share. Reports of one limit stand together. */
export interface QuotaReport {
  readonly port: number;
  readonly limitId: string;
  /** Null: of all keys that are not counted apart. */
  readonly key: string | null;
  readonly report: ShareReport;
}

export interface QuotaAnswer {
  /** Until the next report. */
  readonly intervalMs: number;
  /** In the order of the reports; null where the control plane knows no such limit. */
  readonly grants: readonly (ShareGrant | null)[];
}

export interface OutboundSink {
  policy(policy: OutboundPolicy): void;
  /** The control plane knows nothing of this address. */
  unknown(): void;
  /** The control plane refuses to say; connections must fail. */
  refused(reason: string): void;
}

/** What `GetProfile` says of an address. */
export interface Profile {
  /** `svc.ns.svc.cluster.local`, "" for an address that is no service's. */
  readonly name: string;
  readonly isOpaque: boolean;
  /** For the address of a pod: how it is reached. */
  readonly endpoint: Endpoint | null;
}

/** The whole set, each time. "absent": there is no such service. */
export type EndpointsSink = (state: "known" | "absent", endpoints: readonly Endpoint[]) => void;
