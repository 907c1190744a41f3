import type { IpAddress } from "#/base/address.ts";
import type { AccessDecision, AccessRule, Claims } from "#/model/access.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import { ruleOf } from "#/model/policy.ts";
import { isLoopback } from "../networks.ts";
import { judgedHost, type JudgedRequest } from "./condition.ts";
import { methodBit } from "./methods.ts";
import { comparedPath, normalPath, plainEnd } from "./path.ts";
import { objectOf } from "./read-rule.ts";
import { NONE, type Asked } from "./request-index.ts";
import type { AccessRules } from "./rules.ts";
import { Outcome, STEPS, type Always, type Stage } from "./stage.ts";

/** Outcomes of one client that are kept as objects. Beyond, they are made anew. */
const DECISIONS_MAX = 1_024;

/**
 * What an `AccessPolicy` is to one client, by its address and proven identity: which rules are about it. Where no rule left looks at
 * requests, a decision is there already; else it is looked up, and equal outcomes are one object.
 */
export class AccessClient {
  /** Of the request that was decided last: its target as it is to be forwarded. */
  path = "";
  /** … and which of this client's outcomes it got: a small number for each decision; -1 of one that is not kept. */
  outcome = -1;
  readonly #rules: AccessRules;
  readonly #who: string;
  /** By number of rule: 1 where its sources hold and it is about requests. */
  readonly #holds: Uint8Array;
  readonly #isLocal: boolean;
  readonly #enforced: Always;
  /** Null: as enforced. */
  readonly #proposed: Always | null;
  readonly #audits: readonly number[];
  /** What every request gets; null where it depends. */
  readonly #forEach: AccessDecision | null;
  readonly #ip: IpAddress;
  readonly #peer: PeerIdentity | null;
  #ofConnection: AccessDecision | null = null;
  /** By outcome. */
  readonly #decisions: AccessDecision[] = [];
  /** Outcomes of rules alone, by the rule's number, less `Outcome.AMBIGUOUS`; -1: none yet. */
  readonly #plain: Int32Array;
  /** … and of those with more: what is proposed, and AUDIT rules. */
  readonly #more = new Map<string, number>();
  readonly #asked: { -readonly [K in keyof Asked]: Asked[K] } = {
    request: NO_REQUEST,
    methodBit: 0,
    claims: null,
    path: "",
    route: -1,
  };

  constructor(rules: AccessRules, ip: IpAddress, peer: PeerIdentity | null) {
    this.#rules = rules;
    this.#ip = ip;
    this.#peer = peer;
    this.#who = peer === null ? `a client without mesh identity (${ip})` : `${peer.name} (${ip})`;
    this.#isLocal = isLoopback(ip);
    this.#holds = new Uint8Array(rules.rules.length);
    for (const [number, { rule, ofRequests }] of rules.rules.entries())
      if (ofRequests !== "never" && this.#isAbout(number, rule)) this.#holds[number] = 1;
    const enforced = this.#alwaysOf(rules.enforced);
    const proposed = rules.proposed === null ? null : this.#alwaysOf(rules.proposed);
    this.#enforced = enforced.always;
    this.#proposed = proposed?.always ?? null;
    const audits = this.#auditsAlways();
    this.#audits = audits.always;
    this.#plain = new Int32Array(rules.rules.length - Outcome.AMBIGUOUS).fill(-1);
    const isEach = !enforced.depends && proposed?.depends !== true && !audits.depends;
    // Outcome 0, if there is one for all.
    this.#forEach = isEach || this.#isLocal ? this.#decide() : null;
  }

  /** `request` null: an opaque connection. Else `path` and `outcome` are set afterwards. */
  decide(request: JudgedRequest | null, claims: Claims | null): AccessDecision {
    if (request === null) return (this.#ofConnection ??= this.#decideConnection());
    const { path } = request;
    this.path = path;
    const rules = this.#rules;
    const { normalisesPaths } = rules;
    const looks = rules.looksAtPaths;
    if (this.#forEach !== null && (!looks || this.#isLocal)) {
      this.outcome = 0;
      return this.#forEach;
    }
    const end = looks ? plainEnd(path) : -1;
    const normal = !looks || end !== -1 ? path : normalPath(path);
    if (normalisesPaths && normal !== null) this.path = normal;
    if (this.#forEach !== null && normal !== null) {
      this.outcome = 0;
      return this.#forEach;
    }
    const asked = this.#asked;
    asked.request = request;
    asked.methodBit = methodBit(request.method);
    asked.claims = claims;
    asked.path = !looks || normal === null ? null : end === -1 ? comparedPath(normal) : path.slice(0, end);
    asked.route = rules.table === null ? -1 : this.#routeOf(rules, asked);
    const decision = this.#decide();
    // Nothing of a request outlives it.
    asked.request = NO_REQUEST;
    asked.claims = null;
    return decision;
  }

  #routeOf(rules: AccessRules, asked: Asked): number {
    const { request, path } = asked;
    const query = request.path.indexOf("?");
    const rawPath = query === -1 ? request.path : request.path.slice(0, query);
    const candidate = rules.table?.find({
      method: request.method,
      scheme: "http",
      authority: judgedHost(request.authority),
      path: (path ?? rawPath) + (query === -1 ? "" : request.path.slice(query)),
      version: "2",
      absoluteForm: false,
      upgrade: null,
      fields: request.fields,
    });
    return candidate === null || candidate === undefined ? -1 : rules.numberOf(candidate.route);
  }

  #decide(): AccessDecision {
    const { enforced, proposed, audits } = this.#rules;
    const asked = this.#asked;
    const outcome = enforced.decide(this.#enforced, this.#holds, asked);
    const would =
      proposed === null || this.#proposed === null
        ? outcome
        : proposed.decide(this.#proposed, this.#holds, asked);
    if (audits.length === 0 || outcome === Outcome.AMBIGUOUS)
      return this.#decisionOf(outcome, would, NO_AUDITS);
    let found: number[] | null = null;
    for (let i = 0; i < audits.length; i++) {
      const index = audits[i]!;
      index.look(asked);
      const rule = index.first(0, this.#audits[i]!, this.#holds, asked);
      if (rule !== NONE) (found ??= []).push(rule);
    }
    return this.#decisionOf(outcome, would, found ?? NO_AUDITS);
  }

  #decisionOf(outcome: number, would: number, audits: readonly number[]): AccessDecision {
    const isPlain = would === outcome && audits.length === 0;
    const key = isPlain ? "" : `${outcome} ${would} ${audits.join(" ")}`;
    const known = isPlain ? this.#plain[outcome - Outcome.AMBIGUOUS]! : (this.#more.get(key) ?? -1);
    if (known !== -1) {
      this.outcome = known;
      return this.#decisions[known]!;
    }
    const decision = this.#isLocal ? LOCALHOST : this.#makeDecision(outcome, would, audits);
    if (this.#decisions.length >= DECISIONS_MAX) {
      this.outcome = -1;
      return decision;
    }
    this.outcome = this.#decisions.push(decision) - 1;
    if (isPlain) this.#plain[outcome - Outcome.AMBIGUOUS] = this.outcome;
    else this.#more.set(key, this.outcome);
    return decision;
  }

  #makeDecision(outcome: number, would: number, audits: readonly number[]): AccessDecision {
    const verdict = this.#verdictOf(outcome);
    const wouldVerdict = this.#verdictOf(would);
    const differs = (verdict === "allowed") !== (wouldVerdict === "allowed");
    return {
      verdict,
      by: this.#sourceOf(outcome),
      reason: verdict === "allowed" ? "" : this.#reasonOf(outcome),
      would: differs
        ? { verdict: verdict === "allowed" ? "would_deny" : "would_allow", by: this.#sourceOf(would) }
        : null,
      audits: audits.map((number) => this.#sourceOf(number)),
    };
  }

  #verdictOf(outcome: number): AccessDecision["verdict"] {
    if (outcome === Outcome.NOBODY) return "denied";
    if (outcome === Outcome.NO_ROUTE) return "no-route";
    if (outcome === Outcome.AMBIGUOUS) return "ambiguous";
    const action = this.#rules.policy.rules[outcome]?.action;
    return action === "exempt" || action === "allow" || action === "default" ? "allowed" : "denied";
  }

  #sourceOf(outcome: number): PolicySource {
    if (outcome === Outcome.NOBODY) return NOBODY;
    if (outcome === Outcome.NO_ROUTE) return NO_ROUTE;
    if (outcome === Outcome.AMBIGUOUS) return AMBIGUOUS_PATH;
    return this.#rules.policy.rules[outcome]?.source ?? NOBODY;
  }

  #reasonOf(outcome: number): string {
    if (outcome === Outcome.AMBIGUOUS)
      return "the path has several readings, and rules here tell paths apart";
    if (outcome === Outcome.NO_ROUTE) return "no route of the port takes the request";
    if (outcome === Outcome.NOBODY) return `${this.#who} was refused: nothing here allows it`;
    const { action, source } = this.#rules.policy.rules[outcome] as AccessRule;
    const named = `${ruleOf(source)}${source.section === "" ? "" : `, rule ${source.section}`}`;
    if (action === "deny") return `${this.#who} was refused by ${named}`;
    return `${this.#who} was refused: ${ruleOf(source)} is for those whom a policy here allows, and none allows this`;
  }

  /** Opaque: what cannot be seen is not allowed. */
  #decideConnection(): AccessDecision {
    if (this.#isLocal) return LOCALHOST;
    const { enforced, proposed, rules } = this.#rules;
    const outcome = this.#outcomeOfConnection(enforced);
    const would = proposed === null ? outcome : this.#outcomeOfConnection(proposed);
    const audits: number[] = [];
    const objects = new Set<string>();
    for (const [number, { rule }] of rules.entries()) {
      if (rule.action !== "audit" || !this.#holdsForConnection(number)) continue;
      const object = objectOf(rule);
      if (!objects.has(object)) audits.push(number);
      objects.add(object);
    }
    return this.#makeDecision(outcome, would, audits);
  }

  #outcomeOfConnection(stage: Stage): number {
    const { rules } = this.#rules;
    for (const step of STEPS) {
      const found = rules.findIndex(
        (read, number) => read.rule.action === step && stage.has(read) && this.#holdsForConnection(number),
      );
      if (found !== -1) return found;
    }
    return Outcome.NOBODY;
  }

  #holdsForConnection(number: number): boolean {
    const rule = this.#rules.policy.rules[number] as AccessRule;
    const { action, layer, requests, route } = rule;
    if (layer === "requests" || requests?.length === 0) return false;
    if ((requests !== null || route !== null) && action !== "deny" && action !== "restrict") return false;
    return this.#isAbout(number, rule);
  }

  #isAbout(number: number, { sources }: AccessRule): boolean {
    if (sources === null) return true;
    return this.#rules.rules[number]?.sources?.some((source) => source.holds(this.#ip, this.#peer)) === true;
  }

  /** `depends`: what is decided is not the same for every request. */
  #alwaysOf(stage: Stage): { always: Always; depends: boolean } {
    const always: Always = { exempt: NONE, deny: NONE, allow: NONE, restrict: NONE, default: NONE };
    const depending = new Set<string>();
    for (const [number, read] of this.#rules.rules.entries()) {
      const { action } = read.rule;
      if (action === "audit" || this.#holds[number] === 0 || !stage.has(read) || always[action] !== NONE)
        continue;
      if (read.ofRequests === "each") always[action] = number;
      else depending.add(action);
    }
    for (const step of STEPS) {
      if (depending.has(step)) return { always, depends: true };
      // Whether a route takes it is asked behind the second step.
      if (step === "allow" && this.#rules.table !== null) return { always, depends: true };
      if (always[step] !== NONE) return { always, depends: false };
    }
    return { always, depends: false };
  }

  #auditsAlways(): { always: readonly number[]; depends: boolean } {
    const always: number[] = [];
    const byObject = new Map<string, number>();
    let depends = false;
    for (const [number, { rule, ofRequests }] of this.#rules.rules.entries()) {
      if (rule.action !== "audit") continue;
      const key = objectOf(rule);
      let at = byObject.get(key);
      if (at === undefined) {
        byObject.set(key, (at = always.length));
        always.push(NONE);
      }
      if (this.#holds[number] === 0 || always[at] !== NONE) continue;
      if (ofRequests === "each") always[at] = number;
      else depends = true;
    }
    return { always, depends };
  }
}

function byNoObject(name: string): PolicySource {
  return { group: "", kind: "default", namespace: "", name, section: "", port: 0 };
}

const NOBODY = byNoObject("deny");
const NO_ROUTE = byNoObject("no-route");
const AMBIGUOUS_PATH = byNoObject("ambiguous-path");
const LOCALHOST: AccessDecision = {
  verdict: "allowed",
  by: byNoObject("localhost"),
  reason: "",
  would: null,
  audits: [],
};
const NO_AUDITS: readonly number[] = [];
const NO_REQUEST: JudgedRequest = { method: "", path: "", authority: "", fields: [] };
