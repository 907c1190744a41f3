import type { Container, PodSpec } from "#/kube/objects.ts";
import type { EnvPlan } from "#/model/pod-plan.ts";
import { fieldValue, resourceValue } from "./downward.ts";
import type { PodFacts } from "./downward.ts";
import { configMapBytes, MissingReference, secretBytes } from "./references.ts";
import type { References } from "./references.ts";

const AGENT_FIELDS: Readonly<Record<string, "status.podIP" | "status.podIPs" | "status.hostIP">> = {
  "status.podIP": "status.podIP",
  "status.podIPs": "status.podIPs",
  "status.hostIP": "status.hostIP",
  "status.hostIPs": "status.hostIP",
};

/**
 * A container's environment: envFrom first, then env, a later name replacing an earlier one. `$(NAME)` of names before it
 * is replaced; where NAME is known only to the agent, `$(NAME)` stays for the agent to replace.
 */
export function environmentOf(
  container: Container,
  spec: PodSpec,
  facts: PodFacts,
  refs: References,
  path: readonly (string | number)[],
): EnvPlan[] {
  const out = new Map<string, EnvPlan>();
  const set = (name: string, value: string): void => {
    out.delete(name);
    out.set(name, { name, value });
  };
  for (const [i, source] of (container.envFrom ?? []).entries()) {
    const at = [...path, "envFrom", i];
    const bytes =
      source.configMapRef !== undefined
        ? wholeConfigMap(refs, facts.namespace, source.configMapRef, at)
        : source.secretRef !== undefined
          ? wholeSecret(refs, facts.namespace, source.secretRef, at)
          : null;
    for (const [key, value] of bytes ?? []) set(`${source.prefix ?? ""}${key}`, value.toString("utf8"));
  }
  for (const [i, variable] of (container.env ?? []).entries()) {
    const at = [...path, "env", i, "valueFrom"];
    const from = variable.valueFrom;
    if (from === undefined) {
      set(variable.name, expand(variable.value ?? "", out));
      continue;
    }
    if (from.fieldRef !== undefined) {
      const field = AGENT_FIELDS[from.fieldRef.fieldPath];
      if (field !== undefined) {
        out.delete(variable.name);
        out.set(variable.name, { name: variable.name, field });
      } else set(variable.name, fieldValue(facts, from.fieldRef.fieldPath) ?? "");
    } else if (from.resourceFieldRef !== undefined) {
      set(variable.name, resourceValue(spec, container, from.resourceFieldRef, at));
    } else {
      const ref = from.configMapKeyRef ?? from.secretKeyRef;
      if (ref === undefined) continue;
      const bytes =
        from.configMapKeyRef !== undefined
          ? wholeConfigMap(refs, facts.namespace, ref, at)
          : wholeSecret(refs, facts.namespace, ref, at);
      const value = bytes?.get(ref.key);
      if (value !== undefined) set(variable.name, value.toString("utf8"));
      else if (ref.optional !== true)
        throw new MissingReference(
          at,
          `${from.configMapKeyRef !== undefined ? "ConfigMap" : "Secret"} ${ref.name} has no key ${ref.key}; add it, or set optional: true`,
        );
    }
  }
  return [...out.values()];
}

/** Kubernetes' `$(NAME)`: unknown names stay as they are, `$$(NAME)` is a literal `$(NAME)`. */
export function expand(text: string, known: ReadonlyMap<string, EnvPlan>): string {
  return text.replace(/\$\$|\$\(([^()]*)\)/g, (whole, name: string | undefined) => {
    if (whole === "$$") return "$";
    const found = known.get(name ?? "");
    return found === undefined || !("value" in found) ? whole : found.value;
  });
}

export function wholeConfigMap(
  refs: References,
  namespace: string,
  ref: { name: string; optional?: boolean },
  path: readonly (string | number)[],
): Map<string, Buffer> | null {
  const object = refs.configMap(namespace, ref.name);
  if (object !== null) return configMapBytes(object);
  if (ref.optional === true) return null;
  throw new MissingReference(
    path,
    `ConfigMap ${namespace}/${ref.name} does not exist; add it, or set optional: true`,
  );
}

export function wholeSecret(
  refs: References,
  namespace: string,
  ref: { name: string; optional?: boolean },
  path: readonly (string | number)[],
): Map<string, Buffer> | null {
  const object = refs.secret(namespace, ref.name);
  if (object !== null) return secretBytes(object);
  if (ref.optional === true) return null;
  throw new MissingReference(
    path,
    `Secret ${namespace}/${ref.name} does not exist; add it, or set optional: true`,
  );
}
