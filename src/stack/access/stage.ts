import type { AccessAction } from "#/model/access.ts";
import { looksAtPaths, type ReadRule } from "./read-rule.ts";
import { NONE, RequestIndex, type Asked } from "./request-index.ts";

/** Outcomes that no rule is the cause of; all others are numbers of rules. */
export const Outcome = { NOBODY: -1, NO_ROUTE: -2, AMBIGUOUS: -3 } as const;

/** The steps of docs/reference/authorization.md, "How it is decided", in their order. */
export const STEPS = [
  "exempt",
  "deny",
  "allow",
  "restrict",
  "default",
] as const satisfies readonly AccessAction[];

/** The first rule of each step that holds for every request of a client; `NONE` for none. */
export type Always = Record<(typeof STEPS)[number], number>;

/** Rules of one action, or AUDIT rules of one object: those that ask something of requests. */
export class Step {
  readonly #isRaw: boolean;
  #index: RequestIndex | null = null;
  readonly #byRoute: (RequestIndex | undefined)[] = [];

  constructor(isRaw: boolean) {
    this.#isRaw = isRaw;
  }

  get problems(): readonly string[] {
    return [this.#index, ...this.#byRoute].flatMap((index) => index?.problems ?? []);
  }

  add(number: number, { rule, ofRequests }: ReadRule): void {
    if (ofRequests !== "some") return;
    const index =
      rule.route === null
        ? (this.#index ??= new RequestIndex(this.#isRaw))
        : (this.#byRoute[rule.route] ??= new RequestIndex(this.#isRaw));
    if (rule.requests === null) index.addAny(number);
    const refuses = rule.action === "deny" || rule.action === "restrict";
    for (const condition of rule.requests ?? []) index.add(number, condition, refuses);
  }

  /** The first rule that holds, of those that `holds` has; `always` is one that does in any case. */
  first(always: number, holds: Uint8Array, asked: Asked): number {
    let best = always;
    if (this.#index !== null) best = this.#index.first(best, holds, asked);
    if (asked.route < 0) return best;
    return this.#byRoute[asked.route]?.first(best, holds, asked) ?? best;
  }
}

/** What is decided by the enforced rules, or by the proposed ones. */
export class Stage {
  readonly looksAtPaths: boolean;
  readonly #isRouted: boolean;
  readonly #steps: Readonly<Record<(typeof STEPS)[number], Step>> = {
    // Probes are known byte for byte, so that they need no normal form and give nobody one.
    exempt: new Step(true),
    deny: new Step(false),
    allow: new Step(false),
    restrict: new Step(false),
    default: new Step(false),
  };
  readonly #which: "enforced" | "proposed";

  constructor(
    rules: readonly ReadRule[],
    which: "enforced" | "proposed",
    routesLookAtPaths: boolean,
    isRouted: boolean,
  ) {
    this.#which = which;
    this.#isRouted = isRouted;
    let looks = routesLookAtPaths;
    for (const [number, read] of rules.entries()) {
      const { action } = read.rule;
      if (!this.has(read) || action === "audit") continue;
      this.#steps[action].add(number, read);
      looks ||= action !== "exempt" && looksAtPaths(read.rule);
    }
    this.looksAtPaths = looks;
  }

  get problems(): readonly string[] {
    return STEPS.flatMap((step) => this.#steps[step].problems);
  }

  has({ rule }: ReadRule): boolean {
    return rule.stage === "both" || rule.stage === this.#which;
  }

  /** An `Outcome`, or the number of the rule that decides. */
  decide(always: Always, holds: Uint8Array, asked: Asked): number {
    const steps = this.#steps;
    const exempt = steps.exempt.first(always.exempt, holds, asked);
    if (exempt !== NONE) return exempt;
    if (this.looksAtPaths && asked.path === null) return Outcome.AMBIGUOUS;
    const deny = steps.deny.first(always.deny, holds, asked);
    if (deny !== NONE) return deny;
    if (this.#isRouted && asked.route < 0) return Outcome.NO_ROUTE;
    const allow = steps.allow.first(always.allow, holds, asked);
    if (allow !== NONE) return allow;
    const restrict = steps.restrict.first(always.restrict, holds, asked);
    if (restrict !== NONE) return restrict;
    const byDefault = steps.default.first(always.default, holds, asked);
    return byDefault === NONE ? Outcome.NOBODY : byDefault;
  }
}
