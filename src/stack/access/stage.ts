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

/** Their numbers, for `RequestIndex`. */
const EXEMPT = 0;
const DENY = 1;
const ALLOW = 2;
const RESTRICT = 3;
const DEFAULT = 4;

/** Rules that ask something of requests: of any route, and of each. */
export class RuleIndex {
  readonly #isRaw: boolean;
  #general: RequestIndex | null = null;
  readonly #byRoute: (RequestIndex | undefined)[] = [];
  #ofRoute: RequestIndex | undefined = undefined;

  constructor(isRaw: boolean) {
    this.#isRaw = isRaw;
  }

  get problems(): readonly string[] {
    return [this.#general, ...this.#byRoute].flatMap((index) => index?.problems ?? []);
  }

  add(step: number, number: number, { rule, ofRequests }: ReadRule): void {
    if (ofRequests !== "some") return;
    const index =
      rule.route === null
        ? (this.#general ??= new RequestIndex(this.#isRaw))
        : (this.#byRoute[rule.route] ??= new RequestIndex(this.#isRaw));
    if (rule.requests === null) index.addAny(step, number);
    const refuses = rule.action === "deny" || rule.action === "restrict";
    for (const condition of rule.requests ?? []) index.add(step, number, condition, refuses);
  }

  /** Looks the request up, for `first`. */
  look(asked: Asked): void {
    this.#general?.look(asked);
    this.#ofRoute = asked.route < 0 ? undefined : this.#byRoute[asked.route];
    this.#ofRoute?.look(asked);
  }

  /** The first rule that holds, of those that `holds` has; `always` is one that does in any case. */
  first(step: number, always: number, holds: Uint8Array, asked: Asked): number {
    let best = always;
    if (this.#general !== null) best = this.#general.first(step, best, holds, asked);
    if (this.#ofRoute !== undefined) best = this.#ofRoute.first(step, best, holds, asked);
    return best;
  }
}

/** What is decided by the enforced rules, or by the proposed ones. */
export class Stage {
  readonly looksAtPaths: boolean;
  readonly #isRouted: boolean;
  /** Probes are known byte for byte, so that they need no normal form and give nobody one. Null: there are none that ask anything. */
  #probes: RuleIndex | null = null;
  readonly #index = new RuleIndex(false);
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
      if (action !== "exempt") this.#index.add(STEPS.indexOf(action), number, read);
      else if (read.ofRequests === "some") (this.#probes ??= new RuleIndex(true)).add(EXEMPT, number, read);
      looks ||= action !== "exempt" && looksAtPaths(read.rule);
    }
    this.looksAtPaths = looks;
  }

  get problems(): readonly string[] {
    return [...(this.#probes?.problems ?? []), ...this.#index.problems];
  }

  has({ rule }: ReadRule): boolean {
    return rule.stage === "both" || rule.stage === this.#which;
  }

  /** An `Outcome`, or the number of the rule that decides. */
  decide(always: Always, holds: Uint8Array, asked: Asked): number {
    let exempt = always.exempt;
    if (this.#probes !== null) {
      this.#probes.look(asked);
      exempt = this.#probes.first(EXEMPT, exempt, holds, asked);
    }
    if (exempt !== NONE) return exempt;
    if (this.looksAtPaths && asked.path === null) return Outcome.AMBIGUOUS;
    const index = this.#index;
    index.look(asked);
    const deny = index.first(DENY, always.deny, holds, asked);
    if (deny !== NONE) return deny;
    if (this.#isRouted && asked.route < 0) return Outcome.NO_ROUTE;
    const allow = index.first(ALLOW, always.allow, holds, asked);
    if (allow !== NONE) return allow;
    const restrict = index.first(RESTRICT, always.restrict, holds, asked);
    if (restrict !== NONE) return restrict;
    const byDefault = index.first(DEFAULT, always.default, holds, asked);
    return byDefault === NONE ? Outcome.NOBODY : byDefault;
  }
}
