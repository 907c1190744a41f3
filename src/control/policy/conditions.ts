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

/** Which conditions complain, in one line; "" when none does. Why stands in the findings. */
export function describeFaults(parents: readonly ParentStatus[]): string {
  const faults = parents.flatMap((parent) => parent.conditions.filter(isFault));
  return [...new Set(faults.map((each) => `${each.type}=${each.status} (${each.reason})`))].join(", ");
}
