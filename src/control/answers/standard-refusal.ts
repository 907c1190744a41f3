import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import type { HttpFilter, HttpMatch, HttpRule } from "#/model/route.ts";

/** Something of a policy that a proxy without our extension does not do, for the status of the object that asked for it. */
export interface Loss {
  readonly source: PolicySource;
  /** Goes on "proxies of another kind …": "refuse these requests: they cannot rewrite URLs". */
  readonly what: string;
}

export type Lose = (source: PolicySource, what: string) => void;

/** Each thing said once for each object. */
export class Losses {
  readonly all: Loss[] = [];
  readonly #known = new Set<string>();

  readonly add: Lose = (source, what) => {
    const key = `${ruleOf(source)} ${what}`;
    if (this.#known.has(key)) return;
    this.#known.add(key);
    this.all.push({ source, what });
  };
}

/** Requests that match are answered with an error in place of what the object asks for. */
export function refusingRule(matches: readonly HttpMatch[], source: PolicySource, asked: string): HttpRule {
  return {
    name: "",
    matches,
    filters: [refusal(source, asked)],
    choice: "first",
    backends: [],
    timeouts: { requestMs: null, responseMs: null, attemptMs: null, idleMs: null },
    retry: null,
    allowsRequestHeaders: false,
  };
}

/** `UNIMPLEMENTED` for gRPC. The message names the object. */
export function refusal(source: PolicySource, asked: string): HttpFilter {
  return {
    kind: "fail",
    status: 500,
    grpcStatus: 12,
    message: `${ruleOf(source)} asks for ${asked}, which this client's proxy cannot do`,
    ratio: ALWAYS,
  };
}

export const ALWAYS = { numerator: 1, denominator: 1 };
