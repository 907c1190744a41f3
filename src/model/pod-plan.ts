/**
 * A pod as the control plane wants the agent to run it: everything resolved (ConfigMaps, Secrets, defaults), so that the
 * agent needs no other object. JSON-safe. Kubernetes' names are kept where the meaning is Kubernetes' own.
 */
export interface PodPlan {
  /** Stable over restarts of control plane and agent; a new pod has a new uid. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly serviceAccount: string;
  /** "Deployment/shop/front", for display and label purposes. */
  readonly owner: string;
  /** Changes when anything changes that needs a new pod. */
  readonly templateHash: string;
  readonly restartPolicy: "Always" | "OnFailure" | "Never";
  readonly terminationGracePeriodSeconds: number;
  readonly hostname: string;
  readonly subdomain: string | null;
  readonly fsGroup: number | null;
  readonly supplementalGroups: readonly number[];
  readonly shareProcessNamespace: boolean;
  /** Search domains and extra options for /etc/resolv.conf; the agent adds its nameserver. */
  readonly dnsSearch: readonly string[];
  readonly hostAliases: readonly { readonly ip: string; readonly hostnames: readonly string[] }[];
  readonly initContainers: readonly ContainerPlan[];
  readonly containers: readonly ContainerPlan[];
  readonly volumes: readonly VolumePlan[];
  /** null: an unmeshed pod. */
  readonly sidecar: SidecarPlan | null;
}

export interface ContainerPlan {
  readonly name: string;
  /**
   * Command and args joined. Here and in the values of `env`, `$(NAME)` is left only for the agent to replace, where NAME is
   * a variable with a `field` (`withFieldVariables`); every other `$(…)` is literal text.
   */
  readonly argv: readonly string[];
  readonly workingDir: string | null;
  readonly env: readonly EnvPlan[];
  readonly ports: readonly {
    readonly name: string;
    readonly containerPort: number;
    readonly protocol: "TCP" | "UDP";
    readonly hostPort: number | null;
    readonly hostIp: string | null;
  }[];
  readonly mounts: readonly {
    readonly volume: string;
    readonly mountPath: string;
    readonly subPath: string | null;
    readonly readOnly: boolean;
  }[];
  readonly runAsUser: number | null;
  readonly runAsGroup: number | null;
  readonly readOnlyRootFilesystem: boolean;
  /** Capabilities beyond or short of the container runtimes' default set, names without CAP_. */
  readonly capabilitiesAdd: readonly string[];
  readonly capabilitiesDrop: readonly string[];
  readonly cpuLimitMillis: number | null;
  readonly cpuRequestMillis: number | null;
  readonly memoryLimitBytes: number | null;
  readonly memoryRequestBytes: number | null;
  readonly startupProbe: ProbePlan | null;
  readonly readinessProbe: ProbePlan | null;
  readonly livenessProbe: ProbePlan | null;
  readonly postStart: HookPlan | null;
  readonly preStop: HookPlan | null;
  /** A native sidecar container: an init container that goes on running (restartPolicy: Always). */
  readonly restartAlways: boolean;
  readonly stdin: boolean;
  readonly tty: boolean;
}

/** A plain value, or something only the agent knows when it starts the pod. */
export type EnvPlan =
  | { readonly name: string; readonly value: string }
  | { readonly name: string; readonly field: "status.podIP" | "status.podIPs" | "status.hostIP" };

export type HookPlan =
  | { readonly kind: "exec"; readonly argv: readonly string[] }
  | {
      readonly kind: "http";
      readonly path: string;
      readonly port: number;
      readonly scheme: "HTTP" | "HTTPS";
      readonly host: string | null;
      readonly headers: readonly [string, string][];
    }
  | { readonly kind: "sleep"; readonly seconds: number };

export type ProbeAction =
  | { readonly kind: "exec"; readonly argv: readonly string[] }
  | {
      readonly kind: "http";
      readonly path: string;
      readonly port: number;
      readonly scheme: "HTTP" | "HTTPS";
      readonly host: string | null;
      readonly headers: readonly [string, string][];
    }
  | { readonly kind: "tcp"; readonly port: number; readonly host: string | null }
  | { readonly kind: "grpc"; readonly port: number; readonly service: string };

