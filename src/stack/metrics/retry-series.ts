import type { Labels } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import { FAMILIES } from "./families.ts";
import type { Family, Registry } from "./registry.ts";
import { sourceLabels } from "./source-labels.ts";

/**
 * What the retry layer counts for one rule (facts §17.2). Satisfies `RetrySeries`. Nothing is held: these are rare, and a rule
 * for each connection must cost none.
 */
export class RetryCounters {
  readonly #registry: Registry;
  readonly #labels: Labels;
  readonly #isGrpc: boolean;

  constructor(registry: Registry, parent: PolicySource, route: PolicySource) {
    this.#registry = registry;
    this.#labels = { ...sourceLabels("parent", parent), ...sourceLabels("route", route) };
    this.#isGrpc = route.kind === "GRPCRoute";
  }

  retried(): void {
    this.#count(FAMILIES.outboundHttpRetryRequests, FAMILIES.outboundGrpcRetryRequests);
  }

  retrySucceeded(): void {
    this.#count(FAMILIES.outboundHttpRetrySuccesses, FAMILIES.outboundGrpcRetrySuccesses);
  }

  retryLimitExceeded(): void {
    this.#count(FAMILIES.outboundHttpRetryLimitExceeded, FAMILIES.outboundGrpcRetryLimitExceeded);
  }

  retryOverflowed(reason: string): void {
    const family = this.#isGrpc ? FAMILIES.outboundGrpcRetryOverflow : FAMILIES.outboundHttpRetryOverflow;
    this.#registry.count(family, { ...this.#labels, reason });
  }

  timedOut(timeout: string): void {
    this.#registry.count(FAMILIES.requestTimeouts, { ...this.#labels, timeout });
  }

  #count(http: Family, grpc: Family): void {
    this.#registry.count(this.#isGrpc ? grpc : http, this.#labels);
  }
}
