import type { AccessDecision, AccessPolicy, AccessSubject } from "#/model/access.ts";
import type { Case } from "./draw.ts";
import {
  claimHolds,
  conditionHolds,
  fieldHolds,
  holds,
  hostHolds,
  isLoopback,
  networkHolds,
  outcome,
  pathHolds,
  peerHolds,
  sourceHolds,
  winner,
} from "./reference.ts";

/** In how many of the cases each thing was met, so that a run which agrees is known to have asked. */
export class Shares {
  readonly #counts = new Map<string, number>();
  #cases = 0;

  add(one: Case, decision: AccessDecision): void {
    this.#cases++;
    for (const name of new Set(met(one, decision))) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  /** Of all that can be met, what was met in less than `share` of the cases. */
  below(share: number): string[] {
    return ALL.filter((name) => this.#shareOf(name) < share).map(
      (name) => `${name} ${percent(this.#shareOf(name))}`,
    );
  }

  table(): string {
    return [...new Set([...ALL, ...this.#counts.keys()])]
      .map((name) => `${percent(this.#shareOf(name)).padStart(7)}  ${name}`)
      .join("\n");
  }

  #shareOf(name: string): number {
    return (this.#counts.get(name) ?? 0) / this.#cases;
  }
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

const PEER_KINDS = [
  "anyone",
  "unauthenticated",
  "authenticated",
  "trust-domain",
  "namespace",
  "identity",
  "name",
  "suffix",
];
const PARTS = [
  "method",
  ...["exact", "prefix", "regex", "rpc"].map((kind) => `path ${kind}`),
  ...["exact", "suffix"].map((kind) => `host ${kind}`),
  ...["header", "query"].flatMap((what) => [`${what} exact`, `${what} regex`]),
  "claim",
];

/**
 * Each has to be met in 5 % of cases. Outcomes exclude each other; a kind of source or condition counts where it holds in a rule that
 * holds, and where it keeps one from holding.
 */
const ALL: readonly string[] = [
  ...["loopback", "exempt", "allow", "default"].map((step) => `allowed by ${step}`),
  ...["deny", "restrict", "nothing"].map((step) => `denied by ${step}`),
  ...["no-route", "ambiguous", "would_deny", "would_allow", "audits", "connection", "request"],
  ...["exempt", "deny", "allow", "restrict", "default", "audit"].flatMap((action) => [
    `${action} rule holds`,
    `${action} rule does not`,
  ]),
  ...["both", "enforced", "proposed"].map((stage) => `stage ${stage} holds`),
  ...["connections", "requests"].map((layer) => `layer ${layer} holds`),
  ...[...PEER_KINDS, "network", "network with exception"].flatMap((kind) => [`source ${kind} holds`]),
  ...[...PEER_KINDS.slice(1), "network", "network with exception"].flatMap((kind) => [
    `source ${kind} does not`,
  ]),
  ...PARTS.flatMap((part) => [`condition ${part} holds`, `condition ${part} does not`]),
  ...["a rule of the winning route holds", "a rule of another route does not", "several routes match"],
  ...["deny by what cannot be seen", "no allow by what cannot be seen"],
];

function* met({ policy, subject }: Case, decision: AccessDecision): Generator<string> {
  const { request } = subject;
  const { verdict, would } = decision;
  const step = isLoopback(subject.ip) ? "loopback" : outcome(policy, subject, "enforced").step;
  yield verdict === "allowed" || verdict === "denied" ? `${verdict} by ${step}` : verdict;
  if (would !== null) yield would.verdict;
  if (decision.audits.length > 0) yield "audits";
  yield request === null ? "connection" : "request";

  for (const rule of policy.rules) {
    const does = holds(policy, rule, subject);
    yield `${rule.action} rule ${does ? "holds" : "does not"}`;
    if (does) {
      yield `stage ${rule.stage} holds`;
      if (rule.layer !== "both") yield `layer ${rule.layer} holds`;
      if (rule.route !== null && request !== null) yield "a rule of the winning route holds";
    }
    if (request !== null && rule.route !== null && winner(policy, request) !== rule.route)
      yield "a rule of another route does not";
    if (request === null && (rule.requests !== null || rule.route !== null)) {
      if (rule.action === "deny" && does) yield "deny by what cannot be seen";
      const plain = { ...rule, requests: null, route: null };
      if (rule.action === "allow" && !does && holds(policy, plain, subject))
        yield "no allow by what cannot be seen";
    }
    yield* metSources(rule.sources ?? [], subject, does);
    if (request !== null) yield* metConditions(rule.requests ?? [], request, does);
  }
  if (request !== null && winner(policy, request) !== null) {
    const matching = policy.routes.filter(
      (route) => winner({ ...policy, routes: [route] }, request) !== null,
    );
    if (matching.length > 1) yield "several routes match";
  }
}

function* metSources(
  sources: NonNullable<AccessPolicy["rules"][number]["sources"]>,
  subject: AccessSubject,
  ruleHolds: boolean,
): Generator<string> {
  for (const source of sources) {
    const does = sourceHolds(source, subject);
    if (does && ruleHolds) yield `source ${source.peer.kind} holds`;
    if (!peerHolds(source.peer, subject.peer)) yield `source ${source.peer.kind} does not`;
    for (const network of source.networks ?? []) {
      const kind = network.except.length > 0 ? "network with exception" : "network";
      if (!networkHolds(network, subject.ip)) yield `source ${kind} does not`;
      else if (does && ruleHolds) yield `source ${kind} holds`;
    }
  }
}

function* metConditions(
  conditions: NonNullable<AccessPolicy["rules"][number]["requests"]>,
  request: NonNullable<AccessSubject["request"]>,
  ruleHolds: boolean,
): Generator<string> {
  for (const condition of conditions) {
    const does = conditionHolds(condition, request, false);
    for (const [part, isHeld] of partsOf(condition, request)) {
      if (!isHeld) yield `condition ${part} does not`;
      else if (does && ruleHolds) yield `condition ${part} holds`;
    }
  }
}

function* partsOf(
  condition: NonNullable<AccessPolicy["rules"][number]["requests"]>[number],
  request: NonNullable<AccessSubject["request"]>,
): Generator<readonly [part: string, holds: boolean]> {
  for (const method of condition.methods ?? []) yield ["method", method === request.method];
  for (const path of condition.paths ?? []) yield [`path ${path.kind}`, pathHolds(path, request)];
  for (const host of condition.hosts ?? []) yield [`host ${host.kind}`, hostHolds(host, request.authority)];
  for (const what of ["header", "query"] as const)
    for (const match of what === "header" ? condition.headers : condition.query)
      yield [`${what} ${match.value.kind}`, fieldHolds(what, match, request, false)];
  for (const claim of condition.claims) yield ["claim", claimHolds(claim, request.claims)];
}
