import {
  bool,
  checked,
  dnsLabel,
  dnsSubdomain,
  harmless,
  int,
  list,
  mapOf,
  object,
  oneOf,
  only,
  portRef,
  quantity,
  refused,
  templateMetadata,
  text,
} from "./language.ts";
import type { Schema } from "./language.ts";

const NO_IMAGE_RUNTIME = "there is no container runtime here";

const httpAction: Schema = object(
  {
    path: text,
    port: portRef,
    scheme: oneOf("HTTP", "HTTPS"),
    host: text,
    httpHeaders: list(object({ name: text, value: text }, ["name"])),
  },
  ["port"],
);
const execAction: Schema = object({ command: list(text, 1) }, ["command"]);

const probe: Schema = object({
  exec: execAction,
  httpGet: httpAction,
  tcpSocket: object({ port: portRef, host: text }, ["port"]),
  grpc: object({ port: int(1, 65535), service: text }, ["port"]),
  initialDelaySeconds: int(),
  periodSeconds: int(1),
  timeoutSeconds: int(1),
  successThreshold: int(1),
  failureThreshold: int(1),
  terminationGracePeriodSeconds: int(1),
});

const hook: Schema = object({
  exec: execAction,
  httpGet: httpAction,
  sleep: object({ seconds: int() }, ["seconds"]),
  tcpSocket: refused("deprecated by Kubernetes and without effect there; use exec, httpGet or sleep"),
});

const fieldRef: Schema = object({ apiVersion: only(["v1"], "only v1 exists"), fieldPath: text }, [
  "fieldPath",
]);
const resourceFieldRef: Schema = object(
  {
    containerName: text,
    resource: oneOf("limits.cpu", "limits.memory", "requests.cpu", "requests.memory"),
    divisor: quantity,
  },
  ["resource"],
);
const keyRef: Schema = object({ name: dnsSubdomain, key: text, optional: bool }, ["name", "key"]);
const nameRef: Schema = object({ name: dnsSubdomain, optional: bool }, ["name"]);

const env: Schema = object(
  {
    name: checked("envName"),
    value: checked("envValue"),
    valueFrom: object({
      fieldRef,
      resourceFieldRef,
      configMapKeyRef: keyRef,
      secretKeyRef: keyRef,
      fileKeyRef: refused("environment from files is not honoured; use configMapKeyRef or secretKeyRef"),
    }),
  },
  ["name"],
);

const confinement: Schema = only(
  [],
  "no seccomp, AppArmor or SELinux profile would be applied; delete the field, or use capabilities, runAsUser and readOnlyRootFilesystem, which are honoured",
);
const unconfined: Schema = { anyOf: [object({ type: { const: "Unconfined" } }, ["type"]), confinement] };

const resources: Schema = object({
  limits: object({
    cpu: quantity,
    memory: quantity,
    "ephemeral-storage": refused(
      "disk use is not limited; delete the field, or give emptyDir with medium Memory a sizeLimit",
    ),
  }),
  requests: object({ cpu: quantity, memory: quantity, "ephemeral-storage": harmless() }),
  claims: refused("devices are not allocated"),
});

