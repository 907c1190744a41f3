import type { AccessObject } from "./access-objects.ts";
import type { PolicyObject, RouteObject } from "./policy-objects.ts";

/**
 * The fields of Kubernetes objects that are honoured, as they stand in a manifest that passed `validateObject`. Names
 * are Kubernetes' own; absent fields keep Kubernetes' defaults, which are applied where the field is used.
 */
export interface Metadata {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  /** RFC 3339; absent where nobody gave one. */
  readonly creationTimestamp?: string;
}

export type KubeObject =
  | AccessObject
  | PolicyObject
  | NamespaceObject
  | ServiceAccountObject
  | ConfigMapObject
  | SecretObject
  | PodObject
  | DeploymentObject
  | StatefulSetObject
  | DaemonSetObject
  | JobObject
  | ClaimObject
  | ServiceObject
  | EndpointSliceObject;

interface Base<Kind extends string> {
  readonly kind: Kind;
  readonly metadata: Metadata;
}

export type NamespaceObject = Base<"Namespace">;
export type ServiceAccountObject = Base<"ServiceAccount">;
export type ClaimObject = Base<"PersistentVolumeClaim">;

export interface ConfigMapObject extends Base<"ConfigMap"> {
  readonly data?: Readonly<Record<string, string>>;
  readonly binaryData?: Readonly<Record<string, string>>;
}

export interface SecretObject extends Base<"Secret"> {
  readonly data?: Readonly<Record<string, string>>;
  readonly stringData?: Readonly<Record<string, string>>;
}

export interface PodObject extends Base<"Pod"> {
  readonly spec: PodSpec;
}

export interface PodTemplate {
  readonly metadata?: {
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: PodSpec;
}

export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: "In" | "NotIn" | "Exists" | "DoesNotExist";
    readonly values?: readonly string[];
  }[];
}

export type IntOrPercent = number | string;

export interface DeploymentObject extends Base<"Deployment"> {
  readonly spec: {
    readonly replicas?: number;
    readonly selector: LabelSelector;
    readonly template: PodTemplate;
    readonly minReadySeconds?: number;
    readonly strategy?: {
      readonly type?: "RollingUpdate" | "Recreate";
      readonly rollingUpdate?: { readonly maxSurge?: IntOrPercent; readonly maxUnavailable?: IntOrPercent };
    };
    readonly progressDeadlineSeconds?: number;
    readonly paused?: boolean;
  };
}

export interface StatefulSetObject extends Base<"StatefulSet"> {
  readonly spec: {
    readonly replicas?: number;
    readonly selector: LabelSelector;
    readonly serviceName?: string;
    readonly template: PodTemplate;
    readonly minReadySeconds?: number;
    readonly podManagementPolicy?: "OrderedReady" | "Parallel";
    readonly updateStrategy?: {
      readonly type?: "RollingUpdate" | "OnDelete";
      readonly rollingUpdate?: { readonly partition?: number };
    };
    readonly volumeClaimTemplates?: readonly { readonly metadata: { readonly name: string } }[];
    readonly ordinals?: { readonly start?: number };
  };
}

export interface DaemonSetObject extends Base<"DaemonSet"> {
  readonly spec: {
    readonly selector: LabelSelector;
    readonly template: PodTemplate;
    readonly minReadySeconds?: number;
    readonly updateStrategy?: {
      readonly type?: "RollingUpdate" | "OnDelete";
      readonly rollingUpdate?: { readonly maxSurge?: IntOrPercent; readonly maxUnavailable?: IntOrPercent };
    };
  };
}

export interface JobObject extends Base<"Job"> {
  readonly spec: {
    readonly template: PodTemplate;
    readonly completions?: number;
    readonly parallelism?: number;
    readonly backoffLimit?: number;
    readonly activeDeadlineSeconds?: number;
    readonly ttlSecondsAfterFinished?: number;
    readonly suspend?: boolean;
  };
}

export interface ServiceObject extends Base<"Service"> {
  readonly spec: {
    readonly type?: "ClusterIP" | "ExternalName";
    readonly clusterIP?: string;
    readonly clusterIPs?: readonly string[];
    readonly externalName?: string;
    readonly selector?: Readonly<Record<string, string>>;
    readonly ports?: readonly ServicePort[];
    readonly publishNotReadyAddresses?: boolean;
  };
}

