import {
  checkMeshAnnotation,
  isMeshAnnotation,
  MESH_CONFIG_NAME,
  MESH_CONFIG_NAMESPACE,
} from "./mesh-annotations.ts";
import { checkTrafficAnnotation, isTrafficAnnotation } from "./traffic-annotations.ts";
import { isWorkload, namespaceOf, selectorMatches, templateOf, templatePath } from "./objects.ts";
import { checkAccessSemantics } from "./access-semantics.ts";
import { checkJwtPolicy } from "./jwt-semantics.ts";
import { checkPolicySemantics } from "./policy-semantics.ts";
import type { Container, KubeObject, PodSpec, Probe, WorkloadObject } from "./objects.ts";
import type { Violation } from "./validate.ts";

type Path = readonly (string | number)[];

/** What the schema cannot say: fields that must agree with each other inside one object. */
export function checkSemantics(object: KubeObject): Violation[] {
  const out: Violation[] = [];
  const say = (path: Path, reason: string): void => void out.push({ path, reason });
  checkAnnotations(object.metadata.annotations, ["metadata", "annotations"], object.kind, say);
  if (
    object.kind === "ConfigMap" &&
    object.metadata.name === MESH_CONFIG_NAME &&
    namespaceOf(object) === MESH_CONFIG_NAMESPACE
  ) {
    for (const [key, value] of Object.entries(object.data ?? {})) {
      const wrong = checkMeshAnnotation(key, value);
      if (wrong !== null) say(["data", key], wrong);
      else if (!isMeshAnnotation(key))
        say(["data", key], "is no setting of the mesh; its keys are the annotations' names");
    }
  }
  if (object.kind === "Service") checkService(object, say);
  if (
    object.kind === "EndpointSlice" &&
    object.metadata.labels?.["kubernetes.io/service-name"] === undefined
  ) {
    say(
      ["metadata"],
      "the label kubernetes.io/service-name is missing: without it the addresses belong to no Service",
    );
  }
  if (isWorkload(object)) checkWorkload(object, say);
  else {
    checkPolicySemantics(object, say);
    checkAccessSemantics(object, say);
    if (object.kind === "JwtPolicy") checkJwtPolicy(object, say);
  }
  return out;
}

type Say = (path: Path, reason: string) => void;

function checkAnnotations(
  annotations: Readonly<Record<string, string>> | undefined,
  path: Path,
  kind: string,
  say: Say,
): void {
  for (const [key, value] of Object.entries(annotations ?? {})) {
    if (isTrafficAnnotation(key)) {
      const wrong = checkTrafficAnnotation(key, value, kind);
      if (wrong !== null) say([...path, key], wrong);
      continue;
    }
    const wrong = checkMeshAnnotation(key, value);
    if (wrong !== null) say([...path, key], wrong);
    else if (kind === "Service" && SERVICE_IGNORES.test(key))
      say([...path, key], "is read from pods and namespaces only; move it to the pod template");
    else if (
      (kind === "Deployment" || kind === "StatefulSet" || kind === "DaemonSet" || kind === "Job") &&
      path.length === 2 &&
      TEMPLATE_ONLY.test(key)
    ) {
      say(
        [...path, key],
        "is read from the pod template and the namespace; move it to spec.template.metadata.annotations",
      );
    }
  }
}

const SERVICE_IGNORES =
  /^(linkerd\.io\/inject|config\.linkerd\.io\/(?!opaque-ports$).*|(config\.)?pillion\.dev\/.*)$/;
const TEMPLATE_ONLY = /^(linkerd\.io\/inject|config\.linkerd\.io\/.*|(config\.)?pillion\.dev\/.*)$/;

function checkService(object: Extract<KubeObject, { kind: "Service" }>, say: Say): void {
  const { spec } = object;
  const ports = spec.ports ?? [];
  if (spec.type === "ExternalName") {
    if (spec.externalName === undefined)
      say(["spec"], "externalName is missing; type ExternalName needs one");
    if (spec.selector !== undefined)
      say(["spec", "selector"], "has no effect with type ExternalName; remove one of them");
    return;
  }
  if (spec.externalName !== undefined)
    say(["spec", "externalName"], "has an effect only with type: ExternalName");
  if (ports.length === 0 && spec.clusterIP !== "None")
    say(["spec"], "ports is missing; a Service needs at least one port");
  const names = new Set<string>();
  const numbers = new Set<string>();
  for (const [i, port] of ports.entries()) {
    if (ports.length > 1 && port.name === undefined)
      say(["spec", "ports", i], "name is missing; each port needs one when there are several");
    if (port.name !== undefined && names.has(port.name))
      say(["spec", "ports", i, "name"], `${port.name} is used twice`);
    if (port.name !== undefined) names.add(port.name);
    const number = `${port.protocol ?? "TCP"} ${port.port}`;
    if (numbers.has(number)) say(["spec", "ports", i, "port"], `${number} is listed twice`);
    numbers.add(number);
  }
}

