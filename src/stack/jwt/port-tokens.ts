import type { AccessPolicy, AccessRule, JwtPolicy } from "#/model/access.ts";
import type { InboundPolicy } from "#/model/policy.ts";
import { ClaimFields } from "./claim-fields.ts";
import type { TokenVerifier } from "./token-verifier.ts";

/** A `JwtPolicy` at one port, made ready: once for each policy. */
export class PortTokens {
  readonly policy: JwtPolicy;
  readonly verifier: TokenVerifier;
  /** Where tokens are looked for, in lower case. */
  readonly headers: readonly string[];
  readonly claimFields: ClaimFields;
  /** What is refused without a token, said as rules of access: paths, probes and loopback are then read in one way only. */
  readonly needs: AccessPolicy;

  constructor(policy: JwtPolicy, needs: AccessPolicy, verifier: TokenVerifier) {
    this.policy = policy;
    this.verifier = verifier;
    this.headers = [...new Set(policy.issuers.flatMap(({ headers }) => headers))];
    this.claimFields = new ClaimFields(policy.issuers);
    this.needs = needs;
  }
}

const NEEDS = new WeakMap<InboundPolicy, AccessPolicy>();

/**
 * Which requests of a port are refused without a token, as a policy of its own: a scope, and everybody outside of it. What nobody looks into
 * is in the scope, as for any rule about requests. The port's own rules tell the probes.
 */
export function needsOf(port: InboundPolicy & { readonly jwt: JwtPolicy }): AccessPolicy {
  let needs = NEEDS.get(port);
  if (needs !== undefined) return needs;
  const { required, source } = port.jwt;
  const rule = { stage: "both", source, sources: null, route: null, layer: "both" } as const;
  const probes = port.access.rules.filter(({ action, stage }) => action === "exempt" && stage !== "proposed");
  const needing: AccessRule[] =
    required === null
      ? []
      : [{ ...rule, action: "restrict", requests: required.length === 0 ? null : required }];
  needs = {
    routes: [],
    rules: [...probes, ...needing, { ...rule, action: "default", requests: null }],
  };
  NEEDS.set(port, needs);
  return needs;
}

/** Whether a port's policy asks for tokens at all. */
export function asksForTokens(policy: InboundPolicy): policy is InboundPolicy & { readonly jwt: JwtPolicy } {
  return policy.jwt !== null;
}