export interface ProbePlan {
  readonly action: ProbeAction;
  readonly initialDelaySeconds: number;
  readonly periodSeconds: number;
  readonly timeoutSeconds: number;
  readonly successThreshold: number;
  readonly failureThreshold: number;
  readonly terminationGracePeriodSeconds: number | null;
}

export type VolumePlan =
  | {
      readonly name: string;
      readonly kind: "emptyDir";
      readonly medium: "" | "Memory";
      readonly sizeLimitBytes: number | null;
    }
  | { readonly name: string; readonly kind: "hostPath"; readonly path: string; readonly type: string }
  /** ConfigMap, Secret, downwardAPI and projected volumes: files whose content is known (rewritten in place, atomically, when it changes). */
  | {
      readonly name: string;
      readonly kind: "files";
      readonly secret: boolean;
      readonly files: readonly { readonly path: string; readonly mode: number; readonly base64: string }[];
    }
  /** A claim: a folder kept in the agent's state under namespace and claim name, outliving the pod. */
  | { readonly name: string; readonly kind: "claim"; readonly claim: string; readonly readOnly: boolean };

/** How to run a pod's sidecar. The agent adds the pod's addresses and the token's file descriptor. */
export interface SidecarPlan {
  /** Environment (`LINKERD2_PROXY_*`, `PILLION_*`) less what the agent adds: INBOUND_IPS, token fd, interception mode. */
  readonly env: Readonly<Record<string, string>>;
  readonly cpuLimitMillis: number | null;
  readonly memoryLimitBytes: number | null;
  /** How often the control plane has had it started again: a sidecar that was started for another number is. Absent: never. */
  readonly starts?: number;
  readonly skipInboundPorts: readonly number[];
  readonly skipOutboundPorts: readonly number[];
  readonly letThroughCidrs: readonly string[];
  /** Inbound sources that the kernel refuses at one port, because policy would whoever they are: `10.0.0.0/8:443`. Absent: none. */
  readonly refusedInbound?: readonly string[];
  /** Its containers get the socket of the SPIFFE Workload API. */
  readonly workloadApi: boolean;
}

/** A Service as the agent needs it: for DNS, virtual IPs without a sidecar, and published ports. */
export interface ServicePlan {
  readonly name: string;
  readonly namespace: string;
  /** null for a headless Service. */
  readonly clusterIp: string | null;
  readonly externalName: string | null;
  readonly publishNotReady: boolean;
  readonly sessionAffinityClientIp: boolean;
  readonly ports: readonly {
    readonly name: string;
    readonly port: number;
    readonly protocol: "TCP" | "UDP";
  }[];
  /** Pods behind it, ready or not. `targetPorts[i]` answers `ports[i]` (0: this pod does not serve it). */
  readonly endpoints: readonly {
    readonly podUid: string;
    readonly ip: string;
    readonly hostname: string | null;
    readonly ready: boolean;
    readonly targetPorts: readonly number[];
  }[];
}

export type PodPhase = "Pending" | "Running" | "Succeeded" | "Failed";

/** What the agent reports of a pod. */
export interface PodStatus {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly templateHash: string;
  readonly owner: string;
  /** "" until the network is up. */
  readonly ip: string;
  readonly phase: PodPhase;
  /** All containers ready (probes) and, when meshed, the sidecar ready and intercepting. */
  readonly ready: boolean;
  readonly terminating: boolean;
  /** One sentence for people when not ready or failed: who, what, what to check. "" when all is well. */
  readonly message: string;
  readonly startedAtMs: number;
  readonly intercept: "ebpf" | "nftables" | "explicit" | "none";
  readonly containers: readonly ContainerStatus[];
  /** null for an unmeshed pod. Its name in `logs` and `exec` is "pillion-sidecar". */
  readonly sidecar: (ContainerStatus & { readonly pid: number; readonly uid: number }) | null;
}

export interface ContainerStatus {
  readonly name: string;
  readonly state: "waiting" | "running" | "terminated";
  /** "CrashLoopBackOff", "Completed", "Error", "OOMKilled", "ContainerCannotRun", … */
  readonly reason: string;
  readonly ready: boolean;
  readonly started: boolean;
  readonly restartCount: number;
  readonly exitCode: number | null;
  readonly startedAtMs: number;
}
