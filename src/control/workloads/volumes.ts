import type { DownwardItem, KeyItem, PodSpec, Volume } from "#/kube/objects.ts";
import { byteCount } from "#/kube/quantity.ts";
import type { VolumePlan } from "#/model/pod-plan.ts";
import { fieldValue, resourceValue } from "./downward.ts";
import type { PodFacts } from "./downward.ts";
import { wholeConfigMap, wholeSecret } from "./environment.ts";
import { MissingReference } from "./references.ts";
import type { References } from "./references.ts";

type FilePlan = Extract<VolumePlan, { kind: "files" }>["files"][number];
type Path = readonly (string | number)[];

const MODE_DEFAULT = 0o644;

/** A pod's volumes, with the content of those whose content is known. `claims` are a StatefulSet's own, by volume name. */
export function volumesOf(
  spec: PodSpec,
  facts: PodFacts,
  refs: References,
  claims: Readonly<Record<string, string>>,
): VolumePlan[] {
  const plans = (spec.volumes ?? []).map((volume, i) => planOf(volume, spec, facts, refs, ["volumes", i]));
  for (const [name, claim] of Object.entries(claims))
    plans.push({ name, kind: "claim", claim, readOnly: false });
  return plans;
}

function planOf(volume: Volume, spec: PodSpec, facts: PodFacts, refs: References, path: Path): VolumePlan {
  const { name } = volume;
  if (volume.hostPath !== undefined)
    return { name, kind: "hostPath", path: volume.hostPath.path, type: volume.hostPath.type ?? "" };
  if (volume.persistentVolumeClaim !== undefined)
    return {
      name,
      kind: "claim",
      claim: volume.persistentVolumeClaim.claimName,
      readOnly: volume.persistentVolumeClaim.readOnly ?? false,
    };
  if (volume.configMap !== undefined) {
    const { configMap } = volume;
    const bytes = wholeConfigMap(refs, facts.namespace, configMap, [...path, "configMap"]);
    return {
      name,
      kind: "files",
      secret: false,
      files: keyed(
        bytes,
        configMap.items,
        configMap.defaultMode ?? MODE_DEFAULT,
        configMap.optional ?? false,
        [...path, "configMap"],
        `ConfigMap ${configMap.name}`,
      ),
    };
  }
  if (volume.secret !== undefined) {
    const { secret } = volume;
    const bytes = wholeSecret(
      refs,
      facts.namespace,
      { name: secret.secretName, optional: secret.optional ?? false },
      [...path, "secret"],
    );
    return {
      name,
      kind: "files",
      secret: true,
      files: keyed(
        bytes,
        secret.items,
        secret.defaultMode ?? MODE_DEFAULT,
        secret.optional ?? false,
        [...path, "secret"],
        `Secret ${secret.secretName}`,
      ),
    };
  }
  if (volume.downwardAPI !== undefined) {
    const files = downward(
      volume.downwardAPI.items ?? [],
      volume.downwardAPI.defaultMode ?? MODE_DEFAULT,
      spec,
      facts,
      [...path, "downwardAPI"],
    );
    return { name, kind: "files", secret: false, files };
  }
  if (volume.projected !== undefined) {
    const mode = volume.projected.defaultMode ?? MODE_DEFAULT;
    const files: FilePlan[] = [];
    let secret = false;
    for (const [i, source] of (volume.projected.sources ?? []).entries()) {
      const at = [...path, "projected", "sources", i];
      if (source.configMap !== undefined)
        files.push(
          ...keyed(
            wholeConfigMap(refs, facts.namespace, source.configMap, at),
            source.configMap.items,
            mode,
            source.configMap.optional ?? false,
            at,
            `ConfigMap ${source.configMap.name}`,
          ),
        );
      if (source.secret !== undefined) {
        secret = true;
        files.push(
          ...keyed(
            wholeSecret(refs, facts.namespace, source.secret, at),
            source.secret.items,
            mode,
            source.secret.optional ?? false,
            at,
            `Secret ${source.secret.name}`,
          ),
        );
      }
      if (source.downwardAPI !== undefined)
        files.push(...downward(source.downwardAPI.items ?? [], mode, spec, facts, at));
    }
    return { name, kind: "files", secret, files };
  }
  // A volume without a source is an emptyDir.
  const size = volume.emptyDir?.sizeLimit;
  return {
    name,
    kind: "emptyDir",
    medium: volume.emptyDir?.medium ?? "",
    sizeLimitBytes: size === undefined ? null : byteCount(size),
  };
}

function keyed(
  bytes: ReadonlyMap<string, Buffer> | null,
  items: readonly KeyItem[] | undefined,
  mode: number,
  optional: boolean,
  path: Path,
  what: string,
): FilePlan[] {
  if (bytes === null) return [];
  if (items === undefined)
    return [...bytes].map(([key, value]) => ({ path: key, mode, base64: value.toString("base64") }));
  return items.flatMap((item, i) => {
    const value = bytes.get(item.key);
    if (value === undefined && optional) return [];
    if (value === undefined)
      throw new MissingReference(
        [...path, "items", i, "key"],
        `${what} has no key ${item.key}; add it, or set optional: true`,
      );
    return [{ path: item.path, mode: item.mode ?? mode, base64: value.toString("base64") }];
  });
}

function downward(
  items: readonly DownwardItem[],
  mode: number,
  spec: PodSpec,
  facts: PodFacts,
  path: Path,
): FilePlan[] {
  return items.map((item, i) => {
    const at = [...path, "items", i];
    let text: string | undefined;
    if (item.fieldRef !== undefined) text = fieldValue(facts, item.fieldRef.fieldPath);
    else if (item.resourceFieldRef !== undefined) text = resourceValue(spec, null, item.resourceFieldRef, at);
    if (text === undefined)
      throw new MissingReference(
        at,
        `${item.fieldRef?.fieldPath ?? "neither fieldRef nor resourceFieldRef"} is not known in a volume`,
      );
    return { path: item.path, mode: item.mode ?? mode, base64: Buffer.from(text, "utf8").toString("base64") };
  });
}
