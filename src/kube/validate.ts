import { Ajv } from "ajv";
import type { ErrorObject, ValidateFunction } from "ajv";
import { CHECKS } from "./schema/checks.ts";
import { apiVersionsOf, kindKeyOf, KINDS, REFUSED_KINDS } from "./schema/kinds.ts";
import { brokenRules } from "./schema/rules.ts";

/** What is wrong with an object: where (a path into it) and why, ending with what to do. */
export interface Violation {
  readonly path: readonly (string | number)[];
  readonly reason: string;
}

/**
 * Holds an object against the closed list of what is honoured; empty when it is. Fields that a published schema has a default
 * for, and that are absent, are filled in.
 */
export function validateObject(value: unknown): Violation[] {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return [
      { path: [], reason: "is no Kubernetes object: it must be a map with apiVersion, kind and metadata" },
    ];
  const { kind, apiVersion } = value as { kind?: unknown; apiVersion?: unknown };
  if (typeof kind !== "string")
    return [{ path: [], reason: "kind is missing; write which kind of object this is" }];
  if (!Object.hasOwn(KINDS, kind)) {
    const why = Object.hasOwn(REFUSED_KINDS, kind)
      ? REFUSED_KINDS[kind]!
      : `unknown kind; honoured are ${Object.keys(KINDS).join(", ")}`;
    return [{ path: ["kind"], reason: `${kind} is not honoured: ${why}` }];
  }
  const versions = apiVersionsOf(kind);
  if (typeof apiVersion !== "string" || !versions.includes(apiVersion))
    return [{ path: ["apiVersion"], reason: `${kind} has apiVersion ${versions.join(" or ")}` }];
  const key = kindKeyOf(kind, apiVersion)!;
  const validate = validators.get(key) ?? compile(key);
  if (!validate(value)) return violationsOf(validate.errors ?? [], value);
  return brokenRules(KINDS[key]!, value).map(({ path, message }) => ({
    path,
    reason: `is refused: ${message}`,
  }));
}

const ajv = new Ajv({
  allErrors: true,
  verbose: true,
  strict: false,
  ownProperties: true,
  useDefaults: true,
  // `int32` and `date-time` in published schemas: their bounds and patterns say as much.
  validateFormats: false,
});
ajv.addKeyword({ keyword: "refused", validate: () => false, errors: false });
ajv.addKeyword({
  keyword: "only",
  validate: (schema: { values: readonly unknown[] }, data: unknown) => schema.values.includes(data),
  errors: false,
});
ajv.addKeyword({
  keyword: "check",
  validate: (name: string, data: unknown) => CHECKS[name]!(data) === null,
  errors: false,
});

// Compiled when first met: a folder uses few kinds.
const validators = new Map<string, ValidateFunction>();

function compile(kind: string): ValidateFunction {
  const made = ajv.compile(KINDS[kind]!);
  validators.set(kind, made);
  return made;
}

function violationsOf(errors: readonly ErrorObject[], root: object): Violation[] {
  const out = new Map<string, Violation>();
  // An anyOf of ours ends in `only`, which explains best; its other branches' errors are noise.
  const explained = new Set(errors.filter((e) => e.keyword === "anyOf").map((e) => e.instancePath));
  for (const error of errors) {
    if (error.keyword === "anyOf") continue;
    const outer = [...explained].find(
      (path) => error.instancePath === path || error.instancePath.startsWith(`${path}/`),
    );
    if (outer !== undefined && error.keyword !== "only") continue;
    const path = pathOf(error, root);
    const key = path.join("\0");
    if (!out.has(key)) out.set(key, { path, reason: reasonOf(error) });
  }
  return [...out.values()];
}

function pathOf(error: ErrorObject, root: object): (string | number)[] {
  const path: (string | number)[] = [];
  let at: unknown = root;
  for (const step of error.instancePath.split("/").slice(1)) {
    const name = step.replaceAll("~1", "/").replaceAll("~0", "~");
    path.push(Array.isArray(at) ? Number(name) : name);
    at = (at as Record<string, unknown>)[name];
  }
  const params = error.params as { additionalProperty?: string };
  if (params.additionalProperty !== undefined) path.push(params.additionalProperty);
  return path;
}

function reasonOf(error: ErrorObject): string {
  const schema: unknown = error.schema;
  switch (error.keyword) {
    case "refused":
      return `is not honoured: ${String(schema)}`;
    case "only":
      return `${JSON.stringify(error.data)} is not honoured: ${(schema as { reason: string }).reason}`;
    case "check":
      return CHECKS[String(schema)]!(error.data) ?? "is wrong";
    case "additionalProperties": {
      const name = (error.params as { additionalProperty: string }).additionalProperty;
      const known = Object.keys((error.parentSchema as { properties?: object }).properties ?? {});
      const near = known.find((other) => isNear(name, other));
      return near !== undefined
        ? `unknown field; did you mean ${near}?`
        : `unknown field, so it would have no effect; remove it, or check its spelling and place (known here: ${known.join(", ")})`;
    }
    case "required":
      return `${(error.params as { missingProperty: string }).missingProperty} is missing`;
    case "type":
      return `must be ${words[String(schema)] ?? String(schema)}`;
    case "enum":
      return `must be one of ${(schema as unknown[]).map((v) => JSON.stringify(v)).join(", ")}`;
    case "minimum":
    case "maximum":
      return `must be ${error.keyword === "minimum" ? "at least" : "at most"} ${String(schema)}`;
    case "minItems":
    case "minLength":
      return "must not be empty";
    case "maxItems":
      return `has too many entries; at most ${String(schema)} are allowed`;
    case "maxLength":
      return `is too long; at most ${String(schema)} characters are allowed`;
    case "pattern":
      return `${JSON.stringify(error.data)} has not the right form; it must match ${String(schema)}`;
    default:
      return error.message ?? "is wrong";
  }
}

const words: Readonly<Record<string, string>> = {
  object: "a map",
  array: "a list",
  string: "text (put numbers and booleans in quotes)",
  integer: "a whole number",
  boolean: "true or false",
};

/** One or two edits by its length, or only another case. */
function isNear(a: string, b: string): boolean {
  if (a.toLowerCase() === b.toLowerCase()) return true;
  if (Math.abs(a.length - b.length) > 2 || a.length < 3 || a.length > 64) return false;
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++)
      row.push(
        Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)),
      );
    previous = row;
  }
  return previous[b.length]! <= (a.length < 5 ? 1 : 2);
}
