import type { LabelSelector, Metadata } from "./objects.ts";

/**
 * The objects that say how traffic is treated, as they stand once validated: defaults of the published schemas are in. Names
 * are those of the Gateway API (v1.6); durations are text (GEP-2257).
 */
interface Base<Kind extends string> {
  readonly apiVersion: string;
  readonly kind: Kind;
  readonly metadata: Metadata;
}

export type PolicyObject =
  | HttpRouteObject
  | GrpcRouteObject
  | TlsRouteObject
  | TcpRouteObject
  | ReferenceGrantObject
  | ExternalBackendObject
  | BackendTrafficPolicyObject
  | TrafficPolicyObject
  | FaultPolicyObject
  | RateLimitPolicyObject
  | EgressPolicyObject;

export type RouteObject = HttpRouteObject | GrpcRouteObject | TlsRouteObject | TcpRouteObject;

export interface ParentRef {
  readonly group: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
  /** Of a Service: the name of a port. */
  readonly sectionName?: string;
  readonly port?: number;
}

export interface ObjectRef {
  readonly group: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
  readonly port?: number;
}

export interface BackendRef<Filter> extends ObjectRef {
  readonly weight: number;
  readonly filters?: readonly Filter[];
}

export interface ValueMatch {
  readonly name: string;
  readonly value: string;
  readonly type?: "Exact" | "RegularExpression";
}

export interface HttpRouteMatch {
  readonly path?: { readonly type: "Exact" | "PathPrefix" | "RegularExpression"; readonly value: string };
  readonly headers?: readonly ValueMatch[];
  readonly queryParams?: readonly ValueMatch[];
  readonly method?: string;
}

export interface HeaderFilter {
  readonly set?: readonly { readonly name: string; readonly value: string }[];
  readonly add?: readonly { readonly name: string; readonly value: string }[];
  readonly remove?: readonly string[];
}

export interface PathModifier {
  readonly type: "ReplaceFullPath" | "ReplacePrefixMatch";
  readonly replaceFullPath?: string;
  readonly replacePrefixMatch?: string;
}

export interface MirrorFilter {
  readonly backendRef: ObjectRef;
  readonly percent?: number;
  readonly fraction?: { readonly numerator: number; readonly denominator: number };
}

/** `type` names the one field that is there. GRPCRoute has the first four types only. */
export interface RouteFilter {
  readonly type:
    | "RequestHeaderModifier"
    | "ResponseHeaderModifier"
    | "RequestMirror"
    | "ExtensionRef"
    | "RequestRedirect"
    | "URLRewrite"
    | "CORS"
    | "ExternalAuth";
  readonly requestHeaderModifier?: HeaderFilter;
  readonly responseHeaderModifier?: HeaderFilter;
  readonly requestMirror?: MirrorFilter;
  readonly requestRedirect?: {
    readonly scheme?: string;
    readonly hostname?: string;
    readonly path?: PathModifier;
    readonly port?: number;
    readonly statusCode: number;
  };
  readonly urlRewrite?: { readonly hostname?: string; readonly path?: PathModifier };
  readonly cors?: {
    readonly allowOrigins?: readonly string[];
    readonly allowMethods?: readonly string[];
    readonly allowHeaders?: readonly string[];
    readonly exposeHeaders?: readonly string[];
    readonly allowCredentials?: boolean;
    readonly maxAge: number;
  };
}

export interface SessionPersistenceSpec {
  readonly sessionName?: string;
  readonly absoluteTimeout?: string;
  readonly type: "Cookie" | "Header";
  readonly cookieConfig?: { readonly lifetimeType: "Permanent" | "Session" };
}

export interface HttpRouteRule {
  readonly name?: string;
  readonly matches?: readonly HttpRouteMatch[];
  readonly filters?: readonly RouteFilter[];
  readonly backendRefs?: readonly BackendRef<RouteFilter>[];
  readonly timeouts?: { readonly request?: string; readonly backendRequest?: string };
  readonly retry?: {
    readonly codes?: readonly number[];
    readonly attempts?: number;
    readonly backoff?: string;
  };
  readonly sessionPersistence?: SessionPersistenceSpec;
}

export interface HttpRouteObject extends Base<"HTTPRoute"> {
  readonly spec: {
    readonly parentRefs?: readonly ParentRef[];
    readonly hostnames?: readonly string[];
    readonly rules?: readonly HttpRouteRule[];
  };
}

export interface GrpcRouteMatch {
  readonly method?: {
    readonly type: "Exact" | "RegularExpression";
    readonly service?: string;
    readonly method?: string;
  };
  readonly headers?: readonly ValueMatch[];
}

export interface GrpcRouteRule {
  readonly name?: string;
  readonly matches?: readonly GrpcRouteMatch[];
  readonly filters?: readonly RouteFilter[];
  readonly backendRefs?: readonly BackendRef<RouteFilter>[];
  readonly sessionPersistence?: SessionPersistenceSpec;
}

export interface GrpcRouteObject extends Base<"GRPCRoute"> {
  readonly spec: {
    readonly parentRefs?: readonly ParentRef[];
    readonly hostnames?: readonly string[];
    readonly rules?: readonly GrpcRouteRule[];
  };
}

export interface ConnectionRule {
  readonly name?: string;
  readonly backendRefs?: readonly BackendRef<never>[];
}

export interface TlsRouteObject extends Base<"TLSRoute"> {
  readonly spec: {
    readonly parentRefs?: readonly ParentRef[];
    readonly hostnames?: readonly string[];
    readonly rules: readonly ConnectionRule[];
  };
}

