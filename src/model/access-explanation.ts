import type { AccessDecision, AccessRule } from "./access.ts";
import type { Origin } from "./explanation.ts";

/** Who may do what, asked of the control plane. */
export interface AccessQuestion {
  /** `deployment/web`, or a pod's or a workload's name; or an address, for somebody without identity. */
  readonly client: string;
  /** Of the client; null: wherever it is. */
  readonly namespace: string | null;
  /** A Service as `name`, `name.namespace`, with or without `:port`; or a workload as `deployment/web`. */
  readonly server: string;
  /** Of the Service or, where the server is a workload, of its pods. Null: all. */
  readonly port: number | null;
  /** Null: in general. */
  readonly request: {
    readonly method: string;
    readonly path: string;
    readonly headers: readonly (readonly [name: string, value: string])[];
  } | null;
}

export interface AccessExplanation {
  readonly client: {
    /** `deployment/web (shop)`, or an address. */
    readonly name: string;
    /** "" for who has none. */
    readonly identity: string;
    readonly ip: string;
  };
  /** Each port of each workload that was asked about. */
  readonly servers: readonly ExplainedAccess[];
}

/** Whether everything may be done, some requests, or nothing. */
export type Reach = "allowed" | "partly" | "denied";

export interface ExplainedAccess {
  readonly namespace: string;
  /** `deployment/web` */
  readonly workload: string;
  /** Of the pod. */
  readonly port: number;
  /** Without a sidecar nobody is asked anything. */
  readonly isMeshed: boolean;
  /** Bytes are passed on as they are, so that requests are not looked at. */
  readonly isOpaque: boolean;
  readonly reach: Reach;
  /** Were policies in mode Audit enforced. */
  readonly proposed: Reach;
  /** Of the request, or of an opaque connection; null where it is asked in general and depends on the request. */
  readonly decision: ExplainedDecision | null;
  /** Rules that are about the client, in the order in which they are tried. */
  readonly rules: readonly ExplainedAccessRule[];
  /** What besides rules a request needs; "" for nothing. */
  readonly alsoNeeds: string;
}

export interface ExplainedDecision {
  readonly verdict: AccessDecision["verdict"];
  readonly rule: string;
  readonly from: Origin;
  readonly reason: string;
  /** Null: the same. */
  readonly would: {
    readonly verdict: "would_deny" | "would_allow";
    readonly rule: string;
    readonly from: Origin;
  } | null;
}

export interface ExplainedAccessRule {
  readonly action: AccessRule["action"];
  /** `proposed` and `enforced`: by mode Audit (or the default `audit`). */
  readonly stage: AccessRule["stage"];
  readonly rule: string;
  readonly from: Origin;
  /** For people: `GET of /orders or below`; "" for everything. */
  readonly requests: string;
  /** Whether it holds for what was asked; null where that was nothing definite. */
  readonly holds: boolean | null;
}

/** Who may use what in the whole mesh. */
export interface AccessMatrix {
  readonly clients: readonly {
    /** `shop/front` (namespace and service account); an address or `anybody` for who has no identity. */
    readonly name: string;
    readonly identity: string;
    readonly workloads: readonly string[];
  }[];
  readonly servers: readonly {
    readonly namespace: string;
    readonly workload: string;
    readonly port: number;
    /** `web:80` */
    readonly services: readonly string[];
    readonly isMeshed: boolean;
  }[];
  /** By client, then by server. */
  readonly cells: readonly (readonly { readonly reach: Reach; readonly proposed: Reach }[])[];
}
