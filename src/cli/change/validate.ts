import { describeProblem } from "#/kube/folder.ts";
import { countOf } from "../up.ts";
import { readModel } from "./folder-model.ts";
import type { BadCondition } from "./folder-model.ts";

export interface ValidateOptions {
  readonly folder: string;
  readonly json: boolean;
}

/** Says what the control plane would complain of in a folder. The exit code: 1 where there is anything. */
export function validate({ folder, json }: ValidateOptions, print: (text: string) => void): number {
  const { objects, conditions, ...model } = readModel(folder);
  const problems = [...model.problems, ...model.findings];
  const isGood = problems.length === 0 && conditions.length === 0;
  if (json) print(JSON.stringify({ ok: isGood, objects: objects.size, problems, conditions }, null, 2));
  else {
    for (const problem of problems) print(describeProblem(problem));
    for (const each of conditions) print(conditionLine(each));
    if (isGood)
      print(
        objects.size === 0
          ? `no object is in ${folder}`
          : `${countOf(objects.size, "object")}: everything is taken`,
      );
  }
  return isGood ? 0 : 1;
}

/** Why stands in the problems, with the line of the field. */
function conditionLine({ file, line, object, at, type, status, reason }: BadCondition): string {
  return `${file}:${line}: ${object}: ${type}=${status} (${reason}) at ${at}`;
}