function checkWorkload(object: WorkloadObject, say: Say): void {
  const template = templateOf(object);
  const at = templatePath(object);
  if (object.kind !== "Pod")
    checkAnnotations(template.metadata?.annotations, [...at, "metadata", "annotations"], "template", say);
  if (object.kind === "Deployment" || object.kind === "StatefulSet" || object.kind === "DaemonSet") {
    const { selector } = object.spec;
    if (Object.keys(selector.matchLabels ?? {}).length + (selector.matchExpressions ?? []).length === 0)
      say(["spec", "selector"], "is empty; it must match the template's labels");
    else if (!selectorMatches(selector, template.metadata?.labels ?? {}))
      say(["spec", "selector"], "does not match spec.template.metadata.labels; make them agree");
    if (template.spec.restartPolicy !== undefined && template.spec.restartPolicy !== "Always")
      say(
        [...at, "spec", "restartPolicy"],
        `must be Always in a ${object.kind}; use a Job for programs that end`,
      );
  }
  if (object.kind === "Deployment") {
    const rolling = object.spec.strategy?.rollingUpdate;
    if (object.spec.strategy?.type === "Recreate" && rolling !== undefined)
      say(["spec", "strategy", "rollingUpdate"], "has no effect with type: Recreate; remove it");
    if (isZero(rolling?.maxSurge) && isZero(rolling?.maxUnavailable))
      say(
        ["spec", "strategy", "rollingUpdate"],
        "maxSurge and maxUnavailable cannot both be 0: no pod could ever be replaced",
      );
  }
  if (object.kind === "DaemonSet") {
    const rolling = object.spec.updateStrategy?.rollingUpdate;
    if (rolling !== undefined && isZero(rolling.maxSurge ?? 0) && isZero(rolling.maxUnavailable ?? 1))
      say(
        ["spec", "updateStrategy", "rollingUpdate"],
        "maxSurge and maxUnavailable cannot both be 0: no pod could ever be replaced",
      );
  }
  if (object.kind === "Job" && (template.spec.restartPolicy ?? "Always") === "Always")
    say([...at, "spec"], "restartPolicy must be OnFailure or Never in a Job");
  if (object.kind === "StatefulSet") {
    for (const [i, claim] of (object.spec.volumeClaimTemplates ?? []).entries()) {
      if ((template.spec.volumes ?? []).some((volume) => volume.name === claim.metadata.name))
        say(
          ["spec", "volumeClaimTemplates", i, "metadata", "name"],
          "is also the name of a volume of the pod; rename one",
        );
    }
  }
  const claims =
    object.kind === "StatefulSet"
      ? (object.spec.volumeClaimTemplates ?? []).map((claim) => claim.metadata.name)
      : [];
  checkPodSpec(template.spec, [...at, "spec"], claims, say);
}

function isZero(value: number | string | undefined): boolean {
  return value === 0 || value === "0%";
}

function checkPodSpec(spec: PodSpec, at: Path, claims: readonly string[], say: Say): void {
  const volumes = new Set<string>(claims);
  for (const [i, volume] of (spec.volumes ?? []).entries()) {
    if (volumes.has(volume.name) && !claims.includes(volume.name))
      say([...at, "volumes", i, "name"], `${volume.name} is used twice`);
    volumes.add(volume.name);
    const sources = Object.keys(volume).filter((key) => key !== "name");
    if (sources.length > 1)
      say([...at, "volumes", i], `has ${sources.join(" and ")}; a volume has one source`);
  }
  const names = new Set<string>();
  const all: [Container, Path, boolean][] = [
    ...(spec.initContainers ?? []).map((c, i): [Container, Path, boolean] => [
      c,
      [...at, "initContainers", i],
      true,
    ]),
    ...spec.containers.map((c, i): [Container, Path, boolean] => [c, [...at, "containers", i], false]),
  ];
  const portNames = new Set<string>();
  for (const [container, path, init] of all) {
    if (names.has(container.name)) say([...path, "name"], `${container.name} is used twice`);
    names.add(container.name);
    if (container.name === "pillion-sidecar")
      say([...path, "name"], "is the name of the mesh's own container; choose another");
    for (const [i, port] of (container.ports ?? []).entries()) {
      if (port.name === undefined) continue;
      if (portNames.has(port.name))
        say([...path, "ports", i, "name"], `${port.name} is used twice in this pod`);
      portNames.add(port.name);
    }
    checkContainer(container, spec, path, init, volumes, say);
  }
}

