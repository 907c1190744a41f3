import type { Condition, ParentStatus } from "#/model/node-protocol.ts";

/** Why a part of an object does not do what it says: a reason of the Gateway API, and where it stands. */
export interface Finding {
  readonly reason: string;
  readonly message: string;
  readonly path: readonly (string | number)[];
}

export function condition(type: Condition["type"], reason: string, message = ""): Condition {
  return { type, status: type === reason || type === "PartiallyInvalid" ? "True" : "False", reason, message };
}

/** PartiallyInvalid is a complaint where it is true, the others where they are not. */
export function isFault({ type, status }: Condition): boolean {
  return (type === "PartiallyInvalid") === (status === "True");
}

export function isFine(parents: readonly ParentStatus[]): boolean {
  return !parents.some((parent) => parent.conditions.some(isFault));
}

/** What is wrong, in one line; "" when nothing is. */
export function describeFaults(parents: readonly ParentStatus[]): string {
  const faults = parents.flatMap((parent) => parent.conditions.filter(isFault));
  const lines = faults.map((each) => `${each.type}=${each.status} (${each.reason}): ${each.message}`);
  return [...new Set(lines)].join("; ");
}
