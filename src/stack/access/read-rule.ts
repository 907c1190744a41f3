import type { AccessRule } from "#/model/access.ts";
import { saidOf } from "./condition.ts";
import { SourceTest } from "./source.ts";

/** A rule whose sources are read. */
export interface ReadRule {
  readonly rule: AccessRule;
  /** Null: anyone. */
  readonly sources: readonly SourceTest[] | null;
  /** Whether it is about requests at all, and whether about each of them alike. */
  readonly ofRequests: "never" | "each" | "some";
}

/** Whether a rule's own requests tell paths apart. */
export function looksAtPaths({ requests }: AccessRule): boolean {
  return requests?.some(({ paths }) => saidOf(paths) !== null) === true;
}

/** `only`: the one route that takes everything; null: there are several, or none. */
export function readRule(rule: AccessRule, only: number | null): ReadRule {
  const refuses = rule.action === "deny" || rule.action === "restrict";
  const isOfOnly = only !== null && rule.route === only;
  const isNever =
    rule.layer === "connections" ||
    rule.requests?.length === 0 ||
    (only !== null && rule.route !== null && !isOfOnly);
  const isEach = rule.requests === null && (rule.route === null || isOfOnly);
  return {
    rule: isOfOnly ? { ...rule, route: null } : rule,
    sources: rule.sources?.map((source) => new SourceTest(source, refuses)) ?? null,
    ofRequests: isNever ? "never" : isEach ? "each" : "some",
  };
}

/** Rules of one object share it. */
export function objectOf({ source: { group, kind, namespace, name } }: AccessRule): string {
  return `${group}/${kind}/${namespace}/${name}`;
}
