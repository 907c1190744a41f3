import type { IpAddress } from "#/base/address.ts";
import type { Fields } from "#/base/fields.ts";
import type { PeerIdentity } from "./identity.ts";
import type { PolicySource } from "./policy.ts";
import type { FieldMatch, HostMatch, HttpMatch, PathMatch } from "./route.ts";

/**
 * Who may use one port of a workload, and for what. Compiled by the control plane from all policies that are about the
 * port, evaluated by the sidecar; the order of evaluation is docs/reference/authorization.md, "How it is decided".
 */
export interface AccessPolicy {
  /**
   * Empty: requests are not routed. Else each request belongs to the route that wins by Gateway API's precedence, rules with a `route`
   * hold only for its requests, and one that no route takes is answered 404 (Linkerd's HTTPRoutes of a Server).
   */
  readonly routes: readonly AccessRoute[];
  readonly rules: readonly AccessRule[];
}

export interface AccessRoute {
  readonly source: PolicySource;
  /** Empty: any. */
  readonly hosts: readonly HostMatch[];
  /** Empty: everything. */
  readonly matches: readonly HttpMatch[];
}

/**
 * `exempt` lets through before anything else (the machine's probes); `deny` refuses; `allow` lets through; `restrict` refuses what
 * no `allow` has taken (each ALLOW policy brings one for its scope); `default` lets through what is left; `audit` only tells.
 */
export type AccessAction = "exempt" | "deny" | "allow" | "restrict" | "default" | "audit";

export interface AccessRule {
  readonly action: AccessAction;
  /**
   * `enforced` rules decide; `proposed` ones say what would be decided were audit mode switched to enforcing. Most are both: a policy
   * in audit mode is only proposed, and what it would replace is only enforced.
   */
  readonly stage: "both" | "enforced" | "proposed";
  /** The object it comes from; `section` is the name of the object's rule, or its number from 0. */
  readonly source: PolicySource;
  /** One of them must hold. Null: anyone. Empty: nobody. */
  readonly sources: readonly AccessSource[] | null;
  /** One of them must hold. Null: everything, also what is no request. Empty: nothing. */
  readonly requests: readonly RequestCondition[] | null;
  /** Index into `routes`: only requests which that route takes. Null: whatever. */
  readonly route: number | null;
  /** Facts §13: a Server's own list is for opaque connections only where routes have lists of theirs. */
  readonly layer: "both" | "connections" | "requests";
}

/** Both parts must hold. */
export interface AccessSource {
  readonly peer: PeerMatch;
  /** Null: from anywhere. */
  readonly networks: readonly NetworkMatch[] | null;
}

/** Whom the connection's certificate has proven; `anyone` needs none. */
export type PeerMatch =
  | { readonly kind: "anyone" }
  /** Who has shown no certificate of the mesh. */
  | { readonly kind: "unauthenticated" }
  | { readonly kind: "authenticated" }
  | { readonly kind: "trust-domain"; readonly trustDomain: string }
  | { readonly kind: "namespace"; readonly trustDomain: string; readonly namespace: string }
  | {
      readonly kind: "identity";
      readonly trustDomain: string;
      readonly namespace: string;
      readonly serviceAccount: string;
    }
  /** Exactly this SPIFFE ID or DNS name, where it is none of a service account. */
  | { readonly kind: "name"; readonly name: string }
  /** Linkerd's `*.ns.serviceaccount…`: the DNS name ends in these labels. Empty: any identity. */
  | { readonly kind: "suffix"; readonly labels: readonly string[] };

/** CIDR, less those in `except`. */
export interface NetworkMatch {
  readonly net: string;
  readonly except: readonly string[];
}

/** All parts must hold; of a list, one entry; except `headers`, `query` and `claims`, of which all. Null or empty: not looked at. */
export interface RequestCondition {
  readonly methods: readonly string[] | null;
  readonly paths: readonly PathMatch[] | null;
  /** Without port and case. */
  readonly hosts: readonly HostMatch[] | null;
  readonly headers: readonly FieldMatch[];
  readonly query: readonly FieldMatch[];
  /** Of a token that was verified. Without one no condition on claims holds. */
  readonly claims: readonly ClaimMatch[];
}

/** The claim (dots lead into objects) is one of the values; or, if it is a list, holds one of them. */
export interface ClaimMatch {
  readonly claim: string;
  readonly values: readonly string[];
}

/** JSON Web Tokens that requests to one port are asked for. Verified before access is decided. */
export interface JwtPolicy {
  readonly source: PolicySource;
  /** Issuers are distinct. */
  readonly issuers: readonly JwtIssuer[];
  /** Requests that need a valid token; null: none does, but an invalid one is refused always. Empty: all. */
  readonly required: readonly RequestCondition[] | null;
}

export interface JwtIssuer {
  /** `iss`, as it is. */
  readonly issuer: string;
  /** One must be in `aud`. Empty: not looked at. */
  readonly audiences: readonly string[];
  /** JWKS (RFC 7517) as JSON, as it was last good. "": none could be had yet, so no token of this issuer is valid. */
  readonly jwks: string;
  /** For `exp` and `nbf`. */
  readonly leewayMs: number;
  /** Where the token is looked for, in lower case: "authorization" means its Bearer scheme; other headers hold the token alone. */
  readonly headers: readonly string[];
  /** Whether the application sees the token. */
  readonly forwards: boolean;
  /** Claims that are told to the application, by headers in lower case; whatever a client sent by those names is removed. */
  readonly claimHeaders: readonly { readonly claim: string; readonly header: string }[];
}

/** Of a verified token. */
export type Claims = Readonly<Record<string, unknown>>;

/** Who comes, and with what. */
export interface AccessSubject {
  readonly ip: IpAddress;
  readonly peer: PeerIdentity | null;
  /** Null: a connection whose bytes are passed on as they are. */
  readonly request: AccessRequest | null;
}

export interface AccessRequest {
  readonly method: string;
  /** As it came, with its query. */
  readonly path: string;
  /** `:authority` or `Host`, as it came; "" where there is none. */
  readonly authority: string;
  readonly fields: Fields;
  readonly claims: Claims | null;
}

/** What becomes of it. `stack/access` decides, for sidecars, `explain` and replays alike. */
export interface AccessDecision {
  /** `ambiguous`: its path has several readings (400). `no-route`: see `AccessPolicy.routes` (404). */
  readonly verdict: "allowed" | "denied" | "no-route" | "ambiguous";
  /** The rule that decided; kind "default" where no object did, such as "localhost". */
  readonly by: PolicySource;
  /** For people: who was refused, by what, and what would have been needed. "" where it is allowed. */
  readonly reason: string;
  /** What the proposed rules would make of it, where that differs. */
  readonly would: { readonly verdict: "would_deny" | "would_allow"; readonly by: PolicySource } | null;
  /** AUDIT rules that hold, the first of each object. */
  readonly audits: readonly PolicySource[];
}
