import type { AccessPolicy, JwtPolicy } from "./access.ts";
import type { Labels } from "./identity.ts";
import type { Backend, HttpRoute, Ratio, TcpRoute } from "./route.ts";
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

export const EGRESS_POLICY = "EgressPolicy";

/** What an EgressPolicy says of what a route takes: the `section` of that route's source. */
export type EgressVerdict = "allow" | "would-deny" | "deny";

/** Null: the route is not of an EgressPolicy. */
export function egressVerdictOf({ kind, section }: PolicySource): EgressVerdict | null {
  if (kind !== EGRESS_POLICY) return null;
  return section === "allow" || section === "would-deny" ? section : "deny";
}

/** Whether a policy is of an address outside the mesh; Linkerd's control plane names the first and the last. */
export function leadsOutside({ kind, name }: PolicySource): boolean {
  return (
    (kind === "default" && name === "egress-fallback") || kind === EGRESS_POLICY || kind === "EgressNetwork"
  );
}

/** How one connection's bytes are to be understood. "detect" looks; every other value is known without looking. */
export type Protocol = "detect" | "http1" | "http2" | "grpc" | "tls" | "opaque";

/** What `OutboundPolicies.Watch` says of one target, free of its wire form. */
export interface OutboundPolicy {
  readonly source: PolicySource;
  readonly protocol: Protocol;
  /**
   * For requests, as HTTP/1, HTTP/2 or gRPC. In the control plane's order; which one wins is the sidecar's to know. The
   * contract has none for a target that is known to speak something else.
   */
  readonly http: readonly HttpRoute[];
  /** For connections whose bytes are not looked into. The contract has none for a target that is known to speak HTTP. */
  readonly tcp: readonly TcpRoute[];
  /** Where the target itself leads, whatever its routes say. */
  readonly backend: Backend;
}

/**
 * Where a policy's target leads by its routes alone: to the first backend of the last rule of the last route, for routes
 * with matches come before the one that takes the rest.
 */
export function defaultBackendOf(
  policy: Pick<OutboundPolicy, "source" | "protocol" | "http" | "tcp">,
): Backend {
  const { source, protocol, http, tcp } = policy;
  const isHttp = protocol !== "opaque" && protocol !== "tls";
  const route = isHttp ? http.at(-1) : undefined;
  if (route !== undefined) {
    const rule = route.rules.at(-1);
    if (rule === undefined) return forbidden(route.source, "the route has no rule");
    const failure = rule.filters.find((filter) => filter.kind === "fail" && alwaysHits(filter.ratio));
    if (failure?.kind === "fail") return forbidden(route.source, failure.message);
    return rule.backends[0]?.backend ?? forbidden(route.source, "the route has no backend");
  }
  const last = isHttp && protocol !== "detect" ? undefined : tcp.at(-1);
  if (last === undefined) return forbidden(source, "the policy has no route");
  if (last.refusal !== null) return forbidden(last.source, last.refusal);
  return last.backends[0]?.backend ?? forbidden(last.source, "the route has no backend");
}

function alwaysHits({ numerator, denominator }: Ratio): boolean {
  return denominator > 0 && numerator >= denominator;
}

function forbidden(source: PolicySource, reason: string): Backend {
  return { kind: "forbidden", source, reason };
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
  /** Null: takes whatever comes. */
  readonly limits: InboundLimits | null;
  /** Who may. The same object as long as nothing of it changes. */
  readonly access: AccessPolicy;
  /** Null: tokens are not looked at. */
  readonly jwt: JwtPolicy | null;
}
