import type { PodStatus } from "#/model/pod-plan.ts";
import { CommandError } from "./exit.ts";

/** Name of the sidecar where a container is asked for. */
export const SIDECAR_CONTAINER = "pillion-sidecar";

/**
 * Finds the pod that an operator means: by its full name, or by a workload's name ("front", "deployment/front") where
 * any of its pods will do.
 */
export function findPod(pods: readonly PodStatus[], name: string, namespace: string | null): PodStatus {
  const wanted = name.includes("/") ? name.slice(name.indexOf("/") + 1) : name;
  const inNamespace = pods.filter((pod) => namespace === null || pod.namespace === namespace);
  const exact = inNamespace.filter((pod) => pod.name === wanted);
  const found =
    exact.length > 0 ? exact : inNamespace.filter((pod) => pod.owner.split("/").at(-1) === wanted);
  const namespaces = new Set(found.map((pod) => pod.namespace));
  if (namespaces.size > 1)
    throw new CommandError(
      `"${name}" is in several namespaces (${[...namespaces].join(", ")}); say which with -n`,
    );
  const pod = found.find((candidate) => candidate.ready) ?? found[0];
  if (pod !== undefined) return pod;
  const known = inNamespace.slice(0, 8).map((candidate) => candidate.name);
  throw new CommandError(
    `there is no pod "${name}"${namespace === null ? "" : ` in namespace ${namespace}`}; there ${known.length === 0 ? "are none" : `is: ${known.join(", ")}${inNamespace.length > 8 ? ", …" : ""}`}`,
  );
}

/** The container asked for, or the first where none was. */
export function findContainer(pod: PodStatus, name: string | null): string {
  const names = pod.containers.map((container) => container.name);
  if (pod.sidecar !== null) names.push(SIDECAR_CONTAINER);
  if (name === null) return names[0] ?? SIDECAR_CONTAINER;
  if (names.includes(name)) return name;
  throw new CommandError(`pod ${pod.name} has no container "${name}"; it has: ${names.join(", ")}`);
}
