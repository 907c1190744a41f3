import type { AccessDecision, AccessPolicy, AccessSubject } from "#/model/access.ts";
import { AccessRules } from "./rules.ts";

/** Rules that are made ready, as long as their policy is held. */
const READY = new WeakMap<AccessPolicy, AccessRules>();

/** A policy made ready: the same object for the same policy, which must not change. */
export function accessRulesOf(policy: AccessPolicy): AccessRules {
  let rules = READY.get(policy);
  if (rules === undefined) READY.set(policy, (rules = new AccessRules(policy)));
  return rules;
}

/** What becomes of a connection or a request (docs/reference/authorization.md, "How it is decided"), by the code that enforces it. */
export function decideAccess(policy: AccessPolicy, { ip, peer, request }: AccessSubject): AccessDecision {
  return accessRulesOf(policy)
    .clientOf(ip, peer)
    .decide(request, request?.claims ?? null);
}
