import type { Endpoint } from "#/model/endpoint.ts";
import type { OutboundPolicy } from "#/model/policy.ts";
import type { InboundLimits } from "#/model/traffic.ts";
import type { RequestHead } from "#/stack/http/exchange.ts";
import type { Latency } from "./latency.ts";

/** What a simulated world is made of, and what happens in it. Everything follows from this and the seed. */
export interface WorldPlan {
  readonly seed: number;
  readonly workloads: readonly WorkloadPlan[];
  readonly services: readonly ServicePlan[];
  readonly loads: readonly LoadPlan[];
  readonly failures: readonly FailurePlan[];
  readonly network: NetworkPlan;
  /** Load comes for so long; then what is under way ends. */
  readonly durationMs: number;
}

export interface WorkloadPlan {
  /** `namespace/name`. */
  readonly name: string;
  readonly pods: readonly ReplicaPlan[];
  readonly behaviour: Behaviour;
  /** What its sidecars take in; null: whatever comes. */
  readonly inbound: InboundLimits | null;
}

export interface ReplicaPlan {
  readonly name: string;
  /** "" where zones are no matter. */
  readonly zone: string;
  readonly endpoint: Endpoint;
}

/** What a workload does with a request. */
export interface Behaviour {
  /** Its own work, without the calls it makes. */
  readonly latency: Latency;
  /** Share of requests that it answers with 500 after its work, 0 … 1. */
  readonly errorRate: number;
  /** Requests that one pod works on at once; one that waits for a call of its own counts. */
  readonly workersMax: number;
  /** Requests that may wait in one pod; one more is answered 503 at once. */
  readonly waitingMax: number;
  /** Whether it stops work on a request whose client went away. Most programs do not notice. */
  readonly noticesAbort: boolean;
  /** Made one after another once its own work is done. */
  readonly calls: readonly CallPlan[];
}

/** One request as its sender makes it. */
export interface CallPlan {
  /** `ServicePlan.path`. */
  readonly to: string;
  readonly head: RequestHead;
  /** Bytes of body, sent at once; 0: none. */
  readonly bodyBytes: number;
  /** The sender gives up after so long; 0: never. */
  readonly timeoutMs: number;
  /** A failure is no failure of the caller. */
  readonly isOptional: boolean;
  /** The longest that the mesh may take by its settings: held against what it took. 0: no such bound. */
  readonly boundMs: number;
  /** Each request carries a number of its own (`REQUEST_NUMBER`), by which an observer follows it through retries. */
  readonly isNumbered: boolean;
}

export const REQUEST_NUMBER = "x-simulated-request";

export interface ServicePlan {
  /** `svc.ns.svc.cluster.local:port`. */
  readonly path: string;
  /** By name: those whose pods are its endpoints. */
  readonly workloads: readonly string[];
  /** As the sidecar of a client in this workload has it. */
  readonly policyFor: (clientWorkload: string) => OutboundPolicy;
}

export interface NetworkPlan {
  /** One way, within a zone. */
  readonly latencyMs: number;
  /** One way, from zone to zone. */
  readonly zoneLatencyMs: number;
  /** How long an endpoint stays in discovery after it died, and stays out after it is back. */
  readonly discoveryMs: number;
}

export type LoadPlan = {
  /** By name: its pods take turns in sending. */
  readonly from: string;
  readonly call: CallPlan;
  /** Requests get this header with one of `count` values, drawn evenly; null: none. */
  readonly keys: { readonly header: string; readonly count: number } | null;
  /** How often the sender itself tries again after a failure, at once. */
  readonly retriesMax: number;
} & (
  | {
      /** Requests come whatever becomes of them. */
      readonly kind: "open";
      /** At least one step; the rate of each grows to that of the next, or jumps where two have the same time. */
      readonly steps: readonly { readonly atMs: number; readonly perSecond: number }[];
    }
  | {
      /** So many users, each of whom waits for an answer, then thinks. */
      readonly kind: "closed";
      readonly users: number;
      readonly think: Latency;
    }
);

export interface FailurePlan {
  readonly atMs: number;
  readonly forMs: number;
  readonly what: FailureKind;
}

export type FailureKind =
  /** Pods of a workload (the first `pods` of them) take `factor` times as long. */
  | { readonly kind: "slow"; readonly workload: string; readonly pods: number; readonly factor: number }
  | { readonly kind: "errors"; readonly workload: string; readonly pods: number; readonly rate: number }
  /** They work on `share` of the requests at once that they usually can, at least one. */
  | { readonly kind: "capacity"; readonly workload: string; readonly pods: number; readonly share: number }
  /** They end at once: connections break, new ones are refused, what was under way is lost. */
  | { readonly kind: "death"; readonly workload: string; readonly pods: number }
  /** All pods of a zone are gone without a word: nothing answers, nothing refuses. */
  | { readonly kind: "zone"; readonly zone: string };
