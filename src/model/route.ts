import type { BackendTraffic } from "./traffic.ts";
import type { Endpoint } from "./endpoint.ts";
import type { PolicySource } from "./policy.ts";

/** A value that is equal, or that a regular expression (RE2 syntax, linear time) matches as a whole. */
export interface StringMatch {
  readonly kind: "exact" | "regex";
  readonly value: string;
}

/** Gateway API: `prefix` is of whole segments. `rpc` is a gRPC method; "" stands for any service, any method. */
export type PathMatch =
  | { readonly kind: "exact" | "prefix" | "regex"; readonly value: string }
  | { readonly kind: "rpc"; readonly service: string; readonly method: string };

/** A prefix as it is compared, of whole segments: "/a/" is "/a", and "/" is "", which every path is below. */
export function barePrefix(value: string): string {
  return value.replace(/\/+$/, "");
}

/** A header (name in lower case) or a query parameter (name as it is). */
export interface FieldMatch {
  readonly name: string;
  readonly value: StringMatch;
}

/** All parts must hold. Null or empty: holds for everything. */
export interface HttpMatch {
  readonly path: PathMatch | null;
  readonly headers: readonly FieldMatch[];
  readonly query: readonly FieldMatch[];
  readonly method: string | null;
}

/** A host in lower case: itself, or (`suffix`, written "*.example.com") any name of one or more labels before it. */
export interface HostMatch {
  readonly kind: "exact" | "suffix";
  /** "example.com" in both cases. */
  readonly host: string;
}

/** A share of requests. A denominator of 0 is none. */
export interface Ratio {
  readonly numerator: number;
  readonly denominator: number;
}

/** Names are compared without case; `set` replaces all of the name, `add` appends one, `remove` goes last. */
export interface HeaderChange {
  readonly add: readonly (readonly [name: string, value: string])[];
  readonly set: readonly (readonly [name: string, value: string])[];
  readonly remove: readonly string[];
}

/** `prefix` replaces what the rule's prefix match matched; `full` the whole path, the query stays. */
export interface PathChange {
  readonly kind: "full" | "prefix";
  readonly value: string;
}

/** Fetch standard, as Gateway API's HTTPCORSFilter says it. Origins may hold one "*" wildcard. */
export interface Cors {
  readonly allowOrigins: readonly string[];
  readonly allowMethods: readonly string[];
  readonly allowHeaders: readonly string[];
  readonly exposeHeaders: readonly string[];
  readonly allowCredentials: boolean;
  readonly maxAgeSeconds: number;
}

/** What a fault does to a request that it hits. */
export type FaultAction =
  | { readonly kind: "delay"; readonly delayMs: number; readonly jitterMs: number }
  /** `grpcStatus` for gRPC callers, `status` for others. */
  | { readonly kind: "abort"; readonly status: number; readonly grpcStatus: number; readonly message: string }
  /** The client's stream or connection is cut. */
  | { readonly kind: "reset" }
  /** The answer's body goes no faster. */
  | { readonly kind: "bandwidth"; readonly bytesPerSecond: number }
  /** The answer's end comes so much later than its last byte. */
  | { readonly kind: "slow-close"; readonly delayMs: number };

export type HttpFilter =
  | { readonly kind: "request-headers" | "response-headers"; readonly change: HeaderChange }
  | {
      readonly kind: "redirect";
      /** Null: as the request says. */
      readonly scheme: string | null;
      readonly host: string | null;
      readonly path: PathChange | null;
      readonly port: number | null;
      readonly status: number;
    }
  | { readonly kind: "rewrite"; readonly host: string | null; readonly path: PathChange | null }
  | { readonly kind: "mirror"; readonly backend: Backend; readonly ratio: Ratio }
  | { readonly kind: "cors"; readonly cors: Cors }
  /** The API's own failure injector: answers in the application's place. `grpcStatus` -1: of HTTP. */
  | {
      readonly kind: "fail";
      readonly status: number;
      readonly grpcStatus: number;
      readonly message: string;
      readonly ratio: Ratio;
    }
  | {
      readonly kind: "fault";
      readonly source: PolicySource;
      readonly ratio: Ratio;
      /** All must hold for the request to be hit. */
      readonly headers: readonly FieldMatch[];
      readonly action: FaultAction;
    };

