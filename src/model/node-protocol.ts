import type { IdentityStatus, RotationReport } from "./identity-status.ts";
import type { AccessExplanation, AccessMatrix, AccessQuestion } from "./access-explanation.ts";
import type { Explanation, ExplainQuestion } from "./explanation.ts";
import type { PodPlan, PodStatus, ServicePlan } from "./pod-plan.ts";

/**
 * What agent and control plane say to each other: newline-delimited JSON over `control.sock`, on which the control plane
 * listens and whose peers both check by SO_PEERCRED. State is sent whole (level-triggered), so that either side may
 * restart at any time and a lost message cannot leave them apart. One line is at most `LINE_BYTES_MAX`.
 */
export const LINE_BYTES_MAX: number = 64 * 1024 * 1024;

export type FromAgent =
  /** First on each connection. */
  | { readonly kind: "hello"; readonly node: NodeInfo }
  /** The whole manifest folder: at start and after each change. The agent reads it, because only root may; it does not parse it. */
  | { readonly kind: "folder"; readonly files: readonly FolderFile[]; readonly problems: readonly string[] }
  /** All pods that the agent has, after each change (joined over 20 ms). */
  | { readonly kind: "pods"; readonly pods: readonly PodStatus[] }
  /** Asks for a single-use token for a pod of this machine; answered by `token`. */
  | { readonly kind: "attest"; readonly podUid: string; readonly requestId: number }
  /** Something the operator's command asks of the control plane; answered by `answer`. */
  | { readonly kind: "ask"; readonly requestId: number; readonly question: ControlQuestion };

export type FromControl =
  /** All that should run, after each change (joined over 20 ms). `revision` grows by one. */
  | {
      readonly kind: "plan";
      readonly revision: number;
      readonly pods: readonly PodPlan[];
      readonly services: readonly ServicePlan[];
    }
  | {
      readonly kind: "token";
      readonly requestId: number;
      readonly podUid: string;
      readonly token: string;
      /** The roots that the sidecar which gets the token starts with; its plan's may be older. */
      readonly trustAnchorsPem: string;
      readonly error: string;
    }
  | { readonly kind: "answer"; readonly requestId: number; readonly answer: ControlAnswer };

export interface FolderFile {
  /** Relative to the folder. */
  readonly path: string;
  readonly text: string;
}

export interface NodeInfo {
  readonly name: string;
  readonly instance: string;
  /** Where pods reach the machine (and the control plane's gRPC port): the bridge's address. */
  readonly gatewayIp: string;
  readonly podCidr: string;
  readonly serviceCidr: string;
  /** Port on `gatewayIp` on which the control plane serves sidecars, and DNS is at 53. */
  readonly controlPort: number;
  readonly intercept: "ebpf" | "nftables" | "explicit";
  readonly clusterDomain: string;
  readonly trustDomain: string;
  /**
   * A hook for tests of tests: sidecars are told that nobody has one, so they send in plaintext. Whoever claims that
   * traffic is encrypted must notice.
   */
  readonly testWithoutTls?: boolean;
}

export type ControlQuestion =
  /** Objects with their conditions, and the folder's problems. */
  | { readonly kind: "status" }
  /** Objects of the folder as they were written, with what became of them. Null: of all namespaces; "" : of any name. */
  | { readonly kind: "get"; readonly of: string; readonly namespace: string | null; readonly name: string }
  /** The files that the mesh goes by: of each the last good text. */
  | { readonly kind: "accepted" }
  /** What becomes of a request, and why. */
  | { readonly kind: "explain"; readonly question: ExplainQuestion }
  /** Who may do what, and why. */
  | { readonly kind: "explain-access"; readonly question: AccessQuestion }
  /** Who may use what in the whole mesh. Null: also servers of all namespaces. */
  | { readonly kind: "access-matrix"; readonly namespace: string | null }
  /** Rolls all pods of a workload by its own rules of updating ("deployment/front" in a namespace; target "" = all). */
  | { readonly kind: "rollout-restart"; readonly namespace: string; readonly target: string }
  /** How the mesh's certificates stand. */
  | { readonly kind: "identity-status" }
  /** Begins a rotation, or lets the one under way go on without those it waits for. `isDryRun`: only what it would do. */
  | {
      readonly kind: "identity-rotate";
      readonly what: "root" | "issuer";
      readonly isDryRun: boolean;
      readonly isForced: boolean;
    }
  /** Makes anew what has expired, and has sidecars started again that cannot go on by themselves. */
  | { readonly kind: "identity-repair" }
  /** Takes an identity (SPIFFE ID, DNS name or NAMESPACE/ACCOUNT) out of use, or back. */
  | { readonly kind: "identity-revoke"; readonly name: string; readonly isUndone: boolean }
  /** How far a rollout is: `done` says whether it is over. */
  | { readonly kind: "rollout-status"; readonly namespace: string; readonly target: string };

