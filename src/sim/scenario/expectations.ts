import type { Report } from "../report.ts";
import type { Expectation } from "./scenario.ts";

/** What an expectation found: one line for each number that it is about. */
export interface Finding {
  readonly isMet: boolean;
  /** `FILE:LINE: what was expected and what came out`. */
  readonly line: string;
}

/** Holds a report against what its scenario expects. An expectation that is about nothing is not met. */
export function checkExpectations(report: Report, expectations: readonly Expectation[]): Finding[] {
  return expectations.flatMap((expectation) => {
    const found = findingsOf(report, expectation);
    return found.length > 0
      ? found
      : [{ isMet: false, line: `${expectation.place}: is about requests that there were none of` }];
  });
}

function findingsOf(report: Report, expectation: Expectation): Finding[] {
  const { from, loadFactorMax, p99MsMax, phase, place, successRateMin, to } = expectation;
  const found: Finding[] = [];
  report.phases.forEach(({ name }, i) => {
    if (phase !== "" && phase !== name) return;
    for (const flow of report.flows) {
      const outcome = flow.phases[i]!;
      if (!flow.from.includes(from) || !flow.to.includes(to) || outcome.successRate === null) continue;
      const subject = `${place}: ${flow.from} → ${flow.to}, ${name}`;
      if (successRateMin !== null)
        found.push({
          isMet: outcome.successRate >= successRateMin,
          line: `${subject}: success ${percent(outcome.successRate)}, at least ${percent(successRateMin)} expected`,
        });
      if (p99MsMax !== null)
        found.push({
          isMet: outcome.p99Ms <= p99MsMax,
          line: `${subject}: p99 ${outcome.p99Ms} ms, at most ${p99MsMax} ms expected`,
        });
    }
    if (loadFactorMax === null) return;
    for (const { phases, service } of report.services) {
      const { loadFactor } = phases[i]!;
      if (!service.includes(to) || loadFactor === null) continue;
      found.push({
        isMet: loadFactor <= loadFactorMax,
        line: `${place}: load on ${service}, ${name}: ${loadFactor} × the requests made, at most ${loadFactorMax} expected`,
      });
    }
  });
  return found;
}

function percent(share: number): string {
  return `${Number((share * 100).toFixed(2))}%`;
}
