/**
 * What a workload's sidecar has seen: who called what, how often, and what was decided. Told by its admin port at `/flows`; read by
 * `./pillion authz`. All texts are printable ASCII: what a client wrote otherwise is written as `%XX`.
 */
export interface FlowPage {
  readonly version: 1;
  /** Since when it counts (wall clock). */
  readonly sinceMs: number;
  readonly flows: readonly Flow[];
  /** What came once there were as many flows as are kept apart: known by number alone. */
  readonly beyond: { readonly count: number; readonly denied: number; readonly wouldDeny: number };
}

/** Requests, or opaque connections, that are alike. */
export interface Flow {
  readonly client: FlowClientName;
  /** The port on which the workload listens. */
  readonly port: number;
  readonly protocol: "opaque" | "http" | "grpc";
  /** "" where there is no request; `ANY_METHOD` together with `ANY_PATH`. */
  readonly method: string;
  /** Without the query, ids folded to their kind: `/orders/{number}`. "" where there is no request; `ANY_PATH`: more than are kept apart. */
  readonly path: string;
  readonly verdict: FlowVerdict;
  /** `AuthorizationPolicy/shop/orders web-reads` */
  readonly rule: string;
  /** What would become of it without audit mode, where that differs. */
  readonly would: { readonly verdict: "would_deny" | "would_allow"; readonly rule: string } | null;
  readonly count: number;
  readonly firstSeenMs: number;
  readonly lastSeenMs: number;
  /** The first few, of what was refused or would be. */
  readonly samples: readonly FlowSample[];
}

export type FlowVerdict = "allowed" | "denied" | "no-route" | "ambiguous";

export interface FlowClientName {
  /** The proven name; "" for who has shown none. */
  readonly identity: string;
  /**
   * One of the addresses that an identity came from; without an identity the address, or its network once there are many
   * (`10.0.3.0/24`).
   */
  readonly address: string;
}

export interface FlowSample {
  readonly atMs: number;
  readonly address: string;
  readonly method: string;
  /** As it came, without the query. */
  readonly path: string;
  readonly reason: string;
}

/** Stands for all methods and paths of a client that uses more of them than are kept apart. */
export const ANY_METHOD = "*";
export const ANY_PATH = "**";

/** What ids in paths are folded to, and one of each kind, for trying a rule on it. */
export const ID_KINDS = {
  number: { text: "{number}", example: "1" },
  uuid: { text: "{uuid}", example: "00000000-0000-4000-8000-000000000000" },
  hex: { text: "{hex}", example: "0123456789abcdef" },
  token: { text: "{token}", example: "0a1b2c3d4e5f6g7h8i9jZ" },
} as const;
