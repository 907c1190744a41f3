import {
  bool,
  checked,
  dnsLabel,
  dnsSubdomain,
  harmless,
  int,
  intOrPercent,
  kindSchema,
  labelSelector,
  list,
  mapOf,
  object,
  oneOf,
  only,
  portRef,
  refused,
  text,
} from "./language.ts";
import type { Schema } from "./language.ts";
import { podSpec, podTemplate } from "./pod.ts";
import { publishedKinds } from "./published.ts";
import { ACCESS_KINDS } from "./access.ts";
import { JWT_KINDS } from "./jwt.ts";
import { TRAFFIC_KINDS } from "./traffic.ts";

const NO_GATEWAY = "there is no gateway in this mesh, which carries traffic between its own workloads";
const NO_SUCH_PORT =
  "nothing would listen on the machine; publish the pod's port with containers[].ports[].hostPort and use type ClusterIP";

const claimSpec: Schema = object({
  accessModes: harmless(),
  resources: harmless(),
  storageClassName: harmless(),
  volumeMode: only(["Filesystem"], "a claim is a folder; use Filesystem"),
  volumeName: refused("a claim is a folder of its own; use hostPath for a given one"),
  selector: refused("a claim is a folder of its own; delete the field"),
  dataSource: refused("a claim begins empty; delete the field"),
  dataSourceRef: refused("a claim begins empty; delete the field"),
});