function checkContainer(
  container: Container,
  spec: PodSpec,
  path: Path,
  init: boolean,
  volumes: ReadonlySet<string>,
  say: Say,
): void {
  for (const [i, mount] of (container.volumeMounts ?? []).entries()) {
    if (!volumes.has(mount.name))
      say([...path, "volumeMounts", i, "name"], `the pod has no volume ${mount.name}; add it to volumes`);
  }
  const user = container.securityContext?.runAsUser ?? spec.securityContext?.runAsUser ?? 0;
  if (
    (container.securityContext?.runAsNonRoot ?? spec.securityContext?.runAsNonRoot ?? false) &&
    user === 0
  ) {
    say([...path], "runAsNonRoot asks for another user, and without an image none is known; set runAsUser");
  }
  for (const [i, variable] of (container.env ?? []).entries()) {
    const from = variable.valueFrom;
    if (from === undefined) continue;
    if (variable.value !== undefined) say([...path, "env", i], "has both value and valueFrom; remove one");
    if (Object.keys(from).length !== 1) say([...path, "env", i, "valueFrom"], "must have exactly one source");
    if (from.fieldRef !== undefined && !ENV_FIELD.test(from.fieldRef.fieldPath))
      say(
        [...path, "env", i, "valueFrom", "fieldRef", "fieldPath"],
        `${from.fieldRef.fieldPath} is not known`,
      );
  }
  for (const name of ["cpu", "memory"] as const) {
    const limit = container.resources?.limits?.[name];
    if (limit === 0 || limit === "0")
      say([...path, "resources", "limits", name], "0 would leave nothing; delete the field for no limit");
  }
  const portNames = new Set(
    [...(spec.initContainers ?? []), ...spec.containers].flatMap((c) =>
      (c.ports ?? []).map((port) => port.name),
    ),
  );
  const checkPort = (port: number | string | undefined, at: Path): void => {
    if (typeof port === "string" && !portNames.has(port)) say(at, `no container port is called ${port}`);
  };
  const probe = (name: "startupProbe" | "readinessProbe" | "livenessProbe"): void => {
    const value: Probe | undefined = container[name];
    if (value === undefined) return;
    if (init && container.restartPolicy !== "Always")
      say(
        [...path, name],
        "init containers that end have no probes; remove it, or set restartPolicy: Always",
      );
    const kinds = (["exec", "httpGet", "tcpSocket", "grpc"] as const).filter(
      (kind) => value[kind] !== undefined,
    );
    if (kinds.length !== 1) say([...path, name], "must have exactly one of exec, httpGet, tcpSocket, grpc");
    checkPort(value.httpGet?.port, [...path, name, "httpGet", "port"]);
    checkPort(value.tcpSocket?.port, [...path, name, "tcpSocket", "port"]);
    if (name !== "readinessProbe" && (value.successThreshold ?? 1) !== 1)
      say([...path, name, "successThreshold"], "must be 1 here");
    if (name === "readinessProbe" && value.terminationGracePeriodSeconds !== undefined)
      say([...path, name, "terminationGracePeriodSeconds"], "has no effect on a readiness probe; remove it");
  };
  probe("startupProbe");
  probe("readinessProbe");
  probe("livenessProbe");
  for (const hook of ["postStart", "preStop"] as const) {
    const value = container.lifecycle?.[hook];
    if (value === undefined) continue;
    if (Object.keys(value).length !== 1)
      say([...path, "lifecycle", hook], "must have exactly one of exec, httpGet, sleep");
    checkPort(value.httpGet?.port, [...path, "lifecycle", hook, "httpGet", "port"]);
  }
}

const ENV_FIELD =
  /^(metadata\.(name|namespace|uid|labels\['[^']+'\]|annotations\['[^']+'\])|spec\.(nodeName|serviceAccountName)|status\.(podIP|podIPs|hostIP|hostIPs))$/;
