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
  const { from, growthMax, loadFactorMax, p99MsMax, phase, place, successRateMin, to } = expectation;
  const before = report.phases.findIndex(({ name }) => name === "before");
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
    for (const { phases, service } of report.services) {
      if (!service.includes(to)) continue;
      const { attemptsPerSecond, loadFactor } = phases[i]!;
      const subject = `${place}: ${service}, ${name}`;
      if (loadFactorMax !== null && loadFactor !== null)
        found.push({
          isMet: loadFactor <= loadFactorMax,
          line: `${subject}: ${loadFactor} × the requests made reach it, at most ${loadFactorMax} expected`,
        });
      const usual = before === -1 || before === i ? 0 : phases[before]!.attemptsPerSecond;
      const growth = usual === 0 ? 0 : Number((attemptsPerSecond / usual).toFixed(3));
      if (growthMax !== null && usual > 0)
        found.push({
          isMet: growth <= growthMax,
          line: `${subject}: ${growth} × the load from before, at most ${growthMax} expected`,
        });
    }
  });
  return found;
}

function percent(share: number): string {
  return `${Number((share * 100).toFixed(2))}%`;
}
