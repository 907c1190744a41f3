import type { PodStatus, ServicePlan } from "./pod-plan.ts";
import type { ControlAnswer, ControlQuestion, NodeInfo } from "./node-protocol.ts";

/**
 * What the operator's command asks of the agent: newline-delimited JSON over `agent.sock` (only for the user who
 * started the mesh, checked by SO_PEERCRED). One request a connection; several answers where the kind says so, the last with `done`.
 */
export type OperatorRequest =
  | { readonly kind: "status" }
  /** Answers "traffic" once: kernel telemetry and where each sidecar's metrics are. */
  | { readonly kind: "traffic" }
  /** The sidecars' metrics, read by the agent: for a command that cannot reach the pods' addresses itself. */
  | { readonly kind: "pages" }
  /** What each sidecar has seen asked of its workload, and what was decided: answers of their admin ports to `/flows`. */
  | { readonly kind: "flows" }
  /**
   * How a Service's endpoints look to a pod's sidecar: the answer of its admin port to `/endpoints`. `headers`: of the request
   * that is to be sent.
   */
  | {
      readonly kind: "endpoints";
      readonly podUid: string;
      readonly backend: string;
      readonly headers: readonly (readonly [name: string, value: string])[];
    }
  /** How to run a command in a container: answered by "exec", then the command line runs it itself (it is root). */
  | {
      readonly kind: "exec";
      readonly namespace: string;
      readonly pod: string;
      readonly container: string;
      readonly argv: readonly string[];
      readonly tty: boolean;
    }
  | { readonly kind: "logs"; readonly namespace: string; readonly pod: string; readonly container: string }
  /** Passed on to the control plane. */
  | { readonly kind: "ask"; readonly question: ControlQuestion }
  /** Ends all pods and everything else, then the agent. Answers progress, then done. */
  | { readonly kind: "down" };

export type OperatorAnswer =
  /** `planned`: the control plane has sent what should run, for the folder as it is now. */
  | {
      readonly kind: "status";
      readonly node: NodeInfo;
      readonly agentPid: number;
      readonly controlPid: number;
      readonly controlConnected: boolean;
      readonly folder: string;
      readonly planned: boolean;
      readonly pods: readonly PodStatus[];
      readonly services: readonly ServicePlan[];
      /** Promises of the mesh that this way of running cannot keep, a sentence each. */
      readonly notKept: readonly string[];
    }
  | { readonly kind: "traffic"; readonly pods: readonly PodTrafficReport[] }
  | { readonly kind: "pages"; readonly pages: readonly { readonly podUid: string; readonly text: string }[] }
  /** JSON (`FlowPage`), as it came: a sidecar may have been taken over. */
  | { readonly kind: "flows"; readonly pages: readonly { readonly podUid: string; readonly text: string }[] }
  /** JSON (`PickExplanation`); "" where the sidecar has not used it of late. */
  | { readonly kind: "endpoints"; readonly text: string }
  /** argv for the command line to spawn with inherited stdio: it enters the container's namespaces, cgroup, user and limits. */
  | { readonly kind: "exec"; readonly argv: readonly string[] }
  | { readonly kind: "logs"; readonly file: string }
  | { readonly kind: "control"; readonly answer: ControlAnswer }
  | { readonly kind: "progress"; readonly message: string }
  | { readonly kind: "done" }
  | { readonly kind: "error"; readonly message: string };

export interface PodTrafficReport {
  readonly podUid: string;
  /** `http://IP:4191/metrics`, "" for an unmeshed pod. */
  readonly metricsUrl: string;
  readonly targets: readonly {
    readonly target: string;
    readonly direction: "in" | "out";
    /** "refused": by the kernel, for policy; only `connections` counts. */
    readonly via: "sidecar" | "kernel" | "refused";
    readonly connections: number;
    readonly bytesIn: number;
    readonly bytesOut: number;
    readonly retransmits: number;
    readonly rttUs: number;
  }[];
}
