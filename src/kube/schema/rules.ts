import { Environment } from "@marcbachmann/cel-js";
import type { ParseResult } from "@marcbachmann/cel-js";
import { parseIp } from "#/base/address.ts";
import type { Schema } from "./language.ts";

/** A rule of a schema that an object breaks: where it stands, and the schema's own words. */
export interface BrokenRule {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

interface Rule {
  readonly rule: string;
  readonly message?: string;
}

/**
 * Kubernetes' `x-kubernetes-validations`: rules in CEL beside the structure, checked once the structure holds and defaults
 * are in. The rules are the schemas' own; nobody else's expressions are ever read.
 */
export function brokenRules(schema: Schema, value: unknown): BrokenRule[] {
  const out: BrokenRule[] = [];
  check(schema, value, [], out);
  return out;
}

/** Why a rule of a schema can never be evaluated; null when it can. */
export function checkRule(rule: string): string | null {
  const { valid, error } = holds(rule).check();
  return valid ? null : String(error?.message);
}

/** All rules in a schema, as they stand there. */
export function rulesIn(schema: unknown): string[] {
  if (typeof schema !== "object" || schema === null) return [];
  const own = ((schema as Schema)["x-kubernetes-validations"] ?? []) as readonly Rule[];
  return [...own.map(({ rule }) => rule), ...Object.values(schema).flatMap(rulesIn)];
}

function check(schema: Schema, value: unknown, path: readonly (string | number)[], out: BrokenRule[]): void {
  if (value === undefined || !hasRules(schema)) return;
  for (const rule of (schema["x-kubernetes-validations"] ?? []) as readonly Rule[]) {
    if (!isKept(rule.rule, value))
      out.push({ path, message: rule.message ?? `breaks the rule ${rule.rule}` });
  }
  const { items, properties } = schema as { items?: Schema; properties?: Readonly<Record<string, Schema>> };
  if (items !== undefined && Array.isArray(value))
    for (const [i, item] of value.entries()) check(items, item, [...path, i], out);
  if (properties !== undefined && typeof value === "object" && value !== null)
    for (const [name, inner] of Object.entries(value))
      if (Object.hasOwn(properties, name)) check(properties[name]!, inner, [...path, name], out);
}

/** As in Kubernetes, a rule that cannot be evaluated on a value is broken by it. */
function isKept(rule: string, value: unknown): boolean {
  try {
    return holds(rule)({ self: value }) === true;
  } catch {
    return false;
  }
}

// Both are as large as the schemas that are met.
const withRules = new WeakMap<Schema, boolean>();
const parsed = new Map<string, ParseResult>();

/** Whether a schema or anything in it has rules: most parts have none and are not walked. */
function hasRules(schema: Schema): boolean {
  const known = withRules.get(schema);
  if (known !== undefined) return known;
  const { items, properties } = schema as { items?: Schema; properties?: Readonly<Record<string, Schema>> };
  const found =
    schema["x-kubernetes-validations"] !== undefined ||
    (items !== undefined && hasRules(items)) ||
    Object.values(properties ?? {}).some(hasRules);
  withRules.set(schema, found);
  return found;
}

function holds(rule: string): ParseResult {
  const before = parsed.get(rule);
  if (before !== undefined) return before;
  // The library's `has` looks through fields only, not through an element of a list.
  let text = rule.replaceAll(/\bhas\((self(?:\.\w+)*\[\d+\])\.(\w+)\)/g, "('$2' in $1)");
  for (const [theirs, ours] of REWRITES) text = text.replaceAll(theirs, () => ours);
  const made = environment.parse(text);
  parsed.set(rule, made);
  return made;
}

/** What Kubernetes' CEL has and plain CEL has not. */
const REWRITES: readonly (readonly [theirs: string, ours: string])[] = [
  // Kubernetes escapes field names that are words of the language.
  ["__namespace__", "namespace"],
  // A flag inside of an RE2 expression.
  [
    "^(?i)\\.?[a-z_][a-z_0-9]*(\\.[a-z_][a-z_0-9]*)*$",
    "^\\.?[A-Za-z_][A-Za-z_0-9]*(\\.[A-Za-z_][A-Za-z_0-9]*)*$",
  ],
  ["format.dns1123Label().validate(self) == null", "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')"],
];

const environment: Environment = new Environment({
  unlistedVariablesAreDyn: true,
  homogeneousAggregateLiterals: false,
})
  .registerVariable("self", "dyn")
  .registerFunction("isIP(string): bool", (text: string) => parseIp(text) !== null);