export interface ServicePort {
  readonly name?: string;
  readonly port: number;
  readonly targetPort?: number | string;
  readonly protocol?: "TCP" | "UDP";
  readonly appProtocol?: string;
}

export interface EndpointSliceObject extends Base<"EndpointSlice"> {
  readonly ports?: readonly {
    readonly name?: string;
    readonly port: number;
    readonly protocol?: "TCP" | "UDP";
    readonly appProtocol?: string;
  }[];
  readonly endpoints: readonly {
    readonly addresses: readonly string[];
    readonly conditions?: {
      readonly ready?: boolean;
      readonly serving?: boolean;
      readonly terminating?: boolean;
    };
    readonly hostname?: string;
  }[];
}

export interface PodSpec {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly volumes?: readonly Volume[];
  readonly restartPolicy?: "Always" | "OnFailure" | "Never";
  readonly terminationGracePeriodSeconds?: number;
  readonly serviceAccountName?: string;
  readonly serviceAccount?: string;
  readonly hostname?: string;
  readonly subdomain?: string;
  readonly hostAliases?: readonly { readonly ip: string; readonly hostnames?: readonly string[] }[];
  readonly shareProcessNamespace?: boolean;
  readonly dnsConfig?: { readonly searches?: readonly string[] };
  readonly securityContext?: {
    readonly runAsUser?: number;
    readonly runAsGroup?: number;
    readonly runAsNonRoot?: boolean;
    readonly fsGroup?: number;
    readonly supplementalGroups?: readonly number[];
  };
}

export interface Container {
  readonly name: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly workingDir?: string;
  readonly env?: readonly EnvVar[];
  readonly envFrom?: readonly {
    readonly prefix?: string;
    readonly configMapRef?: NameRef;
    readonly secretRef?: NameRef;
  }[];
  readonly ports?: readonly {
    readonly name?: string;
    readonly containerPort: number;
    readonly hostPort?: number;
    readonly hostIP?: string;
    readonly protocol?: "TCP" | "UDP";
  }[];
  readonly resources?: { readonly limits?: ResourceList; readonly requests?: ResourceList };
  readonly volumeMounts?: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly subPath?: string;
    readonly readOnly?: boolean;
  }[];
  readonly securityContext?: {
    readonly runAsUser?: number;
    readonly runAsGroup?: number;
    readonly runAsNonRoot?: boolean;
    readonly readOnlyRootFilesystem?: boolean;
    readonly capabilities?: { readonly add?: readonly string[]; readonly drop?: readonly string[] };
  };
  readonly startupProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly lifecycle?: { readonly postStart?: Hook; readonly preStop?: Hook };
  readonly stdin?: boolean;
  readonly tty?: boolean;
  readonly restartPolicy?: "Always";
}

export interface ResourceList {
  readonly cpu?: string | number;
  readonly memory?: string | number;
}

export interface NameRef {
  readonly name: string;
  readonly optional?: boolean;
}

export interface KeyRef extends NameRef {
  readonly key: string;
}

export interface FieldRef {
  readonly fieldPath: string;
}

export interface ResourceFieldRef {
  readonly containerName?: string;
  readonly resource: "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory";
  readonly divisor?: string | number;
}

export interface EnvVar {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: {
    readonly fieldRef?: FieldRef;
    readonly resourceFieldRef?: ResourceFieldRef;
    readonly configMapKeyRef?: KeyRef;
    readonly secretKeyRef?: KeyRef;
  };
}

export interface HttpAction {
  readonly path?: string;
  readonly port: number | string;
  readonly scheme?: "HTTP" | "HTTPS";
  readonly host?: string;
  readonly httpHeaders?: readonly { readonly name: string; readonly value?: string }[];
}

export interface Probe {
  readonly exec?: { readonly command: readonly string[] };
  readonly httpGet?: HttpAction;
  readonly tcpSocket?: { readonly port: number | string; readonly host?: string };
  readonly grpc?: { readonly port: number; readonly service?: string };
  readonly initialDelaySeconds?: number;
  readonly periodSeconds?: number;
  readonly timeoutSeconds?: number;
  readonly successThreshold?: number;
  readonly failureThreshold?: number;
  readonly terminationGracePeriodSeconds?: number;
}

export interface Hook {
  readonly exec?: { readonly command: readonly string[] };
  readonly httpGet?: HttpAction;
  readonly sleep?: { readonly seconds: number };
}

