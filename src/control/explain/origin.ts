import type { LoadedObject } from "#/kube/folder.ts";
import { namespaceOf } from "#/kube/objects.ts";
import type { Origin } from "#/model/explanation.ts";
import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { CompiledPolicy } from "../policy/compile.ts";

export type FieldPath = readonly (string | number)[];

export const DEFAULT: Origin = { object: "the default", file: "", line: 0 };

export function originIn(loaded: LoadedObject, path: FieldPath = []): Origin {
  const { kind, metadata } = loaded.object;
  const namespace = namespaceOf(loaded.object);
  const name = namespace === "" ? metadata.name : `${namespace}/${metadata.name}`;
  return { object: `${kind} ${name}`, file: loaded.file, line: loaded.lineOf(path) };
}

/** Where an object that decided says so; `path` is a field of it. */
export function originOf(policy: CompiledPolicy, source: PolicySource, path: FieldPath = []): Origin {
  const loaded = policy.objectOf(source);
  if (loaded !== null) return originIn(loaded, path);
  return source.kind === "default" ? DEFAULT : { object: ruleOf(source), file: "", line: 0 };
}

/** A part of an object by its path, for asking whether it is there. */
export function partOf(object: unknown, path: FieldPath): unknown {
  let part = object;
  for (const step of path) part = (part as Record<string | number, unknown> | null | undefined)?.[step];
  return part;
}

/** The first of these that says anything: a field of the object, or annotations whose names begin so. */
export function firstSaying(
  candidates: readonly (readonly [LoadedObject | null, FieldPath, annotationPrefix: string])[],
): Origin {
  for (const [loaded, path, prefix] of candidates) {
    if (loaded === null) continue;
    if (path.length > 0 && partOf(loaded.object, path) !== undefined) return originIn(loaded, path);
    const name = Object.keys(loaded.object.metadata.annotations ?? {}).find((each) =>
      each.startsWith(prefix),
    );
    if (name !== undefined) return originIn(loaded, ["metadata", "annotations", name]);
  }
  return DEFAULT;
}
