import type { Labels } from "./identity.ts";
import type { Backend, HttpRoute, TcpRoute } from "./route.ts";
import type { InboundLimits } from "./traffic.ts";

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

/** What `OutboundPolicies.Watch` says of one target, free of its wire form. */
export interface OutboundPolicy {
  readonly source: PolicySource;
  readonly protocol: Protocol;
  /** For requests, as HTTP/1, HTTP/2 or gRPC. In the control plane's order; which one wins is the sidecar's to know. */
  readonly http: readonly HttpRoute[];
  /** For connections whose bytes are not looked into. */
  readonly tcp: readonly TcpRoute[];
  /** The backend of each protocol's default route. */
  readonly backend: Backend;
}

/** The policy of a target without routes of its own: everything goes to `backend`. */
export function policyTo(backend: Backend, source: PolicySource, protocol: Protocol): OutboundPolicy {
  const backends = [{ weight: 1, backend, filters: [], attemptTimeoutMs: null }];
  const rule = {
    name: "",
    matches: [],
    filters: [],
    choice: "first",
    backends,
    timeouts: { requestMs: null, responseMs: null, attemptMs: null, idleMs: null },
    retry: null,
    allowsRequestHeaders: false,
  } as const;
  return {
    source,
    protocol,
    http: [{ source, hosts: [], rules: [rule] }],
    tcp: [
      {
        source,
        serverNames: [],
        refusal: backend.kind === "forbidden" ? backend.reason : null,
        choice: "first",
        backends,
      },
    ],
    backend,
  };
}

/** What `InboundServerPolicies.WatchPort` says of one port. */
export interface InboundPolicy {
  readonly protocol: Protocol;
  readonly labels: Labels;
  readonly authorizations: readonly Authorization[];
  /** Null: takes whatever comes. */
  readonly limits: InboundLimits | null;
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