export type ControlAnswer =
  | {
      readonly kind: "status";
      readonly objects: readonly ObjectStatus[];
      readonly problems: readonly FolderProblem[];
      readonly certificates: readonly CertificateStatus[];
      readonly identity: IdentityStatus;
    }
  | { readonly kind: "identity"; readonly identity: IdentityStatus }
  | { readonly kind: "rotation-plan"; readonly plan: RotationReport }
  | {
      readonly kind: "objects";
      readonly objects: readonly { readonly manifest: unknown; readonly status: ObjectStatus }[];
    }
  | { readonly kind: "files"; readonly files: readonly FolderFile[] }
  | { readonly kind: "explained"; readonly explanation: Explanation }
  | { readonly kind: "access-explained"; readonly explanation: AccessExplanation }
  | { readonly kind: "access-matrix"; readonly matrix: AccessMatrix }
  /** `done`: false while what was asked for (a rollout) is still going on. */
  | { readonly kind: "ok"; readonly message: string; readonly done: boolean }
  | { readonly kind: "error"; readonly message: string };

export interface ObjectStatus {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly file: string;
  /** "3/3 ready", "rolling 2/5", … */
  readonly summary: string;
  readonly ok: boolean;
  /** Of routes and policies: how they stand with each parent or target. Empty for other kinds. */
  readonly parents: readonly ParentStatus[];
  /** What of it does not count, and where that stands: the rest of it does. */
  readonly findings: readonly FolderProblem[];
}

/** What became of a route at one parent, or of a policy at one target. */
export interface ParentStatus {
  readonly parent: ParentReference;
  readonly conditions: readonly Condition[];
}

/** Of a Service, `section` is the name of a port; of a route, of a rule. */
export interface ParentReference {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  /** "": pods by their labels. */
  readonly name: string;
  readonly section: string | null;
  readonly port: number | null;
}

/** `Service shop/web port 80`. */
export function describeParent({ kind, namespace, name, section, port }: ParentReference): string {
  const at = [port, section].filter((part) => part !== null).map((part) => ` port ${part}`);
  if (name === "") return `pods of ${namespace}`;
  if (namespace === "") return `${kind} ${name}`;
  return `${kind} ${namespace}/${name}${kind === "Service" ? at.join("") : section === null ? "" : ` rule ${section}`}`;
}

/** As Kubernetes' conditions; types and reasons are the Gateway API's. */
export interface Condition {
  readonly type: "Accepted" | "ResolvedRefs" | "PartiallyInvalid";
  readonly status: "True" | "False";
  readonly reason: string;
  /** For people; "" where the reason says it all. */
  readonly message: string;
}

/** In the message of an `Accepted` policy that changes nothing yet. */
export const AUDITED = "audited, not enforced";

/** A bad object or file: what, where, why. The last good state of that file stays. */
export interface FolderProblem {
  readonly file: string;
  readonly line: number;
  readonly object: string;
  readonly field: string;
  readonly reason: string;
}

export interface CertificateStatus {
  readonly name: "root" | "issuer";
  readonly notAfterMs: number;
}
