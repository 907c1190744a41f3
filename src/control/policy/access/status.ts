import type { LoadedObject } from "#/kube/folder.ts";
import type { ParentReference, ParentStatus } from "#/model/node-protocol.ts";
import { condition } from "../conditions.ts";
import type { Finding } from "../conditions.ts";

/** How an object that says who may stands at one of its targets. */
export interface AccessStatus {
  readonly loaded: LoadedObject;
  readonly parent: ParentReference;
  /** Null: accepted. */
  readonly refusal: Finding | null;
  /** A reference that leads nowhere, so that the object lets nobody in; null: all lead somewhere. */
  readonly reference: Finding | null;
  readonly note: string;
  /** What is told with its place beside refusal and reference. */
  readonly findings: readonly Finding[];
}

/** The target that a policy of ours names in its own namespace. */
export function targetOf(
  { group, kind, name = "" }: { readonly group: string; readonly kind: string; readonly name?: string },
  namespace: string,
): ParentReference {
  const isNamespace = kind === "Namespace";
  return {
    group,
    kind,
    namespace: isNamespace ? "" : namespace,
    name: isNamespace ? namespace : name,
    section: null,
    port: null,
  };
}

export function parentStatus({ parent, refusal, reference, note }: AccessStatus): ParentStatus {
  const accepted =
    refusal === null
      ? condition("Accepted", "Accepted", note)
      : condition("Accepted", refusal.reason, refusal.message);
  return {
    parent,
    conditions:
      reference === null
        ? [accepted]
        : [accepted, condition("ResolvedRefs", reference.reason, reference.message)],
  };
}
