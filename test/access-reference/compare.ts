import type { AccessDecision, AccessPolicy, AccessSubject } from "#/model/access.ts";
import { drawCase, type Case } from "./draw.ts";
import { referenceDecision } from "./reference.ts";

/** What is held against the reference: `decideAccess` of `src/stack/access/decide.ts`, whole or with a fault in it. */
export type Decide = (policy: AccessPolicy, subject: AccessSubject) => AccessDecision;

export interface Disagreement extends Case {
  readonly expected: AccessDecision;
  /** Null: it threw. */
  readonly found: AccessDecision | null;
  readonly problem: string;
}

/** Null where both say the same: verdict, deciding rule, what the proposed rules would make of it, and audits. */
export function disagreement(decide: Decide, one: Case): Disagreement | null {
  const found = disagreementAbout(decide, one);
  return found !== null || one.next === null
    ? found
    : disagreementAbout(decide, { ...one, subject: one.next });
}

function disagreementAbout(decide: Decide, one: Case): Disagreement | null {
  const expected = referenceDecision(one.policy, one.subject);
  let found: AccessDecision;
  try {
    found = decide(one.policy, one.subject);
  } catch (error) {
    return { ...one, expected, found: null, problem: String(error) };
  }
  if (toldOf(found) !== toldOf(expected)) return { ...one, expected, found, problem: "" };
  // Whoever is refused is told why, and nobody else.
  if ((found.reason === "") !== (found.verdict === "allowed"))
    return { ...one, expected, found, problem: "its reason" };
  return null;
}

/** The first of `count` cases, from that of seed `from`, in which both disagree; null for none. */
export function firstDisagreement(decide: Decide, from: number, count: number): Disagreement | null {
  for (let seed = from; seed < from + count; seed++) {
    const found = disagreement(decide, drawCase(seed));
    if (found !== null) return found;
  }
  return null;
}

/** All but the words of the reason. */
function toldOf({ verdict, by, would, audits }: AccessDecision): string {
  return JSON.stringify([
    verdict,
    sourceText(by),
    would?.verdict,
    would && sourceText(would.by),
    audits.map(sourceText).toSorted(),
  ]);
}

function sourceText({ group, kind, namespace, name, section, port }: AccessDecision["by"]): string {
  return [group, kind, namespace, name, section, port].join("/");
}

export function describeDisagreement({
  seed,
  policy,
  subject,
  expected,
  found,
  problem,
}: Disagreement): string {
  const shown = (decision: AccessDecision | null): string =>
    decision === null ? problem : `${JSON.stringify({ ...decision, reason: undefined })} ${problem}`;
  return [
    `seed ${seed}: the reference and src/stack/access disagree; docs/reference/authorization.md decides who is right`,
    `reference      ${shown(expected)}`,
    `implementation ${shown(found)}`,
    `subject        ${JSON.stringify(subject)}`,
    `routes         ${policy.routes.map((route) => `\n  ${JSON.stringify(route)}`).join("")}`,
    `rules          ${policy.rules.map((rule) => `\n  ${JSON.stringify(rule)}`).join("")}`,
  ].join("\n");
}
