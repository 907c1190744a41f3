import type { Container, PodSpec, ResourceFieldRef } from "#/kube/objects.ts";
import { byteCount, cpuMillis, parseQuantity } from "#/kube/quantity.ts";
import { MissingReference } from "./references.ts";

/** What a pod may learn of itself (Kubernetes' downward API), as far as the control plane knows it. */
export interface PodFacts {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly nodeName: string;
  readonly serviceAccount: string;
}

/** Value of a `fieldPath`; undefined for one that is not known here. */
export function fieldValue(facts: PodFacts, fieldPath: string): string | undefined {
  const keyed = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(fieldPath);
  if (keyed !== null) return (keyed[1] === "labels" ? facts.labels : facts.annotations)[keyed[2]!] ?? "";
  switch (fieldPath) {
    case "metadata.name":
      return facts.name;
    case "metadata.namespace":
      return facts.namespace;
    case "metadata.uid":
      return facts.uid;
    case "metadata.labels":
      return pairs(facts.labels);
    case "metadata.annotations":
      return pairs(facts.annotations);
    case "spec.nodeName":
      return facts.nodeName;
    case "spec.serviceAccountName":
      return facts.serviceAccount;
    default:
      return undefined;
  }
}

/** Value of a `resourceFieldRef`, divided and rounded up as Kubernetes does. */
export function resourceValue(
  spec: PodSpec,
  own: Container | null,
  ref: ResourceFieldRef,
  path: readonly (string | number)[],
): string {
  const container =
    ref.containerName === undefined
      ? own
      : ([...spec.containers, ...(spec.initContainers ?? [])].find((c) => c.name === ref.containerName) ??
        null);
  if (container === null)
    throw new MissingReference(
      path,
      `no container is called ${ref.containerName ?? "(containerName is missing)"}`,
    );
  const [group, resource] = ref.resource.split(".") as ["limits" | "requests", "cpu" | "memory"];
  const text = container.resources?.[group]?.[resource];
  if (text === undefined)
    throw new MissingReference(path, `container ${container.name} has no resources.${ref.resource}; set it`);
  const value = resource === "cpu" ? (cpuMillis(text) ?? 0) / 1000 : (byteCount(text) ?? 0);
  const divisor = parseQuantity(ref.divisor ?? 1) ?? 1;
  return String(Math.ceil(Number((value / (divisor === 0 ? 1 : divisor)).toFixed(9))));
}

/** `key="value"` a line, sorted, as Kubernetes writes label files. */
function pairs(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join("\n");
}
