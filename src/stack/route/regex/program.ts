import type { CharSet } from "./char-set.ts";
import type { Assertion, Node } from "./syntax.ts";

/** One step of a nondeterministic automaton (Thompson, 1968). */
export type Step =
  | { readonly kind: "chars"; readonly set: CharSet; next: number }
  | { readonly kind: "fork"; first: number; second: number }
  | { readonly kind: "assert"; readonly at: Assertion; next: number }
  | { readonly kind: "match" };

export interface Program {
  readonly steps: readonly Step[];
  readonly start: number;
}

/** Counts are written out, so `(a{100}){100}` is ten thousand steps. Null: more than `stepsMax`. */
export function compileProgram(node: Node, stepsMax: number): Program | null {
  const steps: Step[] = [{ kind: "match" }];
  const start = add(node, 0, steps, stepsMax);
  return start === null ? null : { steps, start };
}

/** Adds the steps of a node before those at `next`; gives where they begin. */
function add(node: Node, next: number, steps: Step[], stepsMax: number): number | null {
  if (steps.length > stepsMax) return null;
  switch (node.kind) {
    case "chars":
      return push(steps, { kind: "chars", set: node.set, next });
    case "assert":
      return push(steps, { kind: "assert", at: node.at, next });
    case "all": {
      let at: number | null = next;
      for (const each of node.nodes.toReversed()) {
        at = add(each, at, steps, stepsMax);
        if (at === null) return null;
      }
      return at;
    }
    case "any": {
      let at: number | null = null;
      for (const each of node.nodes.toReversed()) {
        const start = add(each, next, steps, stepsMax);
        if (start === null) return null;
        at = at === null ? start : push(steps, { kind: "fork", first: start, second: at });
      }
      return at;
    }
    case "repeat":
      return addRepeat(node.node, node.min, node.max, next, steps, stepsMax);
  }
}

function addRepeat(
  node: Node,
  min: number,
  max: number,
  next: number,
  steps: Step[],
  stepsMax: number,
): number | null {
  let at: number | null = next;
  if (max === Infinity) {
    const loop: Extract<Step, { kind: "fork" }> = { kind: "fork", first: 0, second: next };
    const start = push(steps, loop);
    const body = add(node, start, steps, stepsMax);
    if (body === null) return null;
    loop.first = body;
    at = start;
  } else {
    for (let i = min; i < max; i++) {
      const body = add(node, at, steps, stepsMax);
      if (body === null) return null;
      at = push(steps, { kind: "fork", first: body, second: next });
    }
  }
  for (let i = 0; i < min; i++) {
    at = add(node, at, steps, stepsMax);
    if (at === null) return null;
  }
  return at;
}

function push(steps: Step[], step: Step): number {
  return steps.push(step) - 1;
}