export interface KeyItem {
  readonly key: string;
  readonly path: string;
  readonly mode?: number;
}

export interface DownwardItem {
  readonly path: string;
  readonly mode?: number;
  readonly fieldRef?: FieldRef;
  readonly resourceFieldRef?: ResourceFieldRef;
}

export interface Volume {
  readonly name: string;
  readonly emptyDir?: { readonly medium?: "" | "Memory"; readonly sizeLimit?: string | number };
  readonly hostPath?: { readonly path: string; readonly type?: string };
  readonly configMap?: NameRef & { readonly defaultMode?: number; readonly items?: readonly KeyItem[] };
  readonly secret?: {
    readonly secretName: string;
    readonly optional?: boolean;
    readonly defaultMode?: number;
    readonly items?: readonly KeyItem[];
  };
  readonly downwardAPI?: { readonly defaultMode?: number; readonly items?: readonly DownwardItem[] };
  readonly projected?: {
    readonly defaultMode?: number;
    readonly sources?: readonly {
      readonly configMap?: NameRef & { readonly items?: readonly KeyItem[] };
      readonly secret?: NameRef & { readonly items?: readonly KeyItem[] };
      readonly downwardAPI?: { readonly items?: readonly DownwardItem[] };
    }[];
  };
  readonly persistentVolumeClaim?: { readonly claimName: string; readonly readOnly?: boolean };
}

/** Kinds that make pods. */
export type WorkloadObject = PodObject | DeploymentObject | StatefulSetObject | DaemonSetObject | JobObject;

export function isWorkload(object: KubeObject): object is WorkloadObject {
  return (
    object.kind === "Pod" ||
    object.kind === "Deployment" ||
    object.kind === "StatefulSet" ||
    object.kind === "DaemonSet" ||
    object.kind === "Job"
  );
}

export function templateOf(object: WorkloadObject): PodTemplate {
  return object.kind === "Pod" ? { metadata: object.metadata, spec: object.spec } : object.spec.template;
}

/** Path from the object to its pod template. */
export function templatePath(object: WorkloadObject): readonly string[] {
  return object.kind === "Pod" ? [] : ["spec", "template"];
}

const CLUSTER_SCOPED = new Set(["Namespace"]);

/** "" for kinds that live in no namespace. */
export function namespaceOf(object: KubeObject): string {
  return CLUSTER_SCOPED.has(object.kind) ? "" : (object.metadata.namespace ?? "default");
}

/** `Deployment/shop/front`: unique in a model, and what people read. */
export function objectKey(object: KubeObject): string {
  // Some kinds are there twice: Linkerd has an HTTPRoute and an AuthorizationPolicy of its own.
  const kind = isLinkerds(object) ? `${object.kind}.linkerd` : object.kind;
  return `${kind}/${namespaceOf(object)}/${object.metadata.name}`;
}

export const LINKERD_POLICY = "policy.linkerd.io";

export function isLinkerds(object: KubeObject): boolean {
  return (object as { apiVersion?: string }).apiVersion?.startsWith(`${LINKERD_POLICY}/`) === true;
}

/** The name that `get` and `status` have for an object's kind: `KIND.GROUP` where another group has the name already. */
export function shownKind(object: KubeObject): string {
  return object.kind === "AuthorizationPolicy" && isLinkerds(object)
    ? `${object.kind}.${LINKERD_POLICY}`
    : object.kind;
}

/** The API group: what stands before the version. */
export function groupOf(object: PolicyObject | AccessObject): string {
  return object.apiVersion.split("/")[0]!;
}

export function isRoute(object: KubeObject): object is RouteObject {
  return (
    object.kind === "HTTPRoute" ||
    object.kind === "GRPCRoute" ||
    object.kind === "TLSRoute" ||
    object.kind === "TCPRoute"
  );
}

export function selectorMatches(selector: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
  for (const [key, value] of Object.entries(selector.matchLabels ?? {}))
    if (labels[key] !== value) return false;
  for (const rule of selector.matchExpressions ?? []) {
    const value = labels[rule.key];
    const listed = value !== undefined && (rule.values ?? []).includes(value);
    if (rule.operator === "In" && !listed) return false;
    if (rule.operator === "NotIn" && listed) return false;
    if (rule.operator === "Exists" && value === undefined) return false;
    if (rule.operator === "DoesNotExist" && value !== undefined) return false;
  }
  return true;
}
