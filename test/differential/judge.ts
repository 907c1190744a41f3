import type { Case, Conversation } from "./case.ts";
import { compareArrivals, compareExchanges, type Difference } from "./compare.ts";
import { EXPECTED_DIFFERENCES } from "./expected-differences.ts";
import type { Seen } from "./lab.ts";

export interface Verdict {
  readonly cases: number;
  /** Differences by the name of what explains them. */
  readonly explained: ReadonlyMap<string, number>;
  readonly unexplained: readonly { readonly one: Case; readonly difference: Difference }[];
}

/** Compares two runs of the same conversations, case by case. */
export function judge(conversations: readonly Conversation[], direct: Seen, meshed: Seen): Verdict {
  const explained = new Map<string, number>();
  const unexplained: { one: Case; difference: Difference }[] = [];
  const cases = conversations.flatMap((conversation) => conversation.cases);
  for (const one of cases) {
    const [a, b] = [direct.exchanges.get(one.id), meshed.exchanges.get(one.id)];
    if (a === undefined || b === undefined) throw new Error(`case ${one.id} was not held`);
    const differences = [
      ...compareExchanges(a, b),
      ...compareArrivals(one, direct.arrivals.get(one.id) ?? [], meshed.arrivals.get(one.id) ?? []),
    ];
    for (const difference of differences) {
      const row = EXPECTED_DIFFERENCES.find((each) => each.matches(one, difference, a, b));
      if (row === undefined) unexplained.push({ one, difference });
      else explained.set(row.name, (explained.get(row.name) ?? 0) + 1);
    }
  }
  return { cases: cases.length, explained, unexplained };
}

/** A case that differs, in a few lines. */
export function describeDifference({ one, difference }: Verdict["unexplained"][number]): string {
  const short = (value: string): string => (value.length > 300 ? `${value.slice(0, 300)}…` : value);
  const lines = [
    `case ${one.id} (${one.cell || "before another"}) to ${one.origin}: ${difference.what}`,
    `  direct: ${short(difference.direct)}`,
    `  meshed: ${short(difference.meshed)}`,
    `  ${one.method} ${short(one.target)} HTTP/${one.version}, body ${one.framing} ${one.bodyBytes}, first ${one.firstBytes}`,
    `  ${short(JSON.stringify(one.answer))}`,
  ];
  return lines.join("\n");
}
