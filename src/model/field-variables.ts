import type { EnvPlan } from "./pod-plan.ts";

type Field = Extract<EnvPlan, { readonly field: string }>["field"];

/** Values of a container's variables that only the agent knows, by name. */
export function fieldVariables(
  env: readonly EnvPlan[],
  valueOf: (field: Field) => string,
): ReadonlyMap<string, string> {
  return new Map(env.flatMap((one) => ("field" in one ? [[one.name, valueOf(one.field)] as const] : [])));
}

/** Puts them into an argument or a value: the part of Kubernetes' `$(NAME)` that the control plane had to leave. */
export function withFieldVariables(text: string, variables: ReadonlyMap<string, string>): string {
  return variables.size === 0
    ? text
    : text.replace(/\$\(([^()]*)\)/g, (whole, name: string) => variables.get(name) ?? whole);
}