const containerFields: Readonly<Record<string, Schema>> = {
  name: dnsLabel,
  image: harmless(),
  imagePullPolicy: harmless(),
  terminationMessagePath: harmless(),
  terminationMessagePolicy: harmless(),
  command: list(text, 1),
  args: list(text),
  workingDir: checked("absolutePath"),
  env: list(env),
  envFrom: list(object({ prefix: text, configMapRef: nameRef, secretRef: nameRef })),
  ports: list(
    object(
      {
        name: checked("portName"),
        containerPort: int(1, 65535),
        hostPort: int(1, 65535),
        hostIP: checked("ip"),
        protocol: only(["TCP", "UDP"], "SCTP is not carried here; use TCP or UDP"),
      },
      ["containerPort"],
    ),
  ),
  resources,
  resizePolicy: harmless(),
  volumeMounts: list(
    object(
      {
        name: text,
        mountPath: checked("absolutePath"),
        subPath: checked("insidePath"),
        readOnly: bool,
        recursiveReadOnly: only(
          ["Disabled", "IfPossible"],
          "mounts below a mount keep their own mode; use readOnly alone",
        ),
        mountPropagation: only(
          ["None"],
          "mounts are never propagated out of or into a pod; delete the field",
        ),
        subPathExpr: refused("not expanded; write the path in subPath"),
      },
      ["name", "mountPath"],
    ),
  ),
  volumeDevices: refused("raw block devices are not given to pods; use volumeMounts"),
  securityContext: object({
    runAsUser: int(),
    runAsGroup: int(),
    runAsNonRoot: bool,
    readOnlyRootFilesystem: bool,
    allowPrivilegeEscalation: only(
      [false],
      "no-new-privileges is always set, so a setuid program would not gain anything; delete the field or write false",
    ),
    privileged: only(
      [false],
      "a privileged container could undo the mesh; run it outside, or add single capabilities",
    ),
    capabilities: object({ add: list(checked("capabilityAdd")), drop: list(checked("capability")) }),
    procMount: only(["Default"], "only the default /proc is given"),
    seccompProfile: unconfined,
    appArmorProfile: unconfined,
    seLinuxOptions: confinement,
    windowsOptions: refused("this is Linux"),
  }),
  startupProbe: probe,
  readinessProbe: probe,
  livenessProbe: probe,
  lifecycle: object({
    postStart: hook,
    preStop: hook,
    stopSignal: refused("SIGTERM is always sent first; handle it, or use a preStop hook"),
  }),
  stdin: bool,
  stdinOnce: harmless(),
  tty: bool,
};

const container: Schema = object(
  {
    ...containerFields,
    restartPolicy: refused("only init containers have a restartPolicy of their own; set it on the pod"),
    restartPolicyRules: refused("not honoured; set restartPolicy on the pod"),
  },
  ["name"],
);
const initContainer: Schema = object(
  {
    ...containerFields,
    restartPolicy: only(
      ["Always"],
      'only "Always" is known for an init container (it then runs beside the others)',
    ),
  },
  ["name"],
);

const mode: Schema = int(0, 0o777);
const items: Schema = list(object({ key: text, path: checked("insidePath"), mode }, ["key", "path"]));
const downwardItems: Schema = list(
  object({ path: checked("insidePath"), mode, fieldRef, resourceFieldRef }, ["path"]),
);
const noSuchVolume: Schema = refused(
  `volumes of this type need a driver, and ${NO_IMAGE_RUNTIME}; use hostPath, emptyDir or persistentVolumeClaim`,
);

const volume: Schema = object(
  {
    name: dnsLabel,
    emptyDir: object({
      medium: only(["", "Memory"], "huge pages are not given; use Memory"),
      sizeLimit: quantity,
    }),
    hostPath: object(
      {
        path: checked("absolutePath"),
        type: oneOf(
          "",
          "DirectoryOrCreate",
          "Directory",
          "FileOrCreate",
          "File",
          "Socket",
          "CharDevice",
          "BlockDevice",
        ),
      },
      ["path"],
    ),
    configMap: object({ name: dnsSubdomain, optional: bool, defaultMode: mode, items }, ["name"]),
    secret: object({ secretName: dnsSubdomain, optional: bool, defaultMode: mode, items }, ["secretName"]),
    downwardAPI: object({ defaultMode: mode, items: downwardItems }),
    projected: object({
      defaultMode: mode,
      sources: list(
        object({
          configMap: object({ name: dnsSubdomain, optional: bool, items }, ["name"]),
          secret: object({ name: dnsSubdomain, optional: bool, items }, ["name"]),
          downwardAPI: object({ items: downwardItems }),
          serviceAccountToken: refused(
            "there is no API server to use a token with; the workload's identity is its sidecar's certificate",
          ),
          clusterTrustBundle: refused("there is no API server that holds trust bundles; use a configMap"),
          podCertificate: refused("certificates are given to sidecars only"),
        }),
      ),
    }),
    persistentVolumeClaim: object({ claimName: dnsSubdomain, readOnly: bool }, ["claimName"]),
    ...Object.fromEntries(
      [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "csi",
        "ephemeral",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "gitRepo",
        "glusterfs",
        "image",
        "iscsi",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
        "vsphereVolume",
      ].map((name) => [name, noSuchVolume]),
    ),
  },
  ["name"],
);