/** The kinds that are honoured, and every field of them. */
export const KINDS: Readonly<Record<string, Schema>> = {
  Namespace: kindSchema(["v1"], "Namespace", { spec: harmless() }),
  ServiceAccount: kindSchema(["v1"], "ServiceAccount", {
    imagePullSecrets: harmless(),
    secrets: harmless(),
    automountServiceAccountToken: only(
      [false],
      "there is no API server to use a token with; delete the field or write false",
    ),
  }),
  ConfigMap: kindSchema(["v1"], "ConfigMap", {
    data: mapOf(text),
    binaryData: mapOf(checked("base64")),
    immutable: harmless(),
  }),
  Secret: kindSchema(["v1"], "Secret", {
    type: text,
    data: mapOf(checked("base64")),
    stringData: mapOf(text),
    immutable: harmless(),
  }),
  Pod: kindSchema(["v1"], "Pod", { spec: podSpec }, ["spec"]),
  Deployment: kindSchema(
    ["apps/v1"],
    "Deployment",
    {
      spec: object(
        {
          replicas: int(0, 10_000),
          selector: labelSelector,
          template: podTemplate,
          minReadySeconds: int(0, 86_400),
          strategy: object({
            type: oneOf("RollingUpdate", "Recreate"),
            rollingUpdate: object({ maxSurge: intOrPercent, maxUnavailable: intOrPercent }),
          }),
          revisionHistoryLimit: harmless(),
          progressDeadlineSeconds: int(1),
          paused: bool,
        },
        ["selector", "template"],
      ),
    },
    ["spec"],
  ),
  StatefulSet: kindSchema(
    ["apps/v1"],
    "StatefulSet",
    {
      spec: object(
        {
          replicas: int(0, 10_000),
          selector: labelSelector,
          serviceName: dnsLabel,
          template: podTemplate,
          minReadySeconds: int(0, 86_400),
          podManagementPolicy: oneOf("OrderedReady", "Parallel"),
          updateStrategy: object({
            type: oneOf("RollingUpdate", "OnDelete"),
            rollingUpdate: object({
              partition: int(),
              maxUnavailable: only([1], "pods are replaced one after another; delete the field"),
            }),
          }),
          volumeClaimTemplates: list(
            object(
              {
                apiVersion: harmless(),
                kind: harmless(),
                metadata: object(
                  {
                    name: dnsLabel,
                    labels: harmless(),
                    annotations: harmless(),
                    creationTimestamp: harmless(),
                  },
                  ["name"],
                ),
                spec: claimSpec,
                status: harmless(),
              },
              ["metadata"],
            ),
          ),
          persistentVolumeClaimRetentionPolicy: object({
            whenDeleted: only(["Retain"], "claims are never deleted; remove the folder by hand"),
            whenScaled: only(["Retain"], "claims are never deleted; remove the folder by hand"),
          }),
          ordinals: object({ start: int() }),
          revisionHistoryLimit: harmless(),
        },
        ["selector", "template"],
      ),
    },
    ["spec"],
  ),
  DaemonSet: kindSchema(
    ["apps/v1"],
    "DaemonSet",
    {
      spec: object(
        {
          selector: labelSelector,
          template: podTemplate,
          minReadySeconds: int(0, 86_400),
          updateStrategy: object({
            type: oneOf("RollingUpdate", "OnDelete"),
            rollingUpdate: object({ maxSurge: intOrPercent, maxUnavailable: intOrPercent }),
          }),
          revisionHistoryLimit: harmless(),
        },
        ["selector", "template"],
      ),
    },
    ["spec"],
  ),
  Job: kindSchema(
    ["batch/v1"],
    "Job",
    {
      spec: object(
        {
          template: podTemplate,
          completions: int(0, 10_000),
          parallelism: int(0, 10_000),
          backoffLimit: int(),
          activeDeadlineSeconds: int(1),
          ttlSecondsAfterFinished: int(),
          suspend: bool,
          completionMode: only(["NonIndexed"], "completion indexes are not given to pods; use NonIndexed"),
          manualSelector: refused("a Job's pods are known from their owner; delete the field"),
          selector: refused("a Job's pods are known from their owner; delete the field"),
          podFailurePolicy: refused("every failure counts against backoffLimit; delete the field"),
          successPolicy: refused("a Job is done when completions pods succeeded; delete the field"),
          backoffLimitPerIndex: refused("completion indexes are not given to pods"),
          maxFailedIndexes: refused("completion indexes are not given to pods"),
          podReplacementPolicy: only(
            ["TerminatingOrFailed"],
            "a failed pod is replaced at once; delete the field",
          ),
          managedBy: refused("Jobs are always managed here; delete the field"),
        },
        ["template"],
      ),
    },
    ["spec"],
  ),
  PersistentVolumeClaim: kindSchema(["v1"], "PersistentVolumeClaim", { spec: claimSpec }),
  Service: kindSchema(
    ["v1"],
    "Service",
    {
      spec: object({
        type: {
          allOf: [
            oneOf("ClusterIP", "ExternalName", "NodePort", "LoadBalancer"),
            only(["ClusterIP", "ExternalName"], NO_SUCH_PORT),
          ],
        },
        clusterIP: checked("clusterIp"),
        clusterIPs: list(checked("clusterIp")),
        externalName: dnsSubdomain,
        selector: mapOf(text),
        ports: list(
          object(
            {
              name: dnsLabel,
              port: int(1, 65535),
              targetPort: portRef,
              protocol: only(["TCP", "UDP"], "SCTP is not carried here; use TCP or UDP"),
              appProtocol: text,
              nodePort: refused(NO_SUCH_PORT),
            },
            ["port"],
          ),
        ),
        publishNotReadyAddresses: bool,
        sessionAffinity: only(
          ["None"],
          "sidecars balance each request or connection by load, whoever sends it; delete the field",
        ),
        sessionAffinityConfig: refused("session affinity is not honoured; delete the field"),
        ipFamilies: list(only(["IPv4"], "virtual IPs are IPv4 here; delete the field"), 1),
        ipFamilyPolicy: only(
          ["SingleStack", "PreferDualStack"],
          "virtual IPs are IPv4 here; use PreferDualStack",
        ),
        // One machine: every endpoint is local.
        internalTrafficPolicy: oneOf("Cluster", "Local"),
        externalTrafficPolicy: harmless(),
        trafficDistribution: harmless(),
        allocateLoadBalancerNodePorts: harmless(),
        externalIPs: refused(NO_SUCH_PORT),
        loadBalancerIP: refused(NO_SUCH_PORT),
        loadBalancerClass: refused(NO_SUCH_PORT),
        loadBalancerSourceRanges: refused(NO_SUCH_PORT),
        healthCheckNodePort: refused(NO_SUCH_PORT),
      }),
    },
    ["spec"],
  ),
  EndpointSlice: kindSchema(
    ["discovery.k8s.io/v1"],
    "EndpointSlice",
    {
      addressType: only(
        ["IPv4"],
        "endpoints are given as IPv4 addresses here; resolve names yourself, or use a Service of type ExternalName",
      ),
      ports: list(
        object(
          {
            name: text,
            port: int(1, 65535),
            protocol: only(["TCP", "UDP"], "SCTP is not carried here"),
            appProtocol: text,
          },
          ["port"],
        ),
      ),
      endpoints: list(
        object(
          {
            addresses: list(checked("ip"), 1),
            conditions: object({ ready: bool, serving: bool, terminating: bool }),
            hostname: dnsLabel,
            nodeName: harmless(),
            zone: harmless(),
            hints: harmless(),
            deprecatedTopology: harmless(),
            targetRef: harmless(),
          },
          ["addresses"],
        ),
      ),
    },
    ["addressType", "endpoints"],
  ),
  ...publishedKinds(),
  ...TRAFFIC_KINDS,
  ...ACCESS_KINDS,
  ...JWT_KINDS,
};

