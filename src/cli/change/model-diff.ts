import { isDeepStrictEqual } from "node:util";
import { ruleOf } from "#/model/policy.ts";
import type { PolicySource } from "#/model/policy.ts";
import type { HttpRule, RouteBackend } from "#/model/route.ts";

/** One thing that differs: where in the model, and what it was and becomes. Null: it was, or is, not there. */
export interface ModelChange {
  /** `HTTPRoute/shop/web: rule 2 (canary): backends: web-v2.shop…:80: weight` */
  readonly path: string;
  readonly before: unknown;
  readonly after: unknown;
}

/**
 * What differs between two values of the compiled model, down to single fields. Members of lists are told apart by what they are
 * (a route by its object, a backend by where it leads), so that one that moved is no change where order says nothing.
 */
export function modelDiff(before: unknown, after: unknown): ModelChange[] {
  const changes: ModelChange[] = [];
  compare(before, after, [], changes);
  return changes;
}

/** `~ timeouts: requestMs: 1000 -> 500`, `+ …`, `- …`. */
export function changeLine({ path, before, after }: ModelChange): string {
  if (before === null) return `+ ${path}: ${shown(after)}`;
  if (after === null) return `- ${path}: ${shown(before)}`;
  return `~ ${path}: ${shown(before)} -> ${shown(after)}`;
}

function compare(before: unknown, after: unknown, path: readonly string[], changes: ModelChange[]): void {
  if (isDeepStrictEqual(before, after)) return;
  const a = membersOf(before);
  const b = membersOf(after);
  if (a === null || b === null) {
    changes.push({ path: path.join(": "), before: before ?? null, after: after ?? null });
    return;
  }
  for (const key of new Set([...a.keys(), ...b.keys()]))
    compare(a.get(key), b.get(key), [...path, key], changes);
}

/** Parts of an object or a list by name; null for what has none. */
function membersOf(value: unknown): Map<string, unknown> | null {
  if (typeof value !== "object" || value === null) return null;
  const out = new Map<string, unknown>();
  if (!Array.isArray(value)) {
    // Sources are names, by which the members of lists are known already.
    for (const [key, part] of Object.entries(value)) if (key !== "source") out.set(key, part);
    return out;
  }
  value.forEach((part: unknown, i) => {
    const name = nameOf(part, i);
    out.set(out.has(name) ? `${name} (${i + 1})` : name, part);
  });
  return out;
}

interface Named {
  readonly source?: PolicySource;
  readonly rules?: unknown;
  readonly matches?: unknown;
  readonly backends?: unknown;
  readonly name?: string;
  readonly kind?: string;
  readonly backend?: { readonly source: PolicySource };
}

function nameOf(part: unknown, i: number): string {
  if (typeof part !== "object" || part === null || Array.isArray(part)) return String(i + 1);
  const { source, matches, backends, name, kind, backend } = part as Named;
  if (matches !== undefined && backends !== undefined)
    return `rule ${i + 1}${name === "" || name === undefined ? "" : ` (${name})`}`;
  if (backend !== undefined) return `${kind === undefined ? "" : `${kind} `}${sourceText(backend.source)}`;
  if (source !== undefined) return `${kind === undefined ? "" : `${kind} of `}${sourceText(source)}`;
  if (name !== undefined) return name;
  return kind === undefined ? String(i + 1) : `${kind} ${i + 1}`;
}

function sourceText(source: PolicySource): string {
  const at = [source.port === 0 ? "" : `:${source.port}`, source.section === "" ? "" : ` ${source.section}`];
  return `${ruleOf(source)}${at.join("")}`;
}

function whereTo(backends: readonly RouteBackend[]): string {
  const names = [...new Set(backends.map(({ backend }) => sourceText(backend.source)))];
  return names.length === 0 ? "no backend" : names.join(", ");
}

/** A whole thing that came or went is told in short. */
const CHARS_MAX = 160;

function shown(value: unknown): string {
  const { rules, backends } = (value ?? {}) as {
    rules?: readonly HttpRule[];
    backends?: readonly RouteBackend[];
  };
  if (rules !== undefined)
    return `${rules.length} rule${rules.length === 1 ? "" : "s"} to ${whereTo(rules.flatMap((each) => each.backends))}`;
  if (backends !== undefined) return `to ${whereTo(backends)}`;
  const text = JSON.stringify(value, (key, part: unknown) =>
    key === "source" || part === null || (Array.isArray(part) && part.length === 0) ? undefined : part,
  );
  return text.length > CHARS_MAX ? `${text.slice(0, CHARS_MAX)}…` : text;
}