export const podSpec: Schema = object(
  {
    containers: list(container, 1),
    initContainers: list(initContainer),
    ephemeralContainers: refused("use `pillion exec` to look into a pod"),
    volumes: list(volume),
    restartPolicy: oneOf("Always", "OnFailure", "Never"),
    terminationGracePeriodSeconds: int(0, 86_400),
    activeDeadlineSeconds: refused("a pod is not ended by age; use a Job's activeDeadlineSeconds"),
    serviceAccountName: dnsSubdomain,
    serviceAccount: dnsSubdomain,
    automountServiceAccountToken: only(
      [false],
      "there is no API server to use a token with; delete the field or write false",
    ),
    hostname: dnsLabel,
    subdomain: dnsLabel,
    setHostnameAsFQDN: only([false], "the hostname is the short name; delete the field"),
    hostAliases: list(object({ ip: checked("ip"), hostnames: list(text) }, ["ip"])),
    shareProcessNamespace: bool,
    enableServiceLinks: only(
      [false],
      "variables for Services are not set; use their names, and delete the field",
    ),
    dnsPolicy: only(
      ["ClusterFirst", "ClusterFirstWithHostNet"],
      "pods always use the mesh's DNS, which asks the machine's for other names; delete the field",
    ),
    dnsConfig: object({
      searches: list(text),
      nameservers: refused("pods always use the mesh's DNS, which asks the machine's for other names"),
      options: refused("resolver options are not passed on; delete the field"),
    }),
    hostNetwork: only(
      [false],
      "every pod has its own network namespace, or it could not be meshed; publish ports with containers[].ports[].hostPort",
    ),
    hostPID: only([false], "every pod has its own process namespace"),
    hostIPC: only([false], "every pod has its own IPC namespace"),
    hostUsers: only([true], "pods use the machine's user ids; delete the field and set runAsUser"),
    securityContext: object({
      runAsUser: int(),
      runAsGroup: int(),
      runAsNonRoot: bool,
      fsGroup: int(),
      fsGroupChangePolicy: harmless(),
      supplementalGroups: list(int()),
      supplementalGroupsPolicy: harmless(),
      sysctls: {
        anyOf: [
          { type: "array", maxItems: 0 },
          only([], "sysctls of a pod's namespaces are not set; delete the field"),
        ],
      },
      seccompProfile: unconfined,
      appArmorProfile: unconfined,
      seLinuxOptions: confinement,
      seLinuxChangePolicy: harmless(),
      windowsOptions: refused("this is Linux"),
    }),
    imagePullSecrets: harmless(),
    // One machine: every pod that is asked for runs here.
    affinity: harmless(),
    tolerations: harmless(),
    topologySpreadConstraints: harmless(),
    nodeSelector: mapOf(text),
    nodeName: text,
    priority: harmless(),
    priorityClassName: harmless(),
    preemptionPolicy: harmless(),
    schedulerName: harmless(),
    os: object({ name: only(["linux"], "this is Linux") }),
    schedulingGates: refused("nothing here would open the gate; delete the field"),
    readinessGates: refused("nothing here sets pod conditions; use a readinessProbe"),
    runtimeClassName: refused(`${NO_IMAGE_RUNTIME}; delete the field`),
    overhead: refused(`${NO_IMAGE_RUNTIME}; delete the field`),
    resourceClaims: refused("devices are not allocated"),
    resources: refused("limits are per container; set them there"),
    hostnameOverride: refused("use hostname"),
    workloadRef: refused("gang scheduling has no meaning on one machine"),
  },
  ["containers"],
);

export const podTemplate: Schema = object({ metadata: templateMetadata, spec: podSpec }, ["spec"]);