/** Null: none. 0 never occurs: `0s` in an object means none. */
export interface Timeouts {
  /** From the request's head to the answer's end, all attempts together. */
  readonly requestMs: number | null;
  /** From the request's last byte, or the answer's head if that comes first, to the answer's end. */
  readonly responseMs: number | null;
  /** One attempt, from its start to its answer's end. */
  readonly attemptMs: number | null;
  /** No byte in either direction. */
  readonly idleMs: number | null;
}

export interface RetryPolicy {
  /** Attempts after the first. */
  readonly retriesMax: number;
  /** Both inclusive. */
  readonly statusRanges: readonly (readonly [from: number, to: number])[];
  readonly grpcCodes: readonly number[];
  /** Also what was lost with a connection before any answer, whatever the method. */
  readonly onConnectionError: boolean;
  /** Null: as long as the route allows. */
  readonly attemptTimeoutMs: number | null;
  /** A body that has sent more is bound to its endpoint. */
  readonly bodyBytesMax: number;
  readonly backoff: Backoff;
  /** `Retry-After` and `grpc-retry-pushback-ms` lengthen the backoff. */
  readonly respectsRetryAfter: boolean;
}

export interface Backoff {
  readonly minMs: number;
  readonly maxMs: number;
  /** Up to this share is added at random. */
  readonly jitterRatio: number;
}

/** Where traffic goes in the end. */
export type Backend =
  | {
      readonly kind: "balancer";
      readonly source: PolicySource;
      /** `svc.ns.svc.cluster.local:port`, what discovery is asked for. */
      readonly path: string;
      readonly defaultRttMs: number;
      readonly decayMs: number;
      /** Null: the defaults (`traffic.ts`). */
      readonly traffic: BackendTraffic | null;
    }
  | {
      readonly kind: "forward";
      readonly source: PolicySource;
      readonly endpoint: Endpoint;
      readonly traffic: BackendTraffic | null;
    }
  | { readonly kind: "forbidden"; readonly source: PolicySource; readonly reason: string };

/** Where a rule sends what it matched. */
export interface RouteBackend {
  /** Of all weights of the rule; 0 gets nothing. */
  readonly weight: number;
  readonly backend: Backend;
  readonly filters: readonly HttpFilter[];
  /** Of each attempt there; null: the rule's. */
  readonly attemptTimeoutMs: number | null;
}

export interface HttpRule {
  /** The rule's `name`; "" without one. */
  readonly name: string;
  /** Any of them. Empty: everything. */
  readonly matches: readonly HttpMatch[];
  readonly filters: readonly HttpFilter[];
  /** `first`: the first that has a ready endpoint. `random`: by weight. Empty: none, the filters answer or it is an error. */
  readonly choice: "first" | "random";
  readonly backends: readonly RouteBackend[];
  readonly timeouts: Timeouts;
  readonly retry: RetryPolicy | null;
  /** The request's own `l5d-timeout`, `l5d-retry-http`, … headers count. */
  readonly allowsRequestHeaders: boolean;
}

/** An HTTPRoute or a GRPCRoute, told apart by `source.kind`. */
export interface HttpRoute {
  readonly source: PolicySource;
  /** Empty: every host. */
  readonly hosts: readonly HostMatch[];
  readonly rules: readonly HttpRule[];
}

/** A TLSRoute (with names) or a TCPRoute (without). */
export interface TcpRoute {
  readonly source: PolicySource;
  /** Server names that it takes; empty: everything. */
  readonly serverNames: readonly HostMatch[];
  /** Null: nothing passes, and why. */
  readonly refusal: string | null;
  readonly choice: "first" | "random";
  readonly backends: readonly RouteBackend[];
}
