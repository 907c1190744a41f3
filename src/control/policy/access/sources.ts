import type { AccessSourceSpec, LinkerdNetwork, LinkerdRef } from "#/kube/access-objects.ts";
import type { AccessSource, NetworkMatch, PeerMatch } from "#/model/access.ts";
import { parseIdentity } from "#/model/identity.ts";

/** Who is meant by a rule of an AuthorizationPolicy. Null: anyone. */
export function sourcesOf(
  sources: readonly AccessSourceSpec[] | undefined,
  { trustDomain, namespace }: { readonly trustDomain: string; readonly namespace: string },
): readonly AccessSource[] | null {
  return (
    sources?.map((source): AccessSource => {
      if (source.type === "CIDR")
        return { peer: ANYONE, networks: [{ net: source.cidr!, except: source.except ?? [] }] };
      return {
        peer: peerOf(source, trustDomain, namespace),
        networks: source.cidrs?.map((net) => ({ net, except: [] })) ?? null,
      };
    }) ?? null
  );
}

export const ANYONE: PeerMatch = { kind: "anyone" };

export const EVERYWHERE: readonly NetworkMatch[] = [
  { net: "0.0.0.0/0", except: [] },
  { net: "::/0", except: [] },
];

function peerOf(source: AccessSourceSpec, trustDomain: string, namespace: string): PeerMatch {
  switch (source.type) {
    case "ServiceAccount":
      return accountMatch(
        trustDomain,
        source.serviceAccount!.namespace ?? namespace,
        source.serviceAccount!.name,
      );
    case "SPIFFE":
      return identityMatch(source.spiffe!);
    case "Namespace":
      return { kind: "namespace", trustDomain, namespace: source.namespace! };
    case "TrustDomain":
      return { kind: "trust-domain", trustDomain: source.trustDomain! };
    case "Unauthenticated":
      return { kind: "unauthenticated" };
    case "Authenticated":
      return { kind: "authenticated" };
    case "CIDR":
      return ANYONE;
  }
}

function accountMatch(trustDomain: string, namespace: string, serviceAccount: string): PeerMatch {
  return serviceAccount === "*"
    ? { kind: "namespace", trustDomain, namespace }
    : { kind: "identity", trustDomain, namespace, serviceAccount };
}

/** A SPIFFE ID or a DNS name; of a service account it is the identity, however it is written. */
function identityMatch(name: string): PeerMatch {
  const identity = parseIdentity(name);
  return identity === null ? { kind: "name", name } : { kind: "identity", ...identity };
}

/** An entry of Linkerd's `identities`: `*`, a name, or `*.` and what the name ends in. */
export function linkerdPeer(text: string): PeerMatch {
  if (text === "*") return { kind: "suffix", labels: [] };
  if (!text.startsWith("*.")) return identityMatch(text);
  const labels = text.slice(2).split(".");
  // Whatever namespace the control plane lives in there: who is meant are a namespace or a whole trust domain.
  const at = labels.indexOf("serviceaccount");
  if ((at === 0 || at === 1) && labels[at + 1] === "identity" && labels.length > at + 3) {
    const trustDomain = labels.slice(at + 3).join(".");
    return at === 0
      ? { kind: "trust-domain", trustDomain }
      : { kind: "namespace", trustDomain, namespace: labels[0]! };
  }
  return { kind: "suffix", labels };
}

/** A ServiceAccount or a Namespace, as Linkerd's objects refer to them. */
export function refPeer(ref: LinkerdRef, trustDomain: string, namespace: string): PeerMatch {
  return ref.kind === "Namespace"
    ? { kind: "namespace", trustDomain, namespace: ref.name }
    : {
        kind: "identity",
        trustDomain,
        namespace: ref.namespace ?? namespace,
        serviceAccount: ref.name,
      };
}

export function networksOf(networks: readonly LinkerdNetwork[]): readonly NetworkMatch[] {
  return networks.map(({ cidr, except }) => ({ net: wide(cidr), except: (except ?? []).map(wide) }));
}

/** An address alone is a network of one. */
function wide(text: string): string {
  if (text.includes("/")) return text;
  return text.includes(":") ? `${text}/128` : `${text}/32`;
}
