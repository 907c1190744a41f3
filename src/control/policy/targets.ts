import type { LoadedObject } from "#/kube/folder.ts";
import { groupOf, isRoute, namespaceOf } from "#/kube/objects.ts";
import type { KubeObject } from "#/kube/objects.ts";
import type { TargetRef } from "#/kube/policy-objects.ts";
import type { MeshView } from "../services/mesh-view.ts";
import { byAge } from "./attach.ts";
import type { Finding } from "./conditions.ts";

/** A policy at one of its targets: objects of its own namespace (GEP-713). */
export interface Targeting<T extends KubeObject> {
  readonly loaded: LoadedObject;
  readonly policy: T;
  readonly index: number;
  readonly ref: TargetRef;
  /** `namespace/name` of the target. */
  readonly key: string;
  /** Null: accepted. */
  refusal: Finding | null;
}

/** All targets of the policies of one kind, older policies first. */
export function targetings<K extends KubeObject["kind"]>(
  kind: K,
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
  view: MeshView,
): Targeting<Extract<KubeObject, { kind: K }>>[] {
  type Policy = Extract<KubeObject, { kind: K }> & {
    readonly spec: { readonly targetRefs?: readonly TargetRef[] };
  };
  return (byKind.get(kind) ?? []).toSorted(byAge).flatMap((loaded) => {
    const policy = loaded.object as Policy;
    return (policy.spec.targetRefs ?? []).map((ref, index) => ({
      loaded,
      policy,
      index,
      ref,
      key: `${namespaceOf(policy)}/${ref.name}`,
      refusal: refusalOf(policy, ref, index, byKind, view),
    }));
  });
}

/** GEP-713: of several policies about one target the oldest counts. */
export function settleConflicts(all: readonly Targeting<KubeObject>[]): void {
  const first = new Map<string, KubeObject>();
  for (const each of all) {
    if (each.refusal !== null) continue;
    const key = `${each.key} ${each.ref.sectionName ?? ""}`;
    const other = first.get(key);
    if (other === undefined) first.set(key, each.policy);
    else
      each.refusal = {
        reason: "Conflicted",
        message: `${other.kind} ${namespaceOf(other)}/${other.metadata.name} is about the same target and goes first; join the two`,
        path: ["spec", "targetRefs", each.index],
      };
  }
}

function refusalOf(
  policy: KubeObject,
  ref: TargetRef,
  index: number,
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
  view: MeshView,
): Finding | null {
  const namespace = namespaceOf(policy);
  const refuse = (at: string, message: string): Finding => ({
    reason: "TargetNotFound",
    message,
    path: ["spec", "targetRefs", index, at],
  });
  if (ref.kind === "Service" && ref.group === "") {
    const service = view.servicesByName.get(`${namespace}/${ref.name}`);
    if (service === undefined)
      return refuse(
        "name",
        `Service ${namespace}/${ref.name} does not exist; a policy and its target share a namespace`,
      );
    return ref.sectionName === undefined || service.ports.some((port) => port.name === ref.sectionName)
      ? null
      : refuse("sectionName", `Service ${namespace}/${ref.name} has no port called ${ref.sectionName}`);
  }
  const route = (byKind.get(ref.kind) ?? []).find(
    ({ object }) =>
      isRoute(object) &&
      groupOf(object) === ref.group &&
      object.metadata.name === ref.name &&
      namespaceOf(object) === namespace,
  )?.object;
  if (route === undefined || (route.kind !== "HTTPRoute" && route.kind !== "GRPCRoute"))
    return ref.kind === "HTTPRoute" || ref.kind === "GRPCRoute"
      ? refuse(
          "name",
          `${ref.kind} ${namespace}/${ref.name} does not exist; a policy and its target share a namespace`,
        )
      : refuse("kind", `a ${ref.kind} is no target of a ${policy.kind}`);
  return ref.sectionName === undefined ||
    (route.spec.rules ?? []).some((rule) => rule.name === ref.sectionName)
    ? null
    : refuse("sectionName", `${ref.kind} ${namespace}/${ref.name} has no rule called ${ref.sectionName}`);
}
