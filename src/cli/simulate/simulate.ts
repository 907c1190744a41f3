import { readFileSync, writeFileSync } from "node:fs";
import { readFolder } from "#/agent/folder.ts";
import { describeProblem, loadFolder } from "#/kube/folder.ts";
import type { FolderFile } from "#/model/node-protocol.ts";
import { plotOf } from "#/sim/plot.ts";
import { reportOf } from "#/sim/report.ts";
import { checkExpectations } from "#/sim/scenario/expectations.ts";
import { readScenario } from "#/sim/scenario/scenario.ts";
import { worldPlanOf } from "#/sim/scenario/world-plan.ts";
import { simulate } from "#/sim/simulate.ts";
import { CommandError } from "../exit.ts";
import { reportText } from "./report-text.ts";

export interface SimulateOptions {
  readonly folder: string;
  /** Path of the scenario; null: made of the flags. */
  readonly scenario: string | null;
  readonly from: string | null;
  readonly to: string | null;
  readonly rate: number;
  /** `WORKLOAD=KIND:VALUE`, each. */
  readonly fail: readonly string[];
  /** Null: the scenario's. */
  readonly seed: number | null;
  readonly json: boolean;
  /** Where the SVG goes; null: nowhere. */
  readonly plot: string | null;
}

/** Plays a scenario with a folder's mesh and prints what came out; `warn` hears of policies that count in part. The exit code: 1 where an expectation was not met. */
export function simulateFolder(
  options: SimulateOptions,
  print: (text: string) => void,
  warn: (text: string) => void,
): number {
  const content = readFolder(options.folder);
  const loaded = loadFolder(content.files, new Map());
  complain([...content.problems, ...loaded.problems.map(describeProblem)]);
  const { problems, scenario } = readScenario(scenarioFile(options));
  if (scenario === null) throw complaint(problems.map(describeProblem));
  const made = worldPlanOf(loaded.objects, scenario);
  // Names in the scenario that the folder does not have are among its problems by now.
  complain([...problems, ...made.problems].map(describeProblem));
  for (const warning of made.warnings) warn(`warning: ${describeProblem(warning)}`);
  const report = reportOf(simulate(options.seed === null ? made.plan : { ...made.plan, seed: options.seed }));
  const findings = checkExpectations(report, scenario.expectations);
  if (options.plot !== null) writeFileSync(options.plot, plotOf(report));
  print(
    options.json
      ? JSON.stringify({ ...report, expectations: findings }, null, 2)
      : reportText(report, findings),
  );
  return findings.every((finding) => finding.isMet) && report.violations.length === 0 ? 0 : 1;
}

function scenarioFile(options: SimulateOptions): FolderFile {
  if (options.scenario !== null) {
    try {
      return { path: options.scenario, text: readFileSync(options.scenario, "utf8") };
    } catch (error) {
      throw new CommandError(`cannot read the scenario ${options.scenario}: ${(error as Error).message}`, 2);
    }
  }
  if (options.from === null || options.to === null)
    throw new CommandError(
      "say what is to happen: --scenario FILE, or --from WORKLOAD --to URL (and --fail)",
      2,
    );
  const flags = {
    run: "60s",
    load: [{ from: options.from, to: options.to, rate: options.rate }],
    failures: options.fail.map((text) => failureFlag(text)),
  };
  return { path: "--from, --to, --fail", text: JSON.stringify(flags) };
}

/** `shop/cart=errors:30%`, `shop/cart=slow:10`, `shop/cart=death`: for the second third of a minute. */
function failureFlag(text: string): object {
  const match = /^([^=]+)=(slow|errors|capacity|death)(?::(.+))?$/.exec(text);
  if (match === null)
    throw new CommandError(`--fail ${text}: write WORKLOAD=errors:30%, =slow:10, =capacity:20% or =death`, 2);
  const [, workload, kind, value = ""] = match;
  const amount = kind === "death" ? true : kind === "slow" ? Number(value) : value;
  return { at: "20s", for: "20s", workload, [kind!]: amount };
}

function complain(problems: readonly string[]): void {
  if (problems.length > 0) throw complaint(problems);
}

function complaint(problems: readonly string[]): CommandError {
  return new CommandError(`nothing was simulated:\n  ${problems.join("\n  ")}`, 2);
}
