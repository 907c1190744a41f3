import type { IpAddress } from "#/base/address.ts";
import { parseIdentity, sameIdentity, type Labels, type PeerIdentity } from "#/model/identity.ts";
import type { Authorization, InboundPolicy } from "#/model/policy.ts";
import { decideAccess } from "./access/decide.ts";
import { isLoopback, networkContains, parseNetwork } from "./networks.ts";

export type AuthorizationDecision =
  | { readonly allowed: true; readonly labels: Labels }
  /** `reason` is for people: who was refused and what would have been needed. */
  | { readonly allowed: false; readonly reason: string };

const LOCALHOST: Labels = { group: "", kind: "default", name: "localhost" };

/**
 * Whether a client may use a port (facts §13): the first authorization that matches by network and by identity allows;
 * with none it is denied. Loopback is always allowed (every Server implicitly has that authorization).
 */
export function authorize(
  policy: InboundPolicy,
  ip: IpAddress,
  peer: PeerIdentity | null,
): AuthorizationDecision {
  if (isLoopback(ip)) return { allowed: true, labels: LOCALHOST };
  if (policy.access !== null) {
    const { verdict, by, reason } = decideAccess(policy.access, { ip, peer, request: null });
    if (verdict !== "allowed") return { allowed: false, reason };
    return {
      allowed: true,
      labels: { group: by.group, kind: by.kind, namespace: by.namespace, name: by.name },
    };
  }
  let networkMatched = false;
  for (const authorization of policy.authorizations) {
    if (!matchesNetwork(authorization, ip)) continue;
    networkMatched = true;
    if (matchesClient(authorization, peer)) return { allowed: true, labels: authorization.labels };
  }
  const who = peer === null ? "a client without mesh identity" : peer.name;
  if (policy.authorizations.length === 0)
    return { allowed: false, reason: `${who} was refused: nothing is authorized on this port` };
  if (!networkMatched)
    return { allowed: false, reason: `${who} was refused: no authorization covers the address ${ip}` };
  return { allowed: false, reason: `${who} was refused: no authorization for ${ip} names this identity` };
}

function matchesNetwork(authorization: Authorization, ip: IpAddress): boolean {
  return authorization.networks.some(
    ({ net, except }) => contains(net, ip) && !except.some((one) => contains(one, ip)),
  );
}

function contains(text: string, ip: IpAddress): boolean {
  const network = parseNetwork(text);
  return network !== null && networkContains(network, ip);
}

function matchesClient({ authentication }: Authorization, peer: PeerIdentity | null): boolean {
  if (authentication.kind === "unauthenticated") return true;
  if (peer === null) return false;
  if (authentication.kind === "meshed-any") return true;
  return (
    authentication.identities.some((name) => denotes(name, peer)) ||
    authentication.suffixes.some((parts) => parts.length === 0 || peer.name.endsWith(`.${parts.join(".")}`))
  );
}

/** Identities are compared as such, whichever form each is written in. */
function denotes(name: string, peer: PeerIdentity): boolean {
  const identity = parseIdentity(name);
  return identity === null ? name === peer.name : sameIdentity(identity, peer.identity);
}
