import type { IpAddress } from "#/base/address.ts";
import type {
  AccessDecision,
  AccessPolicy,
  AccessRequest,
  AccessRule,
  AccessSubject,
  RequestCondition,
} from "#/model/access.ts";
import type { PeerIdentity } from "#/model/identity.ts";
import { decideAccess } from "./decide.ts";

/**
 * Questions about a policy, answered by asking `decideAccess` about policies like it. For people who wait for an answer; a sidecar asks
 * them of few connections.
 */

/** Whether everything, some, or nothing of what a client may ask is allowed. */
export function reachOf(
  policy: AccessPolicy,
  { ip, peer }: { readonly ip: IpAddress; readonly peer: PeerIdentity | null },
  isOpaque: boolean,
): Record<"enforced" | "proposed", "allowed" | "partly" | "denied"> {
  const request = isOpaque ? null : ANY_REQUEST;
  const [best, worst] = [true, false].map((isBest) =>
    decideAccess(isOpaque ? policy : assuming(policy, isBest, "requests"), { ip, peer, request }),
  ) as [AccessDecision, AccessDecision];
  const of = (isAllowed: (decision: AccessDecision) => boolean): "allowed" | "partly" | "denied" =>
    isAllowed(worst) ? "allowed" : isAllowed(best) ? "partly" : "denied";
  return {
    enforced: of(({ verdict }) => verdict === "allowed"),
    proposed: of(isProposed),
  };
}

/** Whether it would be allowed were every policy enforced. */
export function isProposed({ verdict, would }: AccessDecision): boolean {
  return would === null ? verdict === "allowed" : would.verdict === "would_allow";
}

/**
 * What becomes of a request of which only method and path are known: at best and at worst, by what its other parts may be. The two are
 * the same where no rule that counts looks at them.
 */
export function decideUnseen(
  policy: AccessPolicy,
  subject: AccessSubject,
): { readonly best: AccessDecision; readonly worst: AccessDecision } {
  const [best, worst] = [true, false].map((isBest) =>
    decideAccess(assuming(policy, isBest, "fields"), subject),
  ) as [AccessDecision, AccessDecision];
  return { best, worst };
}

/** Whether one rule of a policy holds for what is asked, by itself; null where that cannot be said, for its path has several readings. */
export function ruleHolds(policy: AccessPolicy, rule: AccessRule, subject: AccessSubject): boolean | null {
  const alone = { ...rule, stage: "both" } as const;
  const { routes } = policy;
  const refuses = rule.action === "deny" || rule.action === "restrict";
  const decision = decideAccess({ routes, rules: refuses ? [alone, EVERYBODY] : [alone] }, subject);
  if (decision.verdict === "ambiguous") return null;
  if (rule.action === "audit") return decision.audits.length > 0;
  // Refused by no route is refused by no rule.
  return refuses ? decision.verdict === "denied" : decision.verdict === "allowed";
}

/** Whether a rule is about a client at all, whatever it asks. */
export function isAbout(rule: AccessRule, ip: IpAddress, peer: PeerIdentity | null): boolean {
  if (rule.requests?.length === 0) return false;
  const bare: AccessRule = {
    ...rule,
    action: "allow",
    stage: "both",
    requests: null,
    route: null,
    layer: "both",
  };
  return decideAccess({ routes: [], rules: [bare] }, { ip, peer, request: null }).verdict === "allowed";
}

const ANY_REQUEST: AccessRequest = { method: "GET", path: "/", authority: "", fields: [], claims: null };
const EVERYBODY: AccessRule = {
  action: "default",
  stage: "both",
  source: { group: "", kind: "default", namespace: "", name: "", section: "", port: 0 },
  sources: null,
  requests: null,
  route: null,
  layer: "both",
};

type Unknown = "requests" | "fields";

/** Kept with their policy, so that many questions about it cost its reading twice and no more. */
const ASSUMED = new WeakMap<AccessPolicy, Map<string, AccessPolicy>>();

/**
 * The policy if all that is not known of a request were as good as it can be for the client, or as bad: rules that allow hold or do
 * not, and rules that refuse the other way round. `requests`: nothing is known; `fields`: method and path are.
 */
function assuming(policy: AccessPolicy, isBest: boolean, unknown: Unknown): AccessPolicy {
  let known = ASSUMED.get(policy);
  if (known === undefined) ASSUMED.set(policy, (known = new Map()));
  const key = `${unknown} ${isBest}`;
  let made = known.get(key);
  if (made === undefined) known.set(key, (made = makeAssumed(policy, isBest, unknown)));
  return made;
}

function makeAssumed(policy: AccessPolicy, isBest: boolean, unknown: Unknown): AccessPolicy {
  const rules = policy.rules.map((rule): AccessRule => {
    const refuses = rule.action === "deny" || rule.action === "restrict";
    const holds = isBest !== refuses;
    const isRouted = unknown === "requests" && rule.route !== null;
    return {
      ...rule,
      requests: isRouted && !holds ? [] : assumedRequests(rule.requests, holds, unknown),
      route: isRouted ? null : rule.route,
    };
  });
  const routes =
    unknown === "requests"
      ? []
      : policy.routes.map((route) => ({
          ...route,
          hosts: [],
          matches: route.matches.map((match) => ({ ...match, headers: [], query: [] })),
        }));
  return { routes, rules };
}

function assumedRequests(
  requests: readonly RequestCondition[] | null,
  holds: boolean,
  unknown: Unknown,
): readonly RequestCondition[] | null {
  if (requests === null) return null;
  return requests.flatMap((condition) => {
    const { hosts, headers, query, claims, methods, paths } = condition;
    const asksFields =
      (hosts ?? []).length > 0 || headers.length > 0 || query.length > 0 || claims.length > 0;
    const asksMore = (methods ?? []).length > 0 || (paths ?? []).length > 0;
    if (!asksFields && !(unknown === "requests" && asksMore)) return [condition];
    if (!holds) return [];
    const known = unknown === "requests" ? { methods: null, paths: null } : { methods, paths };
    return [{ ...known, hosts: null, headers: [], query: [], claims: [] }];
  });
}
