import type { Labels } from "#/model/identity.ts";
import { FAMILIES } from "./families.ts";
import type { Histogram, Registry, Value } from "./registry.ts";

/**
 * The classic HTTP families of one (direction, target, endpoint): `request_total`, `response_total`,
 * `response_latency_ms` (facts §17.1). Satisfies `HttpSeries`. The counters of a status are made at its first use.
 */
export class HttpCounters {
  readonly #registry: Registry;
  readonly #labels: Labels;
  readonly #requests: Value;
  /** By `status·grpcStatus·success·error`: few, since errors are a closed set; the registry bounds the rest. */
  readonly #byOutcome = new Map<string, { readonly responses: Value; readonly latency: Histogram }>();

  constructor(registry: Registry, labels: Labels) {
    this.#registry = registry;
    this.#labels = labels;
    this.#requests = registry.counter(FAMILIES.requestTotal, labels);
  }

  request(): void {
    this.#requests.add(1);
  }

  /** `status` 0: no answer came. `grpcStatus` -1: not gRPC, or none came. `error` "" or a fault code. */
  response(status: number, grpcStatus: number, latencyMs: number, success: boolean, error: string): void {
    // The common case without building a key: same outcome as last time.
    if (
      status !== this.#lastStatus ||
      grpcStatus !== this.#lastGrpcStatus ||
      error !== this.#lastError ||
      success !== this.#lastSuccess ||
      this.#last === null
    ) {
      this.#last = this.#outcome(status, grpcStatus, success, error);
      this.#lastStatus = status;
      this.#lastGrpcStatus = grpcStatus;
      this.#lastSuccess = success;
      this.#lastError = error;
    }
    this.#last.responses.add(1);
    this.#last.latency.observe(latencyMs);
  }

  /** Whoever counted with it is gone; the series stay until they have been idle for long. */
  release(): void {
    this.#requests.release();
    for (const { responses, latency } of this.#byOutcome.values()) {
      responses.release();
      latency.release();
    }
    this.#byOutcome.clear();
    this.#last = null;
  }

  #last: { readonly responses: Value; readonly latency: Histogram } | null = null;
  #lastStatus = 0;
  #lastGrpcStatus = -1;
  #lastSuccess = false;
  #lastError = "";

  #outcome(
    status: number,
    grpcStatus: number,
    success: boolean,
    error: string,
  ): { readonly responses: Value; readonly latency: Histogram } {
    const key = `${status} ${grpcStatus} ${success} ${error}`;
    let outcome = this.#byOutcome.get(key);
    if (outcome === undefined) {
      const statusLabels = { ...this.#labels, status_code: String(status) };
      const labels = {
        ...statusLabels,
        classification: success ? "success" : "failure",
        grpc_status: grpcStatus < 0 ? "" : String(grpcStatus),
        error,
      };
      outcome = {
        responses: this.#registry.counter(FAMILIES.responseTotal, labels),
        latency: this.#registry.histogram(FAMILIES.responseLatencyMs, statusLabels),
      };
      this.#byOutcome.set(key, outcome);
    }
    return outcome;
  }
}
