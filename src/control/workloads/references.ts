import type { ConfigMapObject, SecretObject } from "#/kube/objects.ts";
import type { LoadedObject } from "#/kube/folder.ts";

/** What a pod template may name: looked up in the folder's objects. */
export interface References {
  configMap(namespace: string, name: string): ConfigMapObject | null;
  secret(namespace: string, name: string): SecretObject | null;
  hasServiceAccount(namespace: string, name: string): boolean;
}

export function referencesIn(objects: ReadonlyMap<string, LoadedObject>): References {
  return {
    configMap: (namespace, name) => {
      const object = objects.get(`ConfigMap/${namespace}/${name}`)?.object;
      return object?.kind === "ConfigMap" ? object : null;
    },
    secret: (namespace, name) => {
      const object = objects.get(`Secret/${namespace}/${name}`)?.object;
      return object?.kind === "Secret" ? object : null;
    },
    hasServiceAccount: (namespace, name) =>
      name === "default" || objects.has(`ServiceAccount/${namespace}/${name}`),
  };
}

/** A template names something that is not there. New pods wait for it; running ones stay. `path` is inside the pod spec. */
export class MissingReference extends Error {
  override readonly name = "MissingReference";
  readonly path: readonly (string | number)[];
  constructor(path: readonly (string | number)[], reason: string) {
    super(reason);
    this.path = path;
  }
}

/** Keys of a ConfigMap as bytes. */
export function configMapBytes(object: ConfigMapObject): Map<string, Buffer> {
  const out = new Map<string, Buffer>();
  for (const [key, value] of Object.entries(object.data ?? {})) out.set(key, Buffer.from(value, "utf8"));
  for (const [key, value] of Object.entries(object.binaryData ?? {}))
    out.set(key, Buffer.from(value, "base64"));
  return out;
}

/** Keys of a Secret as bytes; `stringData` wins over `data`. */
export function secretBytes(object: SecretObject): Map<string, Buffer> {
  const out = new Map<string, Buffer>();
  for (const [key, value] of Object.entries(object.data ?? {})) out.set(key, Buffer.from(value, "base64"));
  for (const [key, value] of Object.entries(object.stringData ?? {}))
    out.set(key, Buffer.from(value, "utf8"));
  return out;
}
