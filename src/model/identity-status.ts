/** How the mesh's certificates stand, as the control plane tells the operator's command. JSON-safe. */
export interface IdentityStatus {
  readonly trustDomain: string;
  /** Where root and issuer come from: "own", or the folder of an outside issuer. */
  readonly source: string;
  /** All roots that sidecars trust now. */
  readonly roots: readonly CertificateReport[];
  readonly issuer: CertificateReport;
  /** Of the roots, as sidecars confirm them. */
  readonly sequence: number;
  readonly rotation: RotationReport | null;
  /** What has expired or soon will, or cannot be read, with the command that helps. Empty: all is well. */
  readonly problems: readonly string[];
  /** SPIFFE IDs that get no certificate and are let in nowhere. */
  readonly revoked: readonly string[];
}

export interface CertificateReport {
  readonly name: string;
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Of roots: "signs" is above the issuer in force, "next" will be, "old" is trusted for leaves that it was above. */
  readonly role: "signs" | "next" | "old" | "issuer";
}

export interface RotationReport {
  readonly what: "root" | "issuer";
  readonly startedAtMs: number;
  readonly isForced: boolean;
  readonly steps: readonly RotationStepReport[];
  /** Since when the present step waits. */
  readonly sinceMs: number;
  readonly waitingFor: readonly AwaitedPod[];
}

export interface RotationStepReport {
  readonly step: "prepare" | "distribute" | "sign" | "renew" | "drop";
  readonly state: "done" | "now" | "to come";
  readonly what: string;
}

export interface AwaitedPod {
  readonly namespace: string;
  readonly name: string;
  /** Why, and what helps. */
  readonly why: string;
}
