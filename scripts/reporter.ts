/**
 * A reporter for `node --test` that ends with one JSON document of what happened, for scripts/check.ts. Names what
 * failed and what was skipped; what passed is only counted.
 */
import { relative } from "node:path";
import type { TestEvent } from "node:test/reporters";

export interface TestOutcome {
  passed: number;
  failures: { name: string; place: string; reason: string }[];
  skips: { name: string; place: string; reason: string }[];
}

export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const outcome: TestOutcome = { passed: 0, failures: [], skips: [] };
  for await (const { type, data } of events) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    const place = data.file === undefined ? "?" : `${relative(process.cwd(), data.file)}:${data.line ?? 1}`;
    const setAside = data.skip ?? data.todo;
    if (setAside !== undefined && setAside !== false) {
      outcome.skips.push({
        name: data.name,
        place,
        reason: typeof setAside === "string" ? setAside : "no reason",
      });
    } else if (type === "test:fail") {
      // A suite or parent fails because of its children, which are reported themselves.
      const { error } = data.details;
      if ("failureType" in error && error.failureType === "subtestsFailed") continue;
      const reason =
        error.cause instanceof Error ? (error.cause.stack ?? error.cause.message) : error.message;
      outcome.failures.push({ name: data.name, place, reason });
    } else if (data.details.type !== "suite") {
      outcome.passed += 1;
    }
  }
  yield JSON.stringify(outcome);
}
