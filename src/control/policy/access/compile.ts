import type { LoadedObject } from "#/kube/folder.ts";
import type { InboundDefault } from "#/kube/inbound-default.ts";
import { inboundDefaultIn } from "#/kube/inbound-default.ts";
import { MESH_CONFIG_NAME, MESH_CONFIG_NAMESPACE } from "#/kube/mesh-annotations.ts";
import { namespaceOf } from "#/kube/objects.ts";
import type { MeshView } from "../../services/mesh-view.ts";
import type { AccessIndex } from "./access-index.ts";
import { serverEntries } from "./linkerd.ts";
import { ownEntries } from "./policies.ts";
import type { AccessStatus } from "./status.ts";

/** All objects that say who may, as far as they can be taken together without knowing the pods. */
export function accessIndex(
  byKind: ReadonlyMap<string, readonly LoadedObject[]>,
  view: MeshView,
): { readonly index: AccessIndex; readonly statuses: readonly AccessStatus[] } {
  const statuses: AccessStatus[] = [];
  const tell = (status: AccessStatus): void => void statuses.push(status);
  const namespaceDefaults = new Map<string, InboundDefault>();
  for (const { object } of byKind.get("Namespace") ?? []) {
    const said = inboundDefaultIn(object.metadata.annotations);
    if (said !== null) namespaceDefaults.set(object.metadata.name, said);
  }
  const config = (byKind.get("ConfigMap") ?? []).find(
    ({ object }) =>
      object.metadata.name === MESH_CONFIG_NAME && namespaceOf(object) === MESH_CONFIG_NAMESPACE,
  )?.object;
  return {
    index: {
      entries: ownEntries(byKind, view, tell),
      servers: serverEntries(byKind, view, tell),
      namespaceDefaults,
      meshDefault: config?.kind === "ConfigMap" ? inboundDefaultIn(config.data) : null,
      known: new Map(),
    },
    statuses,
  };
}