export interface TcpRouteObject extends Base<"TCPRoute"> {
  readonly spec: { readonly parentRefs?: readonly ParentRef[]; readonly rules: readonly ConnectionRule[] };
}

export interface ReferenceGrantObject extends Base<"ReferenceGrant"> {
  readonly spec: {
    readonly from: readonly { readonly group: string; readonly kind: string; readonly namespace: string }[];
    readonly to: readonly { readonly group: string; readonly kind: string; readonly name?: string }[];
  };
}

export interface ExternalBackendObject extends Base<"XBackend"> {
  readonly spec: {
    readonly type: "ExternalHostname";
    readonly externalHostname?: { readonly hostname: string };
    readonly port: { readonly name?: string; readonly port: number };
    readonly protocol?: "TCP" | "HTTP" | "HTTP2" | "HTTP11" | "H2C" | "MCP";
    readonly tls?: {
      readonly mode: "None" | "ServerOnly" | "ClientAndServer";
      readonly validation?: {
        readonly hostname: string;
        readonly subjectAltNames?: readonly unknown[];
        readonly wellKnownCACertificates?: string;
        readonly caCertificateRefs?: readonly {
          readonly group: string;
          readonly kind: string;
          readonly name: string;
        }[];
      };
    };
  };
}

/** A policy is about objects of its own namespace (GEP-713). */
export interface TargetRef {
  readonly group: string;
  readonly kind: string;
  readonly name: string;
  readonly sectionName?: string;
}

export interface RetryConstraintSpec {
  readonly budget?: { readonly percent?: number; readonly interval?: string };
  readonly minRetryRate?: { readonly count?: number; readonly interval?: string };
}

export interface BackendTrafficPolicyObject extends Base<"XBackendTrafficPolicy"> {
  readonly spec: {
    readonly targetRefs: readonly TargetRef[];
    readonly retryConstraint?: RetryConstraintSpec;
    readonly sessionPersistence?: SessionPersistenceSpec;
  };
}

export interface TrafficPolicyObject extends Base<"TrafficPolicy"> {
  readonly spec: {
    readonly targetRefs: readonly TargetRef[];
    readonly balancing?: {
      readonly algorithm?: "PeakEWMA" | "RoundRobin" | "Random" | "LeastRequest" | "ConsistentHash";
      readonly hashOn?: readonly {
        readonly header?: string;
        readonly cookie?: string;
        readonly source?: boolean;
      }[];
      readonly boundedLoadPercent?: number;
      readonly slowStart?: string;
      readonly subsetSize?: number;
      readonly overloadPenalty?: string;
    };
    readonly zone?: { readonly spillAtPending?: number; readonly healthyPercentMin?: number };
    readonly circuitBreaking?: {
      readonly consecutiveFailures?: number;
      readonly successRate?: {
        readonly percentMin: number;
        readonly requestsMin?: number;
        readonly window?: string;
      };
      readonly backoff?: { readonly min?: string; readonly max?: string };
      readonly respectRetryAfter?: boolean;
      readonly ejectedPercentMax?: number;
      readonly panicPercent?: number;
    };
    readonly limits?: {
      readonly requestsMax?: number;
      readonly pendingMax?: number;
      readonly connectionsMax?: number;
    };
    readonly connectTimeout?: string;
    readonly retryConstraint?: RetryConstraintSpec;
    readonly sessionPersistence?: SessionPersistenceSpec;
  };
}

export interface FaultSpec {
  readonly percent?: number;
  readonly fraction?: { readonly numerator: number; readonly denominator?: number };
  readonly headers?: readonly ValueMatch[];
  readonly delay?: { readonly duration: string; readonly jitter?: string };
  readonly abort?: {
    readonly httpStatus?: number;
    readonly grpcStatus?: number;
    readonly message?: string;
  };
  readonly reset?: object;
  readonly bandwidth?: { readonly bytesPerSecond: number };
  readonly slowClose?: { readonly duration: string };
}

export interface FaultPolicyObject extends Base<"FaultPolicy"> {
  readonly spec: {
    readonly targetRefs: readonly TargetRef[];
    readonly from?: readonly ClientSelector[];
    readonly faults: readonly FaultSpec[];
  };
}

/** Workloads that call: of a namespace, of one service account there. */
export interface ClientSelector {
  readonly namespace?: string;
  readonly serviceAccount?: string;
}

export interface RateLimitPolicyObject extends Base<"RateLimitPolicy"> {
  readonly spec: {
    readonly targetRefs?: readonly TargetRef[];
    readonly selector?: LabelSelector;
    readonly ports?: readonly number[];
    readonly rates?: readonly {
      readonly requests: number;
      readonly window?: string;
      readonly burst?: number;
      readonly scope?: "Local" | "Global";
      readonly per?: { readonly identity?: boolean; readonly header?: string };
      readonly matches?: readonly HttpRouteMatch[];
    }[];
    readonly concurrency?: {
      readonly min?: number;
      readonly max?: number;
      readonly priorityHeader?: string;
    };
  };
}

export interface EgressPolicyObject extends Base<"EgressPolicy"> {
  readonly spec: {
    readonly mode: "Allow" | "Audit" | "Deny";
    readonly selector?: LabelSelector;
    readonly allow?: readonly {
      readonly hosts?: readonly string[];
      readonly cidrs?: readonly string[];
      readonly ports?: readonly number[];
    }[];
  };
}
