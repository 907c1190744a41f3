import type { LabelSelector, Metadata } from "./objects.ts";
import type { ValueMatch } from "./policy-objects.ts";

/** The objects that say who may use what, as they stand once validated. Ours has the shape of GEP-3779; the others are Linkerd's. */
interface Base<Kind extends string> {
  readonly apiVersion: string;
  readonly kind: Kind;
  readonly metadata: Metadata;
}

export type AccessObject =
  | JwtPolicyObject
  | AuthorizationPolicyObject
  | LinkerdAuthorizationPolicyObject
  | ServerObject
  | ServerAuthorizationObject
  | MeshTlsAuthenticationObject
  | NetworkAuthenticationObject;

/** `pillion.dev/v1alpha1`. */
export interface AuthorizationPolicyObject extends Base<"AuthorizationPolicy"> {
  readonly spec: {
    readonly targetRefs: readonly AccessTargetRef[];
    readonly action: "ALLOW" | "DENY" | "AUDIT";
    readonly mode?: "Enforce" | "Audit";
    readonly enforcementLevel?: "Network" | "Application";
    readonly rules?: readonly AccessRuleSpec[];
  };
}

export interface AccessTargetRef {
  readonly group: string;
  readonly kind: "Pod" | "Service" | "Namespace" | "HTTPRoute" | "GRPCRoute";
  readonly name?: string;
  readonly selector?: LabelSelector;
}

export interface AccessRuleSpec {
  readonly name?: string;
  readonly sources?: readonly AccessSourceSpec[];
  readonly networkAttributes?: { readonly ports: readonly number[] };
  readonly requests?: readonly RequestSpec[];
}

/** `type` names the one field that is there; `cidrs` may be beside it. */
export interface AccessSourceSpec {
  readonly type:
    | "ServiceAccount"
    | "SPIFFE"
    | "Namespace"
    | "TrustDomain"
    | "Authenticated"
    | "Unauthenticated"
    | "CIDR";
  readonly serviceAccount?: { readonly namespace?: string; readonly name: string };
  readonly spiffe?: string;
  readonly namespace?: string;
  readonly trustDomain?: string;
  readonly cidr?: string;
  readonly except?: readonly string[];
  readonly cidrs?: readonly string[];
}

/** `paths` and `grpc` say the same in two ways; one of them is there at most. */
export interface RequestSpec {
  readonly methods?: readonly string[];
  readonly paths?: readonly {
    readonly type: "Exact" | "PathPrefix" | "RegularExpression";
    readonly value: string;
  }[];
  readonly hosts?: readonly string[];
  readonly grpc?: readonly { readonly service?: string; readonly method?: string }[];
  readonly headers?: readonly ValueMatch[];
  readonly query?: readonly ValueMatch[];
  readonly claims?: readonly { readonly claim: string; readonly values: readonly string[] }[];
}

/** `pillion.dev/v1alpha1`. */
export interface JwtPolicyObject extends Base<"JwtPolicy"> {
  readonly spec: {
    readonly targetRefs: readonly AccessTargetRef[];
    readonly issuers: readonly JwtIssuerSpec[];
    /** One of the two. */
    readonly required?: { readonly all?: boolean; readonly requests?: readonly RequestSpec[] };
  };
}

export interface JwtIssuerSpec {
  readonly issuer: string;
  readonly audiences?: readonly string[];
  /** One of the three. */
  readonly jwks: {
    readonly inline?: string;
    readonly configMap?: { readonly name: string; readonly key: string };
    readonly url?: string;
  };
  readonly leeway?: string;
  readonly headers?: readonly string[];
  readonly forward?: boolean;
  readonly claimHeaders?: readonly { readonly claim: string; readonly header: string }[];
}

export interface LinkerdRef {
  readonly group?: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
}

/** `policy.linkerd.io/v1alpha1`. */
export interface LinkerdAuthorizationPolicyObject extends Base<"AuthorizationPolicy"> {
  readonly spec: {
    readonly targetRef: LinkerdRef;
    readonly requiredAuthenticationRefs: readonly LinkerdRef[];
  };
}

export interface ServerObject extends Base<"Server"> {
  readonly spec: {
    readonly podSelector: LabelSelector;
    readonly port: number | string;
    readonly proxyProtocol?: "unknown" | "HTTP/1" | "HTTP/2" | "gRPC" | "opaque" | "TLS";
    readonly accessPolicy?: string;
  };
}

export interface LinkerdNetwork {
  readonly cidr: string;
  readonly except?: readonly string[];
}

export interface ServerAuthorizationObject extends Base<"ServerAuthorization"> {
  readonly spec: {
    readonly server: { readonly name?: string; readonly selector?: LabelSelector };
    readonly client: {
      readonly unauthenticated?: boolean;
      readonly networks?: readonly LinkerdNetwork[];
      readonly meshTLS?: {
        readonly identities?: readonly string[];
        readonly serviceAccounts?: readonly { readonly name: string; readonly namespace?: string }[];
      };
    };
  };
}

export interface MeshTlsAuthenticationObject extends Base<"MeshTLSAuthentication"> {
  readonly spec: {
    readonly identities?: readonly string[];
    readonly identityRefs?: readonly LinkerdRef[];
  };
}

export interface NetworkAuthenticationObject extends Base<"NetworkAuthentication"> {
  readonly spec: { readonly networks: readonly LinkerdNetwork[] };
}