/** Kinds that people have and that we do not honour: why, and what to do. Anything else is unknown. */
export const REFUSED_KINDS: Readonly<Record<string, string>> = {
  CronJob:
    "nothing here starts Jobs by the clock; use the machine's cron or a systemd timer with a Job's folder, and delete this object",
  ReplicaSet: "write a Deployment instead, which also rolls out changes",
  ReplicationController: "write a Deployment instead",
  HorizontalPodAutoscaler: "replicas are not scaled by load here; set spec.replicas and delete this object",
  VerticalPodAutoscaler: "requests and limits are not adjusted here; delete this object",
  PodDisruptionBudget: "nothing evicts pods here; rollouts keep to maxUnavailable; delete this object",
  Ingress: "nothing here takes traffic from outside by host name; publish a pod's port with hostPort",
  IngressClass: "nothing here takes traffic from outside by host name; delete this object",
  NetworkPolicy: "it would not be enforced; delete this object",
  Endpoints: "write an EndpointSlice with the label kubernetes.io/service-name instead",
  PersistentVolume: "claims are folders here; delete this object, or use hostPath",
  StorageClass: "claims are folders here; delete this object",
  LimitRange: "it would not be enforced; set resources on the containers",
  ResourceQuota: "it would not be enforced; delete this object",
  Role: "there is no API server whose use could be allowed; delete this object",
  RoleBinding: "there is no API server whose use could be allowed; delete this object",
  ClusterRole: "there is no API server whose use could be allowed; delete this object",
  ClusterRoleBinding: "there is no API server whose use could be allowed; delete this object",
  Gateway: `${NO_GATEWAY}; attach routes to a Service (parentRefs with group "" and kind Service) and delete this object`,
  GatewayClass: `${NO_GATEWAY}; delete this object`,
  ListenerSet: `${NO_GATEWAY}; delete this object`,
  XListenerSet: `${NO_GATEWAY}; delete this object`,
  BackendTLSPolicy: `${NO_GATEWAY}, and those have mutual TLS between them already; delete this object`,
  UDPRoute: "UDP does not pass the sidecars; delete this object",
  XMesh: "it would describe the mesh to a cluster's tools; delete this object",
  ServiceProfile: "write an HTTPRoute with timeouts and retry instead",
  EgressNetwork: "write an EgressPolicy (pillion.dev/v1alpha1) instead",
  VirtualService: "write an HTTPRoute, GRPCRoute, TLSRoute or TCPRoute instead",
  DestinationRule: "write a TrafficPolicy (pillion.dev/v1alpha1) instead",
  EnvoyFilter: "there is no Envoy here; delete this object",
  CustomResourceDefinition: "there is no API server that would hold such objects; delete this object",
};

/**
 * The name in `KINDS` of what an object says that it is: its kind, and where two groups have kinds of one name, `KIND.GROUP` for the
 * second. Null: none is honoured.
 */
export function kindKeyOf(kind: string, apiVersion: string): string | null {
  const inGroup = `${kind}.${apiVersion.split("/")[0]}`;
  return Object.hasOwn(KINDS, inGroup) ? inGroup : Object.hasOwn(KINDS, kind) ? kind : null;
}

/** Group of each kind that we honour, for messages about a wrong apiVersion. */
export function apiVersionsOf(kind: string): readonly string[] {
  return Object.entries(KINDS).flatMap(([key, schema]) =>
    key === kind || key.startsWith(`${kind}.`)
      ? ((schema as { properties?: { apiVersion?: { enum?: readonly string[] } } }).properties?.apiVersion
          ?.enum ?? [])
      : [],
  );
}
