/**
 * A small vocabulary over JSON Schema in which the closed list of honoured fields is written. Every object is closed: a
 * field that is not listed is an error. Three kinds of entries beyond plain types say why:
 * `harmless` (accepted, changes nothing here), `refused` (would change behaviour and is not honoured), `only` (some
 * values are honoured, others not).
 */
export type Schema = Readonly<Record<string, unknown>>;

export function object(
  properties: Readonly<Record<string, Schema>>,
  required: readonly string[] = [],
): Schema {
  return { type: "object", properties, required, additionalProperties: false };
}

export function list(items: Schema, itemsMin = 0): Schema {
  return { type: "array", items, minItems: itemsMin, maxItems: 10_000 };
}

export function mapOf(values: Schema): Schema {
  return { type: "object", additionalProperties: values };
}

export function int(min = 0, max = 2_147_483_647): Schema {
  return { type: "integer", minimum: min, maximum: max };
}

/** Accepted whatever it says: it has no effect on one machine without images, or no effect at all. */
export function harmless(): Schema {
  return {};
}

/** `reason` says what would be different and what to do instead. */
export function refused(reason: string): Schema {
  return { refused: reason };
}

export function only(values: readonly (string | boolean | number)[], reason: string): Schema {
  return { only: { values, reason } };
}

/** One of a closed list by Kubernetes' own definition. */
export function oneOf(...values: string[]): Schema {
  return { enum: values };
}

/** Checked by the function of this name in `checks.ts`. */
export function checked(name: string): Schema {
  return { check: name };
}

export const text: Schema = { type: "string" };
export const bool: Schema = { type: "boolean" };
/** Port number or port name. */
export const portRef: Schema = checked("portRef");
export const quantity: Schema = checked("quantity");
export const intOrPercent: Schema = checked("intOrPercent");
export const dnsLabel: Schema = checked("dnsLabel");
export const dnsSubdomain: Schema = checked("dnsSubdomain");

export const metadata: Schema = object(
  {
    name: dnsSubdomain,
    namespace: dnsLabel,
    labels: mapOf(text),
    annotations: mapOf(text),
    generateName: refused("names are given by hand in a folder; write metadata.name"),
    finalizers: refused("nothing here would ever remove a finalizer; delete the field"),
    ownerReferences: refused("owners are known from the kinds themselves; delete the field"),
    creationTimestamp: text,
    uid: harmless(),
    resourceVersion: harmless(),
    generation: harmless(),
    managedFields: harmless(),
    selfLink: harmless(),
  },
  ["name"],
);

export const templateMetadata: Schema = object({
  name: harmless(),
  namespace: harmless(),
  labels: mapOf(text),
  annotations: mapOf(text),
  creationTimestamp: harmless(),
});

export const labelSelector: Schema = object({
  matchLabels: mapOf(text),
  matchExpressions: list(
    object({ key: text, operator: oneOf("In", "NotIn", "Exists", "DoesNotExist"), values: list(text) }, [
      "key",
      "operator",
    ]),
  ),
});

/** A whole object of a kind. */
export function kindSchema(
  apiVersion: readonly string[],
  kind: string,
  fields: Readonly<Record<string, Schema>>,
  required: readonly string[] = [],
): Schema {
  return object(
    { apiVersion: { enum: apiVersion }, kind: { const: kind }, metadata, status: harmless(), ...fields },
    ["apiVersion", "kind", "metadata", ...required],
  );
}
