import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AuthnSchema, AuthzSchema } from "#/gen/linkerd/inbound_pb.ts";
import type { AccessRule, AccessSource, NetworkMatch, PeerMatch } from "#/model/access.ts";
import { CONTROL_NAMESPACE, dnsName, spiffeUri } from "#/model/identity.ts";
import type { PolicySource } from "#/model/policy.ts";
import { EVERYWHERE } from "../policy/access/sources.ts";
import { wireNetworkMatch } from "./encode-access.ts";
import type { Lose } from "./standard-refusal.ts";
import { wireSource } from "./wire.ts";

/** Somebody whom an object lets in, from somewhere. */
export interface Permit {
  readonly source: PolicySource;
  readonly peer: PeerMatch;
  readonly networks: readonly NetworkMatch[];
}

const ANYONE: readonly AccessSource[] = [{ peer: { kind: "anyone" }, networks: null }];

/** Whom these rules let in and none of `denials` might refuse, whatever those look at. */
export function permitsOf(
  rules: readonly AccessRule[],
  denials: readonly AccessRule[],
  lose: Lose,
): readonly Permit[] {
  return rules.flatMap(({ source, sources }) =>
    (sources ?? ANYONE).flatMap(({ peer, networks }) => {
      if (peer.kind === "unauthenticated") {
        lose(source, "let nobody in for having no identity: they cannot tell that from anyone");
        return [];
      }
      const permit: Permit = { source, peer, networks: networks ?? EVERYWHERE };
      const left = denials.reduce<Permit | null>((kept, denial) => less(kept, denial, lose), permit);
      return left === null || left.networks.length === 0 ? [] : [left];
    }),
  );
}

/** The permit without all whom a rule that refuses may mean; null: nobody is left. */
function less(permit: Permit | null, { source, sources }: AccessRule, lose: Lose): Permit | null {
  let left = permit;
  for (const { peer, networks } of sources ?? ANYONE) {
    if (left === null) return null;
    if (networks?.length === 0 || !mayMeet(peer, left.peer)) continue;
    if (networks !== null) left = { ...left, networks: left.networks.map((net) => without(net, networks)) };
    else if (peer.kind === "unauthenticated" && left.peer.kind === "anyone")
      left = { ...left, peer: { kind: "authenticated" } };
    else {
      if (!covers(peer, left.peer))
        lose(source, "refuse more than it does: they cannot leave single identities out of those let in");
      left = null;
    }
  }
  return left;
}

/** Without all of these, whatever those are less: at least as strict. */
function without({ net, except }: NetworkMatch, others: readonly NetworkMatch[]): NetworkMatch {
  const isIpv6 = net.includes(":");
  const same = others.flatMap((other) => (other.net.includes(":") === isIpv6 ? [other.net] : []));
  return { net, except: [...except, ...same] };
}

/** False: nobody is both, for sure. */
function mayMeet(a: PeerMatch, b: PeerMatch): boolean {
  if (a.kind === "anyone" || b.kind === "anyone") return true;
  if (a.kind === "unauthenticated" || b.kind === "unauthenticated") return a.kind === b.kind;
  if (a.kind === "name" && b.kind === "name") return a.name === b.name;
  for (const part of ["trustDomain", "namespace", "serviceAccount"] as const) {
    const one = partOf(a, part);
    const other = partOf(b, part);
    if (one !== null && other !== null && one !== other) return false;
  }
  return true;
}

/** Whether everybody of `b` is of `a`, for sure. */
function covers(a: PeerMatch, b: PeerMatch): boolean {
  if (a.kind === "anyone") return true;
  if (a.kind === "authenticated") return b.kind !== "anyone";
  return (["trustDomain", "namespace", "serviceAccount"] as const).every((part) => {
    const one = partOf(a, part);
    return one === null ? a.kind !== "name" && a.kind !== "suffix" : one === partOf(b, part);
  });
}

function partOf(peer: PeerMatch, part: "trustDomain" | "namespace" | "serviceAccount"): string | null {
  return (peer as Partial<Record<typeof part, string>>)[part] ?? null;
}

/** In the contract's words: one for each object and network. A permit from nowhere is none. */
export function wirePermits(permits: readonly Permit[]): MessageInitShape<typeof AuthzSchema>[] {
  const groups = Map.groupBy(permits, ({ source, networks }) => JSON.stringify([source, networks]));
  return [...groups.values()].map((group) => {
    const { source, networks } = group[0]!;
    const { group: apiGroup, kind, name } = source;
    return {
      networks: networks.map(wireNetworkMatch),
      authentication: wireAuthn(group.map(({ peer }) => peer)),
      labels: { group: apiGroup, kind: kind.toLowerCase(), name },
      metadata: wireSource(source),
    };
  });
}

function wireAuthn(peers: readonly PeerMatch[]): MessageInitShape<typeof AuthnSchema> {
  if (peers.some(({ kind }) => kind === "anyone")) return { permit: { case: "unauthenticated", value: {} } };
  const identities = peers.flatMap(namesOf);
  const suffixes = peers.map(suffixOf).filter((parts) => parts !== null);
  return {
    permit: {
      case: "meshTLS",
      value: {
        clients: suffixes.some((parts) => parts.length === 0)
          ? { case: "unauthenticated", value: {} }
          : {
              case: "identities",
              value: {
                identities: identities.map((name) => ({ name })),
                suffixes: suffixes.map((parts) => ({ parts: [...parts] })),
              },
            },
      },
    },
  };
}

/** Both forms that a certificate may have. */
function namesOf(peer: PeerMatch): readonly string[] {
  if (peer.kind === "name") return [peer.name];
  return peer.kind === "identity" ? [dnsName(peer), spiffeUri(peer)] : [];
}

/** What the DNS names of all of them end in; null: they are known by name. */
function suffixOf(peer: PeerMatch): readonly string[] | null {
  const below = (trustDomain: string): string[] => [
    "serviceaccount",
    "identity",
    CONTROL_NAMESPACE,
    ...trustDomain.split("."),
  ];
  switch (peer.kind) {
    case "authenticated":
      return [];
    case "suffix":
      return peer.labels;
    case "trust-domain":
      return below(peer.trustDomain);
    case "namespace":
      return [peer.namespace, ...below(peer.trustDomain)];
    default:
      return null;
  }
}
