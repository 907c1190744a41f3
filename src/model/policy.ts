import type { Labels } from "./identity.ts";
import type { Endpoint } from "./endpoint.ts";

/** The object that a decision came from: `meta.Metadata`. A default has only `name` ("default:http"). */
export interface PolicySource {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly section: string;
  readonly port: number;
}

/** As answers and logs name what decided: "server/shop/web-http", "default/all-authenticated". */
export function ruleOf(from: Labels | PolicySource): string {
  const { kind = "", namespace = "", name = "" } = from as Partial<PolicySource>;
  return [kind, namespace, name].filter((part) => part !== "").join("/");
}

/** How one connection's bytes are to be understood. "detect" looks; every other value is known without looking. */
export type Protocol = "detect" | "http1" | "http2" | "grpc" | "tls" | "opaque";

/** Where a target's traffic goes. Routes (a later room: matches, filters, splits) wrap backends; a backend is a leaf. */
export type Backend =
  | {
      readonly kind: "balancer";
      readonly source: PolicySource;
      readonly path: string;
      readonly defaultRttMs: number;
      readonly decayMs: number;
    }
  | { readonly kind: "forward"; readonly source: PolicySource; readonly endpoint: Endpoint }
  | { readonly kind: "forbidden"; readonly source: PolicySource; readonly reason: string };

/** What `OutboundPolicies.Watch` says of one target, free of its wire form. */
export interface OutboundPolicy {
  readonly source: PolicySource;
  readonly protocol: Protocol;
  /** The backend of each protocol's default route. */
  readonly backend: Backend;
}

/** What `InboundServerPolicies.WatchPort` says of one port. */
export interface InboundPolicy {
  readonly protocol: Protocol;
  readonly labels: Labels;
  readonly authorizations: readonly Authorization[];
}

export interface Authorization {
  readonly networks: readonly { readonly net: string; readonly except: readonly string[] }[];
  readonly authentication:
    | { readonly kind: "unauthenticated" }
    | { readonly kind: "meshed-any" }
    | {
        readonly kind: "meshed";
        readonly identities: readonly string[];
        readonly suffixes: readonly (readonly string[])[];
      };
  readonly labels: Labels;
}
